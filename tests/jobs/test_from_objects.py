"""`fmrgen.generate` of datasets and models in memory, as one types it in a notebook."""

import json
import logging

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


@pytest.fixture
def net():
    return SmallNet().train()


@pytest.fixture
def other():
    network = SmallNet()
    network.layers[2].weight.data += 0.1
    return network


@pytest.fixture
def made(dataset, net, tmp_path):
    return generate(dataset, net, output=tmp_path / "out", progress=False, **DEMO)


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
    told = json.loads((tmp_path / "out/provenance/default/smallnet.json").read_text())["recipe"]["oracle"]
    assert (told["kind"], told["classifier"]["kind"]) == ("classifier", "in_memory")
    assert verify(split, classifier=net, oracle=lenet).true_rows == DIGITS
    with pytest.raises(UserError, match="the oracle has other weights than when the split was generated"):
        verify(split, classifier=net, oracle=net)
    by_name = oracle_section("outside_components:SmallNet").build()
    assert isinstance(by_name.classifier.network, SmallNet)


def test_what_was_an_object_is_known_by_its_class_and_weights(made, net, tmp_path):
    told = json.loads((tmp_path / "out/provenance/default/smallnet.json").read_text())
    weights = told["weights_sha256"]["classifier"]
    assert told["recipe"]["classifier"] == {
        "kind": "in_memory",
        "target": "outside_components:SmallNet",
        "weights_sha256": weights,
        "state": identity_of(net).state,
    }
    assert told["recipe"]["source"]["examples"] == DIGITS
    assert told["code_sha256"] == {"outside_components": sha256_of(SUPPORT / "outside_components.py")}
    card = (tmp_path / "out/README.md").read_text()
    assert f"| classifier | in-memory outside\\_components:SmallNet, weights sha256 `{weights[:16]}…` |" in card
    assert "| source code | outside\\_components, sha256 `" in card
    assert "12 images of in\\-memory datasets" in card or "12 images of in-memory datasets" in card


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


def test_it_goes_on_with_the_same_objects_alone(made, dataset, net, other, tmp_path, monkeypatch, notes):
    out = tmp_path / "out"
    shard = next((out / "default").glob("*.parquet"))
    before = shard.stat().st_mtime_ns
    monkeypatch.setattr(InMemory, "code", {"outside_components": "0" * 64})
    again = generate(dataset, net, output=out, progress=False, **DEMO)
    assert shard.stat().st_mtime_ns == before
    assert (again, again.summary) == (made, made.summary)
    assert any("was generated by other code in outside_components; its figures are of that" in n for n in notes)
    retrained = (
        r"its classifier had other weights \(each training .*: load those .*\); choose another output= or split="
    )
    with pytest.raises(UserError, match=retrained):
        generate(dataset, other, output=out, progress=False, **DEMO)
    with pytest.raises(UserError, match=r"source\.sample_sha256"):
        generate(dataset.select([1, 0, *range(2, DIGITS)]), net, output=out, progress=False, **DEMO)


@pytest.mark.slow
@pytest.mark.parametrize("is_whole", [True, False])
def test_the_same_weights_with_another_attribute_are_another_network(dataset, tmp_path, is_whole):
    """Neither are the figures of the one returned for the other, nor are rows of both in one split."""
    net = SmallNet()
    generate(dataset, net, output=tmp_path, progress=False, **DEMO)
    if not is_whole:
        next((tmp_path / "default").glob("*.parquet")).unlink()
    generate(dataset, net, output=tmp_path, progress=False, **DEMO)
    net.flips = True
    other = r"its classifier had different attributes or code \(such as a setting, .*\); choose another output="
    with pytest.raises(UserError, match=other):
        generate(dataset, net, output=tmp_path, progress=False, **DEMO)
    generate(dataset, SmallNet(), output=tmp_path / "out", progress=False, **{**DEMO, "oracle": NotTooBright()})
    with pytest.raises(UserError, match="its oracle had different attributes"):
        generate(dataset, SmallNet(), output=tmp_path / "out", progress=False, **{**DEMO, "oracle": NotTooBright(0.5)})


