"""A change that makes NEW right again is named, unless it helps OLD as much."""

import numpy as np
import pytest
import torch
from torch import nn

from fmrgen.apps.explain.rows import JudgedImages
from fmrgen.apps.release.conditions import NoOracle
from fmrgen.apps.release.remedies import MISTAKES, remedies_of
from fmrgen.engine.options import PerturbOptions
from fmrgen.recipe.build import ClassifierAndOracle

COUNT = 40


class Channels(nn.Module):
    """Finds the brightest of some channels."""

    def __init__(self, *channels):
        super().__init__()
        self.channels = channels

    def forward(self, images):
        return images.mean((2, 3))[:, list(self.channels)]


class Halves(nn.Module):
    """Finds the brighter half of an image, the first of two in `dim`."""

    def __init__(self, dim, is_reversed=False):
        super().__init__()
        self.dim, self.is_reversed = dim, is_reversed

    def forward(self, images):
        halves = torch.stack([half.mean((1, 2, 3)) for half in images.chunk(2, self.dim)], 1)
        return halves.flip(1) if self.is_reversed else halves


def originals():
    """Images of two classes: red and bright at the upper left, or blue and bright at the lower right."""
    images = 0.2 + 0.1 * torch.rand(COUNT, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = np.arange(COUNT) % 2
    images[labels == 0, 0, :8, :8] += 0.5
    images[labels == 1, 2, 8:, 8:] += 0.5
    return images, labels


def rows(network):
    images, labels = originals()
    columns = {"id": np.arange(COUNT), "label": labels}
    return JudgedImages(images, images, columns, ClassifierAndOracle(network, NoOracle()), PerturbOptions())


@pytest.mark.parametrize(
    ("new", "old", "words"),
    [
        (Channels(2, 0), Channels(0, 2), "red and blue exchanged"),
        (Halves(3, is_reversed=True), Halves(3), "left and right exchanged"),
        (Halves(2, is_reversed=True), Halves(2), "top and bottom exchanged"),
    ],
)
def test_what_makes_all_right_again_comes_first(new, old, words):
    first = remedies_of(rows(new), old)[0]
    assert first.words == words
    assert (first.new_before, first.new_after, first.old_before, first.old_after) == (0, 100, 100, 0)
    assert first.p_value < 1e-6
    assert first.line.startswith(f"of 40 originals NEW has 100.0 % right with {words}, and 0.0 % as they are (OLD 0.0")


def test_equal_networks_have_no_remedy():
    assert remedies_of(rows(Channels(0, 2)), Channels(0, 2)) == []


def test_what_helps_both_alike_is_a_fault_of_the_images():
    assert remedies_of(rows(Channels(2, 0)), Channels(2, 0)) == []


def test_each_mistake_leaves_the_shape_and_the_range():
    images, _ = originals()
    for words, change in MISTAKES.items():
        changed = change(images)
        assert changed.shape == images.shape, words
        assert changed.min() >= 0, words
        assert changed.max() <= 1, words
