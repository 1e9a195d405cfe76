"""Rows are kept only under the network that they are of, also where its identity can't show that it is another one."""

import functools
import os
import weakref
from pathlib import Path

import pytest
import torch.nn.functional as F
from commands import fmrgen
from torch import nn

from fmrgen import UserError, generate, load_recipe
from fmrgen.recipe.job import parse_classifier

SMALL = ["source.limit=24", "output.shard_size=8", "perturb.budget=2"]
REFUSED = "the classifier is not the one of the existing rows: its loss on the image of id"


class Config:
    by = 0


ROLL = Config()  # which a network holds weakly


class Lenet(nn.Module):
    """The shipped LeNet; what its forward finds in `places` rolls its classes."""

    def __init__(self, *places):
        super().__init__()
        self.lenet = parse_classifier("asset:mnist/lenet")[1].build()
        self.places = list(places)

    def forward(self, images):
        logits = F.hardtanh(self.lenet(images), -1e3, 1e3)
        for place in self.places:
            logits = place(logits)
        return logits


class RollsInTraining(nn.Module):
    def forward(self, logits):
        return logits.roll(int(self.training), 1)


class Weak:
    def __init__(self):
        self.roll = weakref.ref(ROLL)

    def __call__(self, logits):
        return logits.roll(self.roll().by, 1)


def by_environment(logits):
    return logits.roll(int(os.environ.get("ROLL", "0")), 1)


def by_file(logits):
    return logits.roll(int(Path("roll").read_text()), 1)


def wrapped(by):
    return functools.wraps(F.relu)(lambda logits: logits.roll(by, 1))


CHANGES = {
    "environment": (by_environment, lambda network: os.environ.update(ROLL="1")),
    "file": (by_file, lambda network: Path("roll").write_text("1")),
    "wraps": (wrapped(0), lambda network: network.places.__setitem__(0, wrapped(1))),
    "weak reference": (Weak(), lambda network: setattr(ROLL, "by", 1)),
    "library": (None, lambda network: setattr(F, "hardtanh", lambda logits, *_: logits.roll(1, 1))),
    "part in a list": (RollsInTraining(), lambda network: network.places[0].train()),
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROLL", "0")
    monkeypatch.setattr(ROLL, "by", 0)
    monkeypatch.setattr(F, "hardtanh", F.hardtanh)
    (tmp_path / "roll").write_text("0")
    return tmp_path


@pytest.mark.parametrize(
    "is_finished", [pytest.param(True, marks=pytest.mark.slow), False], ids=["finished", "one shard lost"]
)
@pytest.mark.parametrize("change", CHANGES)
def test_another_network_that_looks_the_same_is_refused(place, change, is_finished):
    part, alter = CHANGES[change]
    network = Lenet(*([] if part is None else [part.eval() if isinstance(part, nn.Module) else part]))
    recipe = load_recipe("mnist-lenet", SMALL)
    options = {"output": place / "out", "split": "net", "progress": False}
    generate(recipe, network, **options)
    generate(recipe, network, **options)  # the same network goes on
    if not is_finished:
        sorted((place / "out/mnist").glob("*.parquet"))[1].unlink()
    alter(network)
    with pytest.raises(UserError, match=rf"{REFUSED}|classifier"):
        generate(recipe, network, **options)


MODULE = """
import json
from importlib import import_module
from pathlib import Path

from torch import nn

from fmrgen.recipe.job import parse_classifier


class Net(nn.Module):
    def __init__(self, head=None):
        super().__init__()
        self.lenet = parse_classifier("asset:mnist/lenet")[1].build()
        self.head = head

    def forward(self, images):
        by = import_module(self.head).BY if self.head else json.loads(Path("roll.json").read_text())
        return self.lenet(images).roll(by, 1)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "is_finished"),
    [(None, True), ("head", False)],
    ids=["a file, finished", "imported by name, one shard lost"],
)
def test_another_network_of_the_command_is_refused(place, head, is_finished):
    (place / "mine.py").write_text(MODULE)
    (place / "roll.json").write_text("0")
    (place / "head.py").write_text("BY = 0\n")
    section = "classifier={kind: module, target: 'mine:Net'" + (", args: {head: head}}" if head else "}")
    command = ("generate", "mnist-lenet", section, *SMALL, "--output", "out", "-q")
    for _ in range(2):
        done = fmrgen(*command, cwd=place, fresh=True, PYTHONPATH=str(place))
        assert done.returncode == 0, done.stderr
    if not is_finished:
        sorted((place / "out/mnist").glob("*.parquet"))[1].unlink()
    (place / "roll.json").write_text("1")
    (place / "head.py").write_text("BY = 1\n")
    done = fmrgen(*command, cwd=place, fresh=True, PYTHONPATH=str(place))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert REFUSED in done.stderr or "other code" in done.stderr
