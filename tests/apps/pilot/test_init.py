"""`fmrgen init`: what it says of a folder, how it deals its images, and the recipe that it writes."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch
from commands import run
from datasets import load_dataset
from PIL import Image, ImageDraw

from fmrgen import Example, Judgement, UserError, generate, init, load_classifier, load_recipe
from fmrgen.apps.pilot import panel
from fmrgen.apps.pilot.candidates import candidates, seconds_of_step
from fmrgen.apps.pilot.photos import deal, look
from fmrgen.recipe.build import build_source
from fmrgen.recipe.sections import source_config_of

LENET = "asset:mnist/lenet"


def scene(seed, shape):
    """A photo of a shape, somewhere."""
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 90, (40, 48, 3), dtype=np.uint8)).resize((48, 40), Image.BILINEAR)
    x, y = random.integers(4, 20, 2).tolist()
    draw = ImageDraw.Draw(image)
    colour = tuple(random.integers(150, 255, 3).tolist())
    (draw.ellipse if shape == "disc" else draw.rectangle)((x, y, x + 16, y + 14), fill=colour)
    return image


@pytest.fixture
def photos(tmp_path):
    """Two classes of 30 photos with names that say nothing."""
    for shape in ("disc", "square"):
        (tmp_path / "photos" / shape).mkdir(parents=True)
        for number in range(30):
            name = f"{chr(97 + number % 26)}{'x' * (number // 26)}.png"
            scene(number + 100 * (shape == "disc"), shape).save(tmp_path / "photos" / shape / name)
    return tmp_path / "photos"


def looked_at(folder):
    return look(build_source(source_config_of({"kind": "imagefolder", "path": str(folder)}, "test")))


def test_a_folder_in_words(photos):
    scene(1, "square").save(photos / "square/copy.png")
    scene(2, "square").save(photos / "disc/wrong.png")
    (photos / "disc/broken.png").write_bytes(b"no image")
    scene(3, "disc").convert("L").save(photos / "disc/grey.png")
    looked = looked_at(photos)
    lines = looked.lines()
    assert lines[0] == "63 images of 2 classes (31 to 32 each), shorter side 40 to 40 px, RGB 62, L 1"
    assert lines[1].startswith("1 can't be read and are left out: ")
    assert lines[2] == "2 are copies of others; copies stay in one part"
    assert lines[3].startswith("1 pairs of copies are in two classes, first ")
    dealt = deal(looked)
    digests = [{photo.digest for photo in part} for part in dealt.values()]
    assert not (digests[0] & digests[1] | digests[0] & digests[2] | digests[1] & digests[2])
    assert sum(map(len, dealt.values())) == 63 - 2  # the two of which one label is wrong


def test_of_copies_in_two_classes_none_is_dealt(photos):
    for name in ("disc/again.png", "disc/once-more.png", "square/wrong.png"):
        scene(2, "disc").save(photos / name)
    looked = looked_at(photos)
    digest = Counter(photo.digest for photo in looked.photos).most_common(1)[0][0]
    assert not any(photo.digest == digest for part in deal(looked).values() for photo in part)


def test_frames_of_a_series_stay_in_one_part(tmp_path):
    for shape in ("disc", "square"):
        (tmp_path / shape).mkdir()
        for series in range(12):
            for frame in range(5):
                scene(1000 * series + frame + 7 * (shape == "disc"), shape).save(
                    tmp_path / shape / f"{series:03}_{frame:03}.png"
                )
    dealt = deal(looked_at(tmp_path))
    assert {name: len(part) for name, part in dealt.items()} == {"panel": 80, "choose": 10, "tested": 30}
    for part in dealt.values():
        frames = Counter(photo.track for photo in part)
        assert set(frames.values()) == {5}


def test_scenes_that_look_alike_stay_in_one_part(photos):
    original = scene(5, "disc")
    for number in range(3):
        original.point(lambda value, more=number: value + 2 * more).save(photos / "disc" / f"again-{'abc'[number]}.png")
    looked = looked_at(photos)
    sizes = Counter(looked.groups.tolist()).most_common(1)
    assert sizes[0][1] >= 3


def folders(*names, each=0, save=lambda path, number: scene(number, path.parent.name).save(path)):
    """Makes folders with so many images in each."""

    def make(root):
        for name in names:
            (root / name).mkdir(parents=True)
            for number in range(each):
                save(root / name / f"{number}.png", number)

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (folders("a", "b"), "source: contains no examples|none of the 0 images"),
        (folders("disc", each=40), "all images are of one class, disc; put those of each class into a folder of its"),
        (folders("disc", "square", each=1), "2 images can be read; at least 30 are needed"),
        (folders(".", each=1), "has no folder for each class, and no metadata.csv"),
        (folders("train/disc", "val/disc"), "holds train, val; name one of them, as .*/photos/train"),
        (folders("images", "masks"), "looks like a dataset for segmentation"),
        (
            folders("disc", "square", each=20, save=lambda path, number: path.write_bytes(b"no image")),
            "none of the 40 images can be read; the first, ",
        ),
        (lambda folder: folder.write_text("no folder"), "photos"),
        (lambda folder: None, "no such folder"),
        (
            folders("disc", "square", each=20, save=lambda path, number: Image.new("RGB", (2, 2)).save(path)),
            "none of the 40 images can be read; the first, .*: it has 2×2 pixels",
        ),
    ],
)
def test_folders_that_no_recipe_can_be_made_of(tmp_path, make, words):
    make(tmp_path / "photos")
    with pytest.raises(UserError, match=words):
        init(tmp_path / "photos", LENET, output=tmp_path / "fmrgen.yaml", offline=True)
    assert not (tmp_path / "fmrgen.yaml").exists()


def digits_in(folder, each):
    """Write digits of each class into folders."""
    source = build_source(load_recipe("mnist-lenet").source.model_copy(update={"limit": 10 * each}))
    for example in source.load_all(32):
        (folder / f"{example.label}").mkdir(parents=True, exist_ok=True)
        pixels = (example.image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / f"{example.label}" / f"{chr(97 + example.id % 26)}{example.id}q.png")
    return folder


class Sure(torch.nn.Module):
    """An oracle that reads label and probability out of the first two pixels."""

    member_names = ()

    def judge(self, images, originals=None):
        labels = (images[:, 0, 0, 0] * 255).round().long() // 20
        highest = images[:, 0, 0, 1]
        probabilities = (1 - highest)[:, None].expand(-1, 4) / 3
        return Judgement(probabilities.scatter(1, labels[:, None], highest[:, None]), probabilities)


def _seen_as(label, probability, true):
    image = torch.zeros(3, 4, 4)
    image[:, 0, 0], image[:, 0, 1] = 20 * label / 255, probability
    return Example(0, image, true)


def test_the_threshold_follows_from_originals_that_the_oracle_has_not_seen():
    """It accepts 80 % of these, and more than 2 % of them as another class never."""
    clear = [_seen_as(number % 4, (200 + number % 50) / 255, number % 4) for number in range(100)]
    device = torch.device("cpu")
    plain = panel.judged("sure", {}, Sure(), clear, device)
    assert plain.threshold == pytest.approx(0.82, abs=0.01)
    assert plain.kept.value == pytest.approx(80, abs=3)
    confused = [*clear[:90], *[_seen_as(0, 0.95, 1) for _ in range(10)]]
    strict = panel.judged("sure", {}, Sure(), confused, device)
    assert strict.threshold == 0.95  # 242 of 255 is less
    assert strict.accuracy.value == 90
    assert strict.wrong.value == 0


@pytest.mark.slow
def test_a_recipe_under_an_oracle_that_is_named(tmp_path, monkeypatch, capsys):
    digits_in(tmp_path / "digits", 20)
    monkeypatch.chdir(tmp_path)
    arguments = ["init", "digits", "--model", LENET, "--oracle", "asset:mnist/clip", "--offline"]
    assert run(*arguments) == 0
    printed, notes = capsys.readouterr()
    assert "ms for a step of an image by the shipped VQGAN" in notes
    assert "errs more than what it judges" in printed
    assert printed.splitlines()[-1] == "fmrgen.yaml"
    text = (tmp_path / "fmrgen.yaml").read_text()
    assert "# Taken: " in text
    assert (tmp_path / "fmrgen.init/init.html").is_file()
    recipe = load_recipe("fmrgen.yaml")
    assert recipe.generator.image_size == 32  # as LeNet resizes images
    assert panel.LEAST <= recipe.perturb.min_probability <= panel.MOST
    assert isinstance(recipe.perturb.step_size, float)
    assert len(build_source(recipe.source)) <= 60
    assert run("explain") == 2
    assert "out:photos/model: is the split of fmrgen.yaml, and does not exist yet" in capsys.readouterr().err
    assert run("generate", "source.limit=4", "-q") == 0
    assert (tmp_path / "out/photos").is_dir()
    assert run(*arguments) == 2
    assert "fmrgen.yaml: exists already" in capsys.readouterr().err
    (tmp_path / "fmrgen.yaml").unlink()
    (tmp_path / "net.yaml").write_text(f"classifier: {LENET}")
    oracle = "{kind: classifier, classifier: asset:mnist/lenet}"
    others = ["--generator", "transform", "--oracle", oracle, "--offline", "-q"]
    assert run("init", "digits", "--model", "net.yaml", *others) == 0
    assert load_recipe("fmrgen.yaml").generator.kind == "transform"
    assert load_recipe("fmrgen.yaml").oracle.classifier.kind == "lenet"
    (tmp_path / "fmrgen.yaml").unlink()
    assert run("init", "other", *arguments[2:]) == 2
    assert "other: no such folder" in capsys.readouterr().err
    next((tmp_path / "digits/3").iterdir()).unlink()
    assert run(*arguments) == 2
    assert "fmrgen.init: belongs to an init of other images" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dataset_and_a_network_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits_in(tmp_path / "digits", 12)
    rows = load_dataset("imagefolder", data_dir=str(tmp_path / "digits"), split="train")
    with pytest.raises(UserError, match=r"there is no generator: pass it, or let fmrgen.init\(dataset, classifier\)"):
        generate(rows, load_classifier(LENET), output=tmp_path / "out")
    options = {"generator": {"kind": "transform"}, "oracle": "asset:mnist/clip", "offline": True}
    outcome = init(rows, load_classifier(LENET), **options)
    assert outcome.generator.name == "transform"
    split = generate(outcome.recipe, output=tmp_path / "out", progress=False, budget=2)
    assert split.summary.rows == outcome.counts["tested"]


def test_too_few_images_to_teach_a_panel(tmp_path):
    digits_in(tmp_path / "digits", 12)
    with pytest.raises(UserError, match=r"images are too few to teach a panel of networks \(200 at least\)"):
        init(tmp_path / "digits", LENET, output=tmp_path / "fmrgen.yaml", generator={"kind": "transform"})


class Blind(torch.nn.Module):
    """Gives logits without a gradient."""

    @torch.no_grad()
    def forward(self, images):
        return images.flatten(1)[:, :10]


def test_a_step_without_a_gradient_has_no_time():
    """So `init` goes on to the error that names the cause."""
    examples = [Example(number, torch.rand(3, 32, 32), 0) for number in range(2)]
    vqgan = candidates(32, None, hub=False)[0]
    assert seconds_of_step(vqgan, Blind(), examples, torch.device("cpu")) is None
    assert seconds_of_step(vqgan, load_classifier(LENET), examples, torch.device("cpu")) > 0


class Reversed(torch.nn.Module):
    """Puts outputs in the opposite order."""

    def forward(self, logits):
        return logits.flip(1)


def test_outputs_in_another_order_are_reported_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits_in(tmp_path / "digits", 20)
    network = torch.nn.Sequential(load_classifier(LENET), Reversed())
    with pytest.raises(UserError, match=r"and on \d+% if its outputs stand for 9, 8, 7, 6, 5, 4, 3, 2, 1, 0; list its"):
        init("digits", network, oracle="asset:mnist/clip", offline=True)


# Trainings of some steps, which learn next to nothing.
DRIVER = """
from fmrgen.apps.pilot import panel
from fmrgen.apps.pilot.candidates import candidates, seconds_of_step
panel.steps_within = lambda *arguments: 12
from fmrgen.cli.app import main
main()
"""


@pytest.mark.nightly
def test_a_killed_init_continues(tmp_path, monkeypatch):
    """It trains the networks that are left, and its recipe loads."""
    monkeypatch.chdir(tmp_path)
    digits_in(tmp_path / "digits", 40)
    command = [sys.executable, "-c", DRIVER, "init", "digits", "--model", LENET, "--offline", "-q"]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 240
    while not (tmp_path / "fmrgen.init/densenet").is_dir() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    dealt = (tmp_path / "fmrgen.init/panel.txt").read_bytes()
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "fmrgen.init/panel.txt").read_bytes() == dealt
    for name in panel.MEMBERS:
        assert (tmp_path / "fmrgen.init" / name / "training.json").is_file()
    assert "errs more than what it judges" in again.stdout + again.stderr  # networks of 12 steps
    assert load_recipe("fmrgen.yaml").oracle.kind == "ensemble"
