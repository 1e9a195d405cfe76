"""What the identity of a component shows, and what it knowingly does not: stored rows that are queried again do."""

import importlib
import os
import random
import re
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from torch import nn

from fmrgen import UserError
from fmrgen.recipe.job import parse_classifier
from fmrgen.sources.in_memory import Config as SourceInMemory
from fmrgen.weights.digest import weights_sha256
from fmrgen.weights.identity import identity_of

# Every number in these files decides what the network answers.
FILES = {
    "lab_net.py": """
import numpy as np
import torch
from torch import nn
import lab_rules
from lab_layers import Gate, scaled

SHIFT = 0.25

class Net(nn.Module):
    temperature = 1.5

    def __init__(self, mean=0.5):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))
        self.prepare = lambda images: images - mean
        self.table = {"a": [1.0, (2.0, 3.0)]}
        self.spread = torch.full((3, 1, 1), 0.5)
        self.register_buffer("bias", torch.full((10,), 0.125), persistent=False)
        self.rows = np.linspace(0.0, 1.0, 10)
        self.gate = Gate(0.75)

    @staticmethod
    def warmed(logits, by=4.0):
        return logits * by

    def forward(self, images):
        from lab_late import late

        features = self.prepare(images) / self.spread + SHIFT
        logits = self.layers(self.gate(features)) / self.temperature + self.bias + torch.from_numpy(self.rows).float()
        return late(scaled(lab_rules.fix(self.warmed(logits), images))) + self.table["a"][1][0]
""",
    "lab_rules.py": """
from lab_constants import LIMITS

def fix(logits, images, below=0.1):
    thin = images.mean((1, 2, 3)) < below
    logits[thin] = logits[thin].roll(1, 1) + LIMITS["low"]
    return logits
""",
    "lab_layers.py": """
import functools
from torch import nn

def doubled(function):
    @functools.wraps(function)
    def call(values):
        return 2 * function(values)
    return call

@doubled
def scaled(values):
    return values * 0.5

class Base(nn.Module):
    floor = 0.0625
    def forward(self, values):
        return values.clamp(min=self.floor)

class Gate(Base):
    def __init__(self, level):
        super().__init__()
        self.level = level
    def forward(self, values):
        return super().forward(values) * self.level
""",
    "lab_late.py": "def late(logits):\n    return logits + 0.5\n",
    "lab_constants.py": "LIMITS = {'low': 8.0, 'high': [9.0]}\n",
}
MODULES = [name.removesuffix(".py") for name in FILES]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Writes the files, with changes, and returns a new network of theirs."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would be taken for that of a file of one size and second

    def network(**changed):
        for name, text in (FILES | changed).items():
            (tmp_path / name).write_text(text)
        importlib.invalidate_caches()
        for name in MODULES:
            sys.modules.pop(name, None)
        importlib.import_module("lab_late")
        return importlib.import_module("lab_net").Net()

    yield network
    for name in MODULES:
        sys.modules.pop(name, None)


def known(component):
    identity = identity_of(component)
    return identity.weights_sha256, identity.state, tuple(identity.code.items())


def another_number(text, generator):
    """The text with one of its numbers changed."""
    numbers = list(re.finditer(r"(?<![\w.])\d+\.\d+", text))
    chosen = generator.choice(numbers)
    return f"{text[: chosen.start()]}{float(chosen[0]) + generator.choice([1, 2, 5])}{text[chosen.end() :]}"


def set_in(module, name, value):
    setattr(sys.modules[module], name, value)


CHANGES = [
    lambda net, to: net.table["a"].append(to),
    lambda net, to: net.table.update(b=to),
    lambda net, to: net.spread.add_(to),
    lambda net, to: net.bias.add_(to),
    lambda net, to: np.add(net.rows, to, out=net.rows),
    lambda net, to: setattr(net, "prepare", lambda images: images - to),
    lambda net, to: setattr(net.gate, "level", to),
    lambda net, to: setattr(net.gate, "floor", to),
    lambda net, to: setattr(net.layers[0], "output_size", int(to)),
    lambda net, to: net.layers.append(nn.Softmax(1)),
    lambda net, to: net.register_forward_hook(lambda module, inputs, output: output * to),
    lambda net, to: setattr(net, "forward", partial(net.layers.forward, to)),
    lambda net, to: net.layers[2].weight.data[0].add_(to),
    lambda net, to: net.half() if to > 1 else net.double(),
    lambda net, to: net.train().gate.register_buffer("extra", torch.tensor(to)),
]
# What modules and classes hold that were changed after they were imported: `tests/jobs/test_kept_rows.py`.
UNSEEN = [
    lambda net, to: setattr(type(net), "temperature", to),
    lambda net, to: set_in("lab_net", "SHIFT", to),
    lambda net, to: set_in("lab_rules", "LIMITS", {"low": to}),
    lambda net, to: set_in("lab_rules", "fix", lambda logits, images: logits + to),
    lambda net, to: set_in("lab_late", "late", lambda logits: logits + to),
]