@pytest.mark.slow
def test_what_a_network_keeps_while_it_answers_is_no_change(dataset, tmp_path):
    """A count of calls, features that a hook keeps: the next cell of a notebook goes on with the same network."""
    net, features = SmallNet(), {}
    net.calls = 0

    def keep(module, inputs, output):
        module.calls += 1
        features["last"] = output

    net.register_forward_hook(keep)
    generate(dataset, net, output=tmp_path, progress=False, **DEMO)
    next((tmp_path / "default").glob("*.parquet")).unlink()
    for _ in range(2):
        generate(dataset, net, output=tmp_path, progress=False, **DEMO)
    net.flips = True
    with pytest.raises(UserError, match="its classifier had different attributes or code"):
        generate(dataset, net, output=tmp_path, progress=False, **DEMO)


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
    told = json.loads((tmp_path / "out/provenance/mnist/mine.json").read_text())["recipe"]
    assert (told["classifier"]["kind"], told["generator"]["kind"], told["perturb"]["budget"]) == (
        "in_memory",
        "vqgan",
        2,
    )
    assert told["description"].startswith("12 images of mnist")
    shown = capfd.readouterr().err
    assert f"mnist/mine: {DIGITS} of {DIGITS}" in shown
    assert "Loading weights" not in shown
    generate(recipe, net, output=tmp_path / "out", budget=2, split="mine", progress=False)
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"generator": None},
            "a dataset needs a classifier, a generator and an oracle; there is no generator: pass it, or let fmrgen.init(dataset, classifier)",
        ),
        ({"oracle": 3}, "oracle: must be a fmrgen.Oracle or a torch module (an instance), a section or a name; it is"),
        ({"bugdet": 3}, "unknown option bugdet, did you mean budget?"),
        ({"split": "a b"}, "generate: split: 'a b' can't be a name here; use letters, digits and _ ., a letter first"),
        ({"source": Strange()}, "source: item 0 of the Strange is not (image, label), the label a number: ValueError"),
        ({"source": 3}, "source: int is not a dataset; give one with len() and items (image, label)"),
        ({"source": {"train": 1, "test": 2}}, "source: holds several splits, train, test; give one of them"),
        (
            {"source": IterableDataset.from_generator(iter)},
            "IterableDataset is a stream; give a datasets.Dataset, or name it in a recipe",
        ),
        (
            {"source": TensorDataset(torch.full((4, 3, 32, 32), -1.0), torch.arange(4))},
            "source: the image of item 0 has values from -1 to -1; give images in [0, 1], before any normalisation",
        ),
        (
            {"source": TensorDataset(torch.zeros(4, 5, 32, 32), torch.arange(4))},
            "source: the image of item 0 is uint8 of shape [32, 32, 5]; give a PIL image, a tensor [3, H, W]",
        ),
        (
            {"source": [(np.zeros((32, 32), np.uint8), 1.7)]},
            "source: the label of item 0 is 1.7; give classes as numbers",
        ),
        (
            {"source": [(np.zeros((0, 0, 3), np.uint8), 0)]},
            "source: the image of item 0 has no pixels (shape [0, 0, 3]); leave it out",
        ),
        (
            {"source": [(np.zeros((32, 32, 3), np.uint8), 0), (np.zeros((3, 5000, 3), np.uint8), 1)]},
            "source: image of id 1 is unreadable (it has 5000×3 pixels; each side needs 4 or more); repair it, or set",
        ),
        ({"source": Augmented()}, "source: gives other images when it is read again; turn off what is random in it"),
        ({"classifier": Growing()}, "classifier: returns 20 logits for an image, and there are 10 labels"),
        ({"source": "mnist-lenet", "generator": None, "image_size": 64}, "image_size: only applies to a generator"),
    ],
)
def test_mistakes_are_one_line(dataset, net, tmp_path, change, message):
    given = {"source": dataset, "classifier": net, **DEMO, **change}
    with pytest.raises(UserError) as caught:
        generate(given.pop("source"), output=tmp_path / "out", **given)
    assert message in str(caught.value)
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
    with pytest.raises(UserError, match="source: a dataset needs .*; there is no generator"):
        compare(dataset, {"a": net, "b": other}, tmp_path / "new")
    for few in ([net, other], {"a": net}):
        with pytest.raises(UserError, match="classifiers: a comparison needs at least two, by their names: {'a': net"):
            compare(dataset, few, tmp_path / "new", **given)


def test_a_dataset_that_is_no_split_is_told_so(digits, dataset, net):
    for given in (Strange(), list(zip(*digits, strict=True))):
        with pytest.raises(
            UserError, match=r"split.*is not a split; give a reference, or a datasets\.Dataset .*generate"
        ):
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
    told = json.loads((tmp_path / "provenance/default/smallnet.json").read_text())
    assert told["labels"] == [str(digit) for digit in range(10)]
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
