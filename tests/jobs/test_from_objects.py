"""`fmrgen.generate` of datasets and models in memory, as one types it in a notebook."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fmrgen
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset
from outside_components import Dim, HalfTrained, NotTooBright, SmallNet
from places import SUPPORT
from torch.utils.data import TensorDataset

from fmrgen import UserError, compare, evaluate, figure, generate, load_recipe, open_split, verify
from fmrgen.config import InMemory
from fmrgen.files import sha256_of
from fmrgen.recipe import objects
from fmrgen.recipe.objects import oracle_section
from fmrgen.weights.identity import identity_of

DEMO = {"generator": "asset:mnist/vqgan", "oracle": "asset:mnist/clip", "budget": 3, "step_size": 0.03}
DIGITS = 12
IMAGE_AND_LABEL = Features({"image": Image(), "label": ClassLabel(names=list("0123456789"))})


@pytest.fixture(scope="module")
def digits():
    source = load_recipe("mnist-lenet", [f"source.limit={DIGITS}"]).source.build()
    loaded = list(source.load(0, DIGITS, 32))
    images = np.stack([example.image for example in loaded])
    return images, [example.label for example in loaded]


@pytest.fixture(scope="module")
def dataset(digits):
    images, labels = digits
    return Dataset.from_dict({"image": list(images), "label": labels}, features=IMAGE_AND_LABEL)


@pytest.fixture(scope="module")
def net():
    return SmallNet().train()


@pytest.fixture(scope="module")
def other():
    network = SmallNet()
    network.layers[2].weight.data += 0.1
    return network


@pytest.fixture(scope="module")
def made(dataset, net, tmp_path_factory):
    return generate(dataset, net, output=tmp_path_factory.mktemp("made"), progress=False, **DEMO)


def recorded(split):
    folder, _, name = split.rpartition(":")
    return json.loads(Path(folder, f"provenance/{name}.json").read_text())


@pytest.mark.slow
def test_the_rows_are_those_of_the_recipe_with_the_same_parts(digits, dataset, tmp_path):
    lenet = load_recipe("mnist-lenet").classifier.build()
    as_tensors = TensorDataset(torch.from_numpy(digits[0]).permute(0, 3, 1, 2), torch.tensor(digits[1]))
    recipe = load_recipe("mnist-lenet", [f"source.limit={DIGITS}", "perturb.min_probability=0"])
    of_recipe = generate(recipe, output=tmp_path / "recipe", progress=False, budget=3)
    of_dataset = generate(dataset, lenet, output=tmp_path / "dataset", progress=False, **DEMO)
    names = list("0123456789")
    of_tensors = generate(as_tensors, lenet, output=tmp_path / "tensors", progress=False, class_names=names, **DEMO)
    assert of_recipe == f"{tmp_path / 'recipe'}:mnist/lenet"
    expected = of_recipe.load()
    assert len(expected) == DIGITS
    for split in (of_dataset, of_tensors):
        rows = split.load()
        assert rows["image"][3].tobytes() == expected["image"][3].tobytes()
        for column in ("id", "label", "iterations", "valid", "prediction", "clip_score", "loss"):
            assert list(rows[column]) == list(expected[column]), column
        assert split.summary == of_recipe.summary


@pytest.mark.slow
def test_a_torch_module_may_be_the_oracle(dataset, net, tmp_path):
    lenet = load_recipe("mnist-lenet").classifier.build()
    split = generate(dataset, net, output=tmp_path / "out", progress=False, **{**DEMO, "oracle": lenet})
    section = {"kind": "classifier", "classifier": "asset:mnist/lenet"}
    of_section = generate(dataset, net, output=tmp_path / "same", progress=False, **{**DEMO, "oracle": section})
    assert split.summary == of_section.summary
    told = recorded(split)["recipe"]["oracle"]
    assert (told["kind"], told["classifier"]["kind"]) == ("classifier", "in_memory")
    assert verify(split, classifier=net, oracle=lenet).true_rows == DIGITS
    with pytest.raises(UserError, match="the oracle has other weights than when the split was generated"):
        verify(split, classifier=net, oracle=net)
    by_name = oracle_section("outside_components:SmallNet").build()
    assert isinstance(by_name.classifier.network, SmallNet)


def test_what_was_an_object_is_known_by_its_class_and_weights(made):
    told = recorded(made)
    weights = told["weights_sha256"]["classifier"]
    assert told["recipe"]["classifier"] == {
        "kind": "in_memory",
        "target": "outside_components:SmallNet",
        "weights_sha256": weights,
        "state": identity_of(SmallNet()).state,
    }
    assert told["recipe"]["source"]["examples"] == DIGITS
    assert told["code_sha256"] == {"outside_components": sha256_of(SUPPORT / "outside_components.py")}
    card = Path(made.partition(":")[0], "README.md").read_text()
    assert f"| classifier | in-memory outside\\_components:SmallNet, weights sha256 `{weights[:16]}…` |" in card
    assert "| source code | outside\\_components, sha256 `" in card
    assert "12 images of in-memory datasets" in card.replace("\\-", "-")


def test_everything_that_takes_a_split_takes_it(made, net, other):
    evaluation = evaluate(made, {"mine": net}, progress=False)
    assert evaluation.results[0].conditioned
    assert evaluation.results[0].total.fmr == made.summary.fmr
    assert verify(made, classifier=net).true_rows == DIGITS
    with pytest.raises(UserError, match="the classifier has other weights than when the split was generated"):
        verify(made, classifier=other)
    with pytest.raises(UserError, match="SmallNet was an object in the memory"):
        verify(made)
    result = fmrgen("verify", f"{made}")
    assert result.returncode == 2
    assert "hand it over in Python, as in fmrgen.verify(split, classifier=network)" in result.stderr
    assert "Traceback" not in result.stderr
    lines = str(made).splitlines()
    assert repr(made) == str(made)  # a notebook's last line, and print
    assert lines[0] == f"{made}: {DIGITS} rows, {made.summary.valid_rows} valid"
    assert any(line.split() == ["FMR", f"{made.summary.fmr.value:.2f}", "%", "(too", "few", "rows)"] for line in lines)
    value, interval = str(made.summary.standard_accuracy).split(" ", 1)
    assert any(line.split() == ["SA", value, "%", *interval.split()] for line in lines)
    assert f"{value} % {interval}" in made._repr_html_()
    assert repr(open_split(made)) == (f"<Split {made}: {DIGITS} rows, columns {', '.join(open_split(made).features)}>")


def test_it_goes_on_with_the_same_objects_alone(made, dataset, net, other, monkeypatch, notes):
    out = Path(made.partition(":")[0])
    shard = next((out / "default").glob("*.parquet"))
    before = shard.stat().st_mtime_ns
    monkeypatch.setattr(InMemory, "code", {"outside_components": "0" * 64})
    again = generate(dataset, net, output=out, progress=False, **DEMO)
    assert shard.stat().st_mtime_ns == before
    assert (again, again.summary) == (made, made.summary)
    assert any("was generated by other code in outside_components; its figures are of that" in n for n in notes)
    retrained = r"its classifier had other weights \(each training .*: load those .*\); choose another output= or s"
    with pytest.raises(UserError, match=retrained):
        generate(dataset, other, output=out, progress=False, **DEMO)
    with pytest.raises(UserError, match=r"source\.sample_sha256"):
        generate(dataset.select([1, 0, *range(2, DIGITS)]), net, output=out, progress=False, **DEMO)


@pytest.mark.slow
def test_the_same_weights_with_another_attribute_are_another_network(dataset, tmp_path):
    """Neither are the figures of the one returned for the other, nor are rows of both in one split.

    What a network keeps while it answers is no change: a count of calls, features that a hook keeps.
    """
    net, features = SmallNet(), {}
    net.calls = 0

    def keep(module, inputs, output):
        module.calls += 1
        features["last"] = output

    def make(network, **parts):
        generate(dataset, network, output=tmp_path / "-".join(["out", *parts]), progress=False, **(DEMO | parts))

    net.register_forward_hook(keep)
    make(net)
    next(tmp_path.glob("out/default/*.parquet")).unlink()
    for _ in range(2):
        make(net)
    net.flips = True
    other = r"its classifier had different attributes or code \(such as a setting, .*\); choose another output="
    with pytest.raises(UserError, match=other):
        make(net)
    make(SmallNet(), oracle=NotTooBright())
    with pytest.raises(UserError, match="its oracle had different attributes"):
        make(SmallNet(), oracle=NotTooBright(0.5))


def test_who_cannot_be_recognised_is_gone_on_with_by_this_process_alone(dataset, tmp_path, monkeypatch, notes):
    net = SmallNet()
    net.numbers = (number for number in range(3))
    for _ in range(2):
        generate(dataset, net, output=tmp_path / "out", progress=False, **DEMO)
    assert sum("classifier: can't be hashed (cannot pickle 'generator' object)" in note for note in notes) == 2
    monkeypatch.setattr(objects, "_PROCESS", "another")
    with pytest.raises(UserError, match="its classifier had different attributes"):
        generate(dataset, net, output=tmp_path / "out", progress=False, **DEMO)


def test_a_recipe_with_a_network_of_ones_own(net, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fmrgen"), "handlers", [])  # those of a command that a test before this ran
    recipe = load_recipe("mnist-lenet", [f"source.limit={DIGITS}"])
    made = generate(recipe, net, output=tmp_path / "out", budget=2, split="mine")
    told = recorded(made)["recipe"]
    assert [told[section]["kind"] for section in ("classifier", "generator")] == ["in_memory", "vqgan"]
    assert told["perturb"]["budget"] == 2
    assert told["description"].startswith("12 images of mnist")
    shown = capfd.readouterr().err
    assert f"mnist/mine: {DIGITS} of {DIGITS}" in shown
    assert "Loading weights" not in shown
    generate(recipe, net, output=tmp_path / "out", budget=2, split="mine", progress=False)
    with pytest.raises(UserError, match="image_size: only applies to a generator"):
        generate(recipe, net, output=tmp_path / "kept", image_size=64)
    kept = generate(recipe, net, output=tmp_path / "kept", budget=2, progress=False)
    assert kept == f"{tmp_path / 'kept'}:mnist/lenet"  # as the recipe calls it
    assert made.summary.rows == DIGITS
    assert f"{DIGITS} of" not in capfd.readouterr().err


class Strange:
    def __len__(self):
        return 3

    def __getitem__(self, place):
        return "no pair"


class Augmented(Strange):
    def __getitem__(self, place):
        return torch.rand(3, 32, 32), place


class Growing(SmallNet):
    """It gives more logits from its twelfth batch on, after all proofs."""

    calls = 0

    def forward(self, images):
        self.calls += 1
        logits = super().forward(images)
        return torch.cat([logits, logits + 9], 1) if self.calls > 11 else logits


def dark(*shape):
    return np.zeros(shape, np.uint8)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("generator", None, "source: a dataset needs .*; there is no generator: pass it, or let fmrgen.init.* choose"),
        ("oracle", 3, r"oracle: must be a fmrgen.Oracle or a torch module \(an instance\), a section or a name; it is"),
        ("bugdet", 3, r"unknown option bugdet, did you mean budget\?"),
        ("split", "a b", "generate: split: 'a b' can't be a name here; use letters, digits and _ ., a letter first"),
        ("classifier", Growing(), "classifier: returns 20 logits for an image, and there are 10 labels"),
        ("source", Strange(), r"item 0 of the Strange is not \(image, label\), the label a number: ValueError"),
        ("source", 3, r"int is not a dataset; give one with len\(\) and items \(image, label\)"),
        ("source", {"train": 1, "test": 2}, "holds several splits, train, test; give one of them"),
        ("source", IterableDataset.from_generator(iter), "is a stream; give a datasets.Dataset, or name it in a reci"),
        ("source", [(-torch.ones(3, 9, 9), 0)], r"the image of item 0 has values from -1 to -1; give images in \[0, 1"),
        ("source", [(torch.zeros(5, 9, 9), 0)], r"image of item 0 is uint8 of shape \[9, 9, 5\]; give a PIL image, a"),
        ("source", [(dark(32, 32), 1.7)], "the label of item 0 is 1.7; give classes as numbers"),
        ("source", [(dark(0, 0, 3), 0)], r"the image of item 0 has no pixels \(shape \[0, 0, 3\]\); leave it out"),
        ("source", [(dark(32, 32), 0), (dark(3, 99), 1)], r"image of id 1 is unreadable \(it has 99×3 pixels; each s"),
        ("source", Augmented(), "gives other images when it is read again; turn off what is random in it"),
    ],
)
def test_mistakes_are_one_line(dataset, net, tmp_path, option, value, message):
    given = {"source": dataset, "classifier": net, **DEMO, option: value}
    prefix = "source: .*" if option == "source" else ""
    with pytest.raises(UserError, match=prefix + message) as caught:
        generate(given.pop("source"), output=tmp_path / "out", **given)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_networks_are_compared_on_a_dataset(dataset, tmp_path):
    net, other = HalfTrained(), Dim()
    given = {"generator": DEMO["generator"], "oracle": DEMO["oracle"], "budget": 1, "step_size": 0.03, "config": "mine"}
    evaluation = compare(dataset, {"a": net, "b": other}, tmp_path / "out", progress=False, **given)
    assert {place.split for place in evaluation.own.ranking} == {f"{tmp_path / 'out'}:mine/{name}" for name in "ab"}
    assert [[result.conditioned for result in row] for row in evaluation.matrix] == [[True, False], [False, True]]
    alone = generate(dataset, net, output=tmp_path / "out", split="a", progress=False, **given)
    assert alone.summary.fmr == evaluation.matrix[0][0].total.fmr  # what compare made is what generate makes
    with pytest.raises(UserError, match="output: name the dataset folder of the split"):
        generate("mnist-lenet")


def test_a_dataset_that_is_no_split_is_told_so(digits, dataset, net):
    no_split = r"split.*is not a split; give a reference, or a datasets\.Dataset .*generate"
    for given in (Strange(), list(zip(*digits, strict=True))):
        with pytest.raises(UserError, match=no_split):
            evaluate(given, {"net": net}, progress=False)
    assert evaluate(dataset, {"net": net}, progress=False).results[0].total.perturbed_accuracy


def test_images_of_any_common_form_are_the_same(digits):
    from fmrgen.sources.in_memory import Config

    images, labels = digits
    channels_first = torch.from_numpy(images).permute(0, 3, 1, 2)
    forms = [
        TensorDataset(channels_first, torch.tensor(labels)),
        TensorDataset(channels_first.float() / 255, torch.tensor(labels)),
        TensorDataset(channels_first[:, :1].float() / 255, torch.tensor(labels)),  # digits are grey
        list(zip(images, labels, strict=True)),
        list(zip(images[..., 0], map(np.int64, labels), strict=True)),
        list(zip(images, map(float, labels), strict=True)),
        list(zip(images, torch.tensor(labels)[:, None], strict=True)),
    ]
    loaded = [[example.image.tobytes() for example in Config.of(form).build().load(0, DIGITS, 32)] for form in forms]
    assert loaded == [[image.tobytes() for image in images]] * len(forms)


@pytest.mark.slow
def test_labels_that_nobody_names_are_the_networks_outputs(digits, net, other, tmp_path):
    images, labels = digits
    few = [place for place, label in enumerate(labels) if label < 9][:4]
    tensors = TensorDataset(torch.from_numpy(images[few]).permute(0, 3, 1, 2), torch.tensor([labels[i] for i in few]))
    split = generate(tensors, net, output=tmp_path, progress=False, **DEMO)
    assert recorded(split)["labels"] == [str(digit) for digit in range(10)]
    evaluation = evaluate(split, [net, other], progress=False)
    assert [result.classifier for result in evaluation.results] == ["classifier 1", "classifier 2"]
    with pytest.raises(UserError, match="figure models"):
        figure(evaluation, "models")


@pytest.mark.parametrize("wrong", [lambda logits: (logits,), lambda logits: logits.argmax(1)])
def test_what_is_no_batch_of_logits_is_told_with_its_shape(dataset, tmp_path, wrong):
    class Wrong(torch.nn.Module):
        def forward(self, images):
            return wrong(images.flatten(1)[:, :10])

    with pytest.raises(UserError, match=r"must return logits of shape \[B, K\], one image gave (a tuple|\(1,\))"):
        generate(dataset, Wrong(), generator="transform", oracle="asset:mnist/clip", output=tmp_path / "out")
