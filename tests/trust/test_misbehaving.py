"""Models that write where they should not, look at their neighbours, roll dice, remember, fail late, or give up."""

import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from commands import refused, run
from fakes import STEP, Brightness, Identity, Patient, grey
from photos import RECIPE, photo
from places import SUPPORT
from small_models import perturb
from torch import nn
from torch.nn import functional as F

from fmrgen import evaluate
from fmrgen.config import ClassifierConfig, ComponentConfig
from fmrgen.engine.interfaces import Judgement, Oracle
from fmrgen.errors import UserError
from fmrgen.generators.transform import Transform
from fmrgen.recipe.job import parse_classifier
from fmrgen.weights.checkpoint import freeze


class Net(nn.Module):
    """A small network over two classes; `misbehave` is what it does to images or logits beside."""

    def __init__(self, misbehave, sides=2, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.inner = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8, track_running_stats=misbehave != "no running statistics")
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, sides))
        self.misbehave, self.calls = misbehave, 0

    def forward(self, images):
        self.calls += 1
        what = self.misbehave
        if what == "in place":
            images.sub_(0.5).div_(0.5)
        if what == "in place without autograd":
            images.data.mul_(0.5)
        if what == "mean over the batch":
            images = images - images.mean(0)
        if what == "trains":
            self.train()
        if what == "fails late" and self.calls > 9:
            raise RuntimeError("out of ideas")
        if what == "exits" and self.calls > 9:
            sys.exit(0)
        logits = self.head(self.norm(self.inner(images)))
        if what == "tires" and self.calls > 12:
            logits = logits.flip(1)
        if what == "dropout":
            logits = F.dropout(logits, 0.5)
        if what == "remembers":
            logits = logits * self.calls
        if what == "first row for all":
            logits = logits[:1].expand(len(images), -1)
        if what == "fewer rows" and len(images) > 4:
            logits = logits[1:]
        if what == "drifts":
            self.inner.bias.data += 1e-4
        if what == "nan after a look" and self.calls > 6:
            logits = logits * torch.nan
        return logits.bfloat16() if what == "bfloat16" else logits


class Classifier(ClassifierConfig):
    kind: str = "test_misbehaving:Classifier"
    misbehave: str = ""

    def build(self, device="cpu"):
        return freeze(Net(self.misbehave), device)


class Judge(Oracle):
    def __init__(self, misbehave):
        self.network = freeze(Net(misbehave, seed=1), "cpu")

    def judge(self, images, originals=None):
        with torch.no_grad():
            probabilities = self.network(images).softmax(1)
        return Judgement(probabilities, probabilities)


class OracleConfig(ComponentConfig):
    kind: str = "test_misbehaving:OracleConfig"
    misbehave: str = ""

    def build(self, device="cpu"):
        return Judge(self.misbehave)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(SUPPORT)
    for name, color in (("a", "red"), ("b", "blue")):
        for number in range(12):
            photo(tmp_path / "photos" / name / f"{number}.png", color=color)
    torch.manual_seed(0)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path


def classifier(misbehave=""):
    return f"classifier={{kind: 'test_misbehaving:Classifier', misbehave: '{misbehave}'}}"


def oracle(misbehave=""):
    return f"oracle={{kind: 'test_misbehaving:OracleConfig', misbehave: '{misbehave}'}}"


def sections(who, misbehave):
    return [classifier(misbehave if who == "classifier" else ""), oracle(misbehave if who == "oracle" else "")]


JOB = ["generate", "r.yaml", "perturb.slots=8", "-o", "out", "-q"]


@pytest.mark.parametrize("misbehave", ["in place", pytest.param("in place without autograd", marks=pytest.mark.slow)])
@pytest.mark.parametrize("who", ["classifier", "oracle"])
def test_who_writes_into_the_images_changes_nothing_that_is_stored(place, capsys, who, misbehave):
    assert run(*JOB, *sections(who, misbehave)) == 0, capsys.readouterr().err
    table = pq.read_table("out/c/s-00000-of-00001.parquet", columns=["original", "label"])
    from fmrgen.image_files import open_rgb

    for original, label in zip(table["original"].to_pylist(), table["label"].to_pylist(), strict=True):
        assert (np.asarray(open_rgb(original["bytes"])) == ([255, 0, 0], [0, 0, 255])[label]).all()
    assert run("verify", "out", "--trust", "-q") == 0


@pytest.mark.slow
def test_in_memory_the_originals_stay_and_other_classifiers_get_them_whole(finished_split):
    class InPlace(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, images):
            return self.inner(images.mul_(0.1))

    lenet = parse_classifier("asset:mnist/lenet")[1].build()
    alone = evaluate([str(finished_split)], {"good": lenet}).results[0]
    beside = evaluate([str(finished_split)], {"bad": InPlace(lenet), "good": lenet}).results[1]
    assert beside.total == alone.total

    examples = list(grey(0.2, 0.3, 0.4))
    rows = {row.id: row for row in perturb(examples, InPlace(Brightness()), Identity(), Patient(1), budget=2, step_size=STEP)}  # fmt: skip
    for example in examples:
        assert torch.equal(rows[example.id].original, (example.image * 255).round().to(torch.uint8))