@pytest.mark.slow
def test_each_of_a_hundred_changes_is_seen(lab):
    generator = random.Random(0)
    before = known(lab())
    assert known(lab()) == before
    missed = []
    for number in range(100):
        if number % 2:
            name = generator.choice(list(FILES))
            text = another_number(FILES[name], generator)
            changed = known(lab(**{name: text}))
        else:
            net = lab()
            CHANGES[number // 2 % len(CHANGES)](net, generator.choice([0.3, 1.7, 2.5]))
            changed = known(net)
        if changed == before:
            missed.append(number)
    assert not missed
    assert known(lab()) == before
    for change in UNSEEN:
        net = lab()
        change(net, 2.5)
        assert known(net) == before


@pytest.mark.slow
def test_it_is_the_same_in_another_process_and_after_a_batch(lab, tmp_path):
    net = lab()
    expected = known(net)
    with torch.no_grad():
        net.eval()(torch.rand(2, 3, 8, 8))
    net.requires_grad_(False)
    assert known(net) == expected
    code = "import lab_late, lab_net; from fmrgen.weights.identity import identity_of as i; n = i(lab_net.Net()); "
    code += "print(n.weights_sha256, n.state, *n.code.values())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "PYTHONHASHSEED": "1"}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    assert printed.decode().split() == [*expected[:2], *(digest for _, digest in expected[2])]


def test_what_cannot_be_hashed_is_named():
    net = nn.Linear(4, 4)
    net.numbers = (number for number in range(3))
    assert identity_of(net).state == ""
    assert "generator" in identity_of(net).unknown


def test_training_and_compilation_are_the_callers():
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    state = identity_of(net).state
    assert identity_of(net.eval()).state == state
    assert identity_of(net.train()).state == state
    assert net[1].training
    compiled = torch.compile(net)
    assert identity_of(compiled).state == identity_of(net).state != ""


def test_of_a_section_of_a_built_in_kind_weights_say_all():
    section = parse_classifier("asset:mnist/lenet")[1]
    net = section.build()
    net.log = threading.Lock()
    assert (identity_of(net, section).state, identity_of(net, section).unknown) == ("", None)


def test_a_scripted_network_is_its_code_and_constants():
    class Net(nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = by
            self.layer = nn.Linear(4, 4)

        def forward(self, images):
            return self.layer(images) * self.by

    def traced(by):
        torch.manual_seed(0)
        return torch.jit.trace(Net(by).eval(), torch.rand(2, 4))

    assert known(traced(2.0)) == known(traced(2.0))
    assert known(traced(2.0)) != known(traced(3.0))
    assert identity_of(traced(2.0)).unknown is None


def test_weights_without_values_are_an_error():
    with pytest.raises(UserError, match="meta device"):
        weights_sha256(nn.Linear(4, 4, device="meta"))


class Items:
    """A dataset of (image, label), as torchvision's are: `targets` are as they were before a transform."""

    def __init__(self, images, labels, target_transform=None):
        self.images, self.targets, self.target_transform = images, labels, target_transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, place):
        label = self.targets[place]
        return self.images[place], label if self.target_transform is None else self.target_transform(label)


@pytest.mark.parametrize("count", [100, 2500])
def test_a_changed_image_or_label_makes_another_dataset(count):
    """Of a large dataset that is not in memory an image in between may escape, and no label does."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, count).tolist()
    before = SourceInMemory.of(Items(images, labels)).sample_sha256
    for place in generator.choice(count, 25, replace=False):
        other = images.copy()
        other[place] = 255 - other[place]
        assert SourceInMemory.of(Items(other, labels)).sample_sha256 != before
        others = list(labels)
        others[place] = (labels[place] + 1) % 10
        assert SourceInMemory.of(Items(images, others)).sample_sha256 != before


def test_every_row_of_a_dataset_of_the_hubs_library_counts():
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    features = Features({"image": Image(), "label": ClassLabel(names=list("0123456789"))})

    def digest(images):
        rows = {"image": list(images), "label": [place % 10 for place in range(60)]}
        return SourceInMemory.of(Dataset.from_dict(rows, features=features)).sample_sha256

    before = digest(images)
    for place in (1, 17, 58):
        other = images.copy()
        other[place] = 255 - other[place]
        assert digest(other) != before


def test_labels_are_those_of_the_items():
    images = np.zeros((20, 4, 4, 3), np.uint8)
    raw = [place % 5 for place in range(20)]
    source = SourceInMemory.of(Items(images, raw, target_transform=lambda label: 4 - label)).build()
    assert [example.label for example in source.read(0, 20)] == [4 - label for label in raw]
    many = np.zeros((100, 4, 4, 3), np.uint8)  # of which one has another label than it is listed with
    some = Items(many, [0] * 100)
    some.__class__ = type("Some", (Items,), {"__getitem__": lambda self, place: (many[place], int(place == 7))})
    with pytest.raises(UserError, match="item 7 has the label 1, and the dataset's targets say 0"):
        SourceInMemory.of(some)
    data = Items(images, raw)
    data.__class__ = type("Shifted", (Items,), {"__getitem__": lambda self, i: (images[i], (raw[i] + 1) % 5)})
    assert [example.label for example in SourceInMemory.of(data).build().read(0, 20)] == [(n + 1) % 5 for n in raw]


def test_a_dataset_with_a_transform_is_refused():
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    rows = Dataset.from_dict({"image": [np.zeros((4, 4, 3), np.uint8)] * 2, "label": [0, 1]}, features=features)
    with pytest.raises(UserError, match=r"has a transform \(with_transform, set_transform\)"):
        SourceInMemory.of(rows.with_transform(lambda batch: batch))
