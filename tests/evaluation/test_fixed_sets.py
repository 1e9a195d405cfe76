"""Fixed benchmarks beside FMR: accuracy, mCE, subsets by name, and whether they rank as FMR does."""

import json

import numpy as np
import pytest
from commands import run
from PIL import Image

from fmrgen import evaluate
from fmrgen.errors import UserError
from fmrgen.recipe.job import load_fixed_sets, load_source
from fmrgen.results.fixed_sets import fixed_result
from fmrgen.sources.mnist import Config as Mnist

LENET = "asset:mnist/lenet"
OTHER = "outside_components:SmallNetConfig"
DIGITS = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def corrupted(tmp_path_factory):
    """MNIST digits under two corruptions in five severities, as CIFAR-10-C comes; and a recipe over them."""
    folder = tmp_path_factory.mktemp("digits-c")
    examples = list(Mnist().build().read(0, 40))
    images = np.stack([np.asarray(example.image.convert("RGB")) for example in examples])
    random = np.random.default_rng(0)
    for name in ("noise", "dark"):
        parts = []
        for severity in range(1, 6):
            noise, light = (25 * severity, 1) if name == "noise" else (0, 1 - 0.15 * severity)
            changed = light * images + random.normal(0, noise, images.shape)
            parts.append(changed.clip(0, 255).astype(np.uint8))
        np.save(folder / f"{name}.npy", np.concatenate(parts))
    np.save(folder / "labels.npy", np.array([example.label for example in examples] * 5))
    (folder / "digits-c.yaml").write_text(
        f"source: {{kind: arrays, images: '{folder}/{{set}}.npy', labels: {folder}/labels.npy, part: '{{severity}}/5', classes: {json.dumps(DIGITS)}}}\n"
        "sets: [noise, dark]\nseverities: [1, 2, 3, 4, 5]\nnormaliser: {noise: 80, dark: 40}\n"
    )
    return folder


def test_corruptions_and_mce(corrupted, finished_split):
    found = evaluate([str(finished_split)], [LENET, OTHER], fixed=[str(corrupted / "digits-c.yaml")], progress=False)
    lenet, other = found.fixed
    assert (lenet.name, lenet.classifier, other.classifier) == ("digits-c", "mnist/lenet", "SmallNetConfig")
    assert (lenet.images, len(lenet.by_set)) == (400, 10)
    by_set = {name: figure.value for name, figure in lenet.by_set.items()}
    assert lenet.accuracy.value == pytest.approx(np.mean(list(by_set.values())))
    error = {name: np.mean([100 - by_set[f"{name}-{s}"] for s in range(1, 6)]) for name in ("noise", "dark")}
    assert lenet.mean_corruption_error.value == pytest.approx(100 * (error["noise"] / 80 + error["dark"] / 40) / 2)
    assert lenet.accuracy.value > other.accuracy.value
    assert lenet.mean_corruption_error.value < other.mean_corruption_error.value
    assert 0 < other.mean_corruption_error.low < other.mean_corruption_error.value
    said = found.predictions.to_pandas()
    rows = said[(said.split == "digits-c: dark-1") & (said.classifier == "mnist/lenet")]
    assert 100 * (rows.label == rows.prediction).mean() == pytest.approx(by_set["dark-1"])


def test_sets_alone(corrupted, tmp_path, capsys):
    out = tmp_path / "report"
    command = ["evaluate", "-c", LENET, "--fixed", f"d={corrupted}/digits-c.yaml", "-o", out]
    assert run(*command) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "d mCE" in shown
    told = json.loads((out / "evaluation.json").read_text())
    assert told["splits"] == []
    assert told["fixed"][0]["name"] == "d"
    assert "Fixed sets" in (out / "report.html").read_text()
    assert "## Fixed sets" in (out / "evaluation.md").read_text()


def test_a_folder_of_a_part_of_the_classes(tmp_path):
    """As ImageNet-A is: fewer classes than the classifier has, found by their names."""
    for example in Mnist().build().read(0, 60):
        if example.label in (3, 7):
            (tmp_path / str(example.label)).mkdir(exist_ok=True)
            example.image.convert("RGB").save(tmp_path / str(example.label) / f"{example.id}.png")
    found = evaluate([], [LENET], fixed=[f"{{kind: imagefolder, path: {tmp_path}}}"], progress=False)
    assert found.fixed[0].images == 12
    accuracy, (of_set,) = found.fixed[0].accuracy, found.fixed[0].by_set.values()
    assert accuracy.value > 80
    assert (accuracy.low, accuracy.high) == pytest.approx((of_set.low, of_set.high), abs=3)  # Wilson's
    assert accuracy.high <= 100