COMPANY = "its output for an image depends on the others in the batch; batch norm needs running statistics and eval()"
CHANCE = "gives different outputs for the same images; disable whatever is random or keeps state (eval()"
REFUSED = {
    "no running statistics": COMPANY,
    "mean over the batch": COMPANY,
    "first row for all": COMPANY,
    "trains": COMPANY,
    "dropout": CHANCE,
    "remembers": CHANCE,
}


@pytest.mark.parametrize("misbehave", REFUSED)
@pytest.mark.parametrize("who", ["classifier", "oracle"])
def test_who_does_not_judge_each_image_by_itself_is_refused(place, capsys, who, misbehave):
    assert run(*JOB, *sections(who, misbehave)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fmrgen: {who}: {REFUSED[misbehave]}"), error
    assert error.count("\n") == 1
    assert not list(place.rglob("*.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize("misbehave", REFUSED)
def test_an_evaluation_refuses_them_too(place, finished_split, misbehave):
    with pytest.raises(UserError) as error:
        evaluate([str(finished_split)], {"odd": Net(misbehave, 10)})
    assert f"classifier odd on {finished_split}:mnist/lenet: {REFUSED[misbehave]}" in str(error.value)


@pytest.mark.parametrize(
    ("misbehave", "told", "damaged"),
    [("drifts", "its weights changed during the run", 1),
     ("tires", "its predictions for the same images changed during the run", None)],
)  # fmt: skip
def test_who_changes_on_the_way_is_noticed_and_leaves_no_split(place, capsys, finished_split, misbehave, told, damaged):
    assert run(*JOB, classifier(misbehave), oracle()) == 2
    assert f"classifier: {told}" in capsys.readouterr().err
    assert not list(place.glob("out/c/s-*.parquet"))
    assert damaged in (None, len(list(place.glob("out/c/.s-*.damaged"))))
    with pytest.raises(UserError, match=f"classifier odd: {told}"):
        evaluate([str(finished_split)], {"odd": Net(misbehave, 10)})


@pytest.mark.parametrize(
    ("misbehave", "told"),
    [
        ("fails late", "classifier: fails on a batch of 8 images: RuntimeError: out of ideas"),
        ("exits", "classifier: fails on a batch of 8 images: SystemExit: 0"),
        ("fewer rows", "classifier: returns 7 rows of logits for 8 images"),
        ("nan after a look", "classifier: gives NaN for every one of 24 images; check its weights and its prep"),
    ],
)
def test_what_goes_wrong_late_is_one_line_of_the_right_part(place, capsys, misbehave, told):
    assert run(*JOB, classifier(misbehave), oracle()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fmrgen: {told}"), error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_half_precision_is_as_good_as_another(place, capsys):
    assert run(*JOB, classifier("bfloat16"), oracle("bfloat16")) == 0, capsys.readouterr().err
    assert run("verify", "out", "--trust", "-q") == 0, capsys.readouterr().err
    assert run("evaluate", "out", "-c", "{kind: 'test_misbehaving:Classifier', misbehave: bfloat16}", "-q") == 0


def test_a_generator_and_an_oracle_that_fail_late_are_named():
    class Late(Transform):
        def decode(self, latents):
            raise ValueError("no decoder")

    with pytest.raises(UserError, match="generator: fails on a batch of 2 images: ValueError: no decoder"):
        list(perturb(grey(0.2, 0.3), Brightness(), Late(16), Patient(1), budget=2, step_size=STEP, slots=2))

    class Short(Patient):
        def judge(self, images, originals=None):
            return Judgement(*(values[1:] for values in super().judge(images)[:2]))

    with pytest.raises(UserError, match="oracle: returns 1 judgements for 2 images"):
        list(perturb(grey(0.2, 0.3), Brightness(), Identity(), Short(1), budget=2, step_size=STEP, slots=2))


def test_code_that_leaves_is_no_success(place):
    (place / "leaver.py").write_text(
        "from fmrgen.sources.arrays import Arrays\n"
        "from fmrgen.sources.mnist import Config\n"
        "class Leaves(Arrays):\n"
        "    def read(self, start, stop):\n"
        "        yield from super().read(0, 2)\n"
        "        exit(0)\n"
        "class Leaver(Config):\n"
        "    kind: str = 'leaver:Leaver'\n"
        "    def build(self, device='cpu'):\n"
        "        source = super().build()\n"
        "        source.__class__ = Leaves\n"
        "        return source\n"
    )
    told = "third-party code ended the command, exit(0); run the same command again to continue"
    refused("generate", "mnist-lenet", "source={kind: 'leaver:Leaver', limit: 9}", "-q", told=told, cwd=place)