def test_intervals_know_that_the_images_are_the_same():
    random = np.random.default_rng(0)
    hard = random.random(400)
    rows = {(name, s): (np.arange(400), hard > 0.3) for name in "ab" for s in (1, 2)}
    together = fixed_result("s", "x", rows, {}).accuracy
    assert together.high - together.low == pytest.approx(2 * 196 * np.std(hard > 0.3, ddof=1) / 20, rel=0.02)
    for number, (ids, _) in enumerate(rows.values()):
        ids[:] += 1000 * number
    apart = fixed_result("s", "x", rows, {}).accuracy
    assert (apart.high - apart.low) == pytest.approx((together.high - together.low) / 2, rel=0.02)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sets: [a]", "source: is missing"),
        ("source: {kind: mnist}\nseverities: [1]", "severities: belong to sets; list the sets too"),
        ("source: {kind: mnist}\nsets: [a, b]\nnormaliser: {a: 1}", "needs an error for each set, and for no other; see b"),
        ("source: {kind: mnist}\nsets: [a]\nnormaliser: {a: 0}", "errors must be above 0"),
        ("source: {kind: nothing}", "unknown kind"),
        ("source: {kind: mnist}\nset: a", "unknown key, did you mean sets"),
    ],
)  # fmt: skip
def test_recipes_that_are_none(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_fixed_sets([str(tmp_path / "x.yaml")])


def test_shipped_sets_and_their_names(capsys):
    sets = load_fixed_sets(["sets/imagenet-c", "sets/cifar10-c"])
    assert len(sets["imagenet-c"].sources("x")) == len(sets["cifar10-c"].sources("x")) == 75
    assert len(sets["imagenet-c"].sources("x")["fog", 3].classes) == 1000
    for name, classes in (("imagenet-a", 200), ("imagenet-r", 200), ("imagenet-sketch", 1000), ("imagenet-v2", 1000)):
        (source,) = load_fixed_sets([f"sets/{name}"])[name].sources(name).values()
        assert len(source.classes) == classes
    with pytest.raises(UserError, match="timm has no class names for imagenet-b"):
        load_fixed_sets(["{kind: mnist, classes: 'timm:imagenet-b'}"])
    assert run("recipes", "sets/imagenet-c") == 0
    assert "gaussian_noise: 88.6428" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("images", "labels", "part", "message"),
    [
        (np.zeros((4, 8, 8), np.float32), np.zeros(4, int), None, "no uint8 images"),
        (np.zeros((4, 8, 8, 4), np.uint8), np.zeros(4, int), None, "no uint8 images"),
        (np.zeros((4, 8, 8), np.uint8), np.zeros(3, int), None, "no label for each of 4 images"),
        (np.zeros((4, 8, 8), np.uint8), np.zeros(4, int), "1/3", "4 images can't be split into 3 equal parts"),
        (np.array([object()]), np.zeros(1, int), None, "can't be read as a .npy file"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, images, labels, part, message):
    np.save(tmp_path / "i.npy", images, allow_pickle=True)
    np.save(tmp_path / "l.npy", labels)
    text = f"{{kind: arrays, images: {tmp_path}/i.npy, labels: {tmp_path}/l.npy, part: {part or '1/1'}, classes: ['0', '1']}}"
    with pytest.raises(UserError, match=message):
        load_source(text).build()


def test_grey_arrays_and_parts(tmp_path):
    np.save(tmp_path / "i.npy", np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8))
    np.save(tmp_path / "l.npy", np.array([0, 1, 0, 1, 0, 1]))
    text = f"{{kind: arrays, images: {tmp_path}/i.npy, labels: {tmp_path}/l.npy, part: 2/3, classes: ['a', 'b']}}"
    examples = list(load_source(text).build().read(0, 2))
    assert [(example.id, example.label) for example in examples] == [(0, 0), (1, 1)]
    assert [np.asarray(example.image)[0, 0] for example in examples] == [2, 3]
    assert isinstance(examples[0].image, Image.Image)
