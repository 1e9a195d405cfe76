"""Random changes of training images: each does what its name says, to each image by itself, and 0 does nothing."""

import pytest
import torch

from fmrgen.apps.training.augment import augment
from fmrgen.apps.training.recipe import AugmentConfig


def changed(images, **changes):
    torch.manual_seed(0)
    result, _ = augment(images, torch.zeros(len(images), dtype=torch.long), AugmentConfig(**changes), None, 10)
    assert result.shape == images.shape
    assert 0 <= result.min() <= result.max() <= 1
    return result


def photo(rows=64):
    return 0.3 + 0.4 * torch.rand(rows, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_nothing_is_changed_by_default():
    assert torch.equal(changed(photo()), photo())


def test_colours_change_and_shapes_stay():
    images = photo()
    result = changed(images, colour=0.3)
    brightness = result.mean((1, 2, 3)) / images.mean((1, 2, 3))
    assert brightness.min() < 0.9
    assert brightness.max() > 1.1
    pairs = zip(images.mean(1).flatten(1), result.mean(1).flatten(1), strict=True)
    likeness = [torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in pairs]
    assert min(likeness) > 0.95
    weak = changed(images, colour=0.05)
    assert (weak - images).abs().mean() < (result - images).abs().mean() / 3


def test_a_square_is_hidden_in_each_image():
    images = photo()
    result = changed(images, cutout=0.5)
    hidden = (result != images).any(1)
    for rows in hidden.any(2), hidden.any(1):  # how far the square reaches down, and across
        lengths = rows.sum(1)
        assert lengths.max() == 16
        assert lengths.min() >= 1
    assert len({tuple(image.flatten().tolist()) for image in hidden}) > 30  # each has its own place
    for image, original, square in zip(result, images, hidden, strict=True):
        assert torch.allclose(image[:, square], original.mean((1, 2)).unsqueeze(1).expand(-1, int(square.sum())))


@pytest.mark.parametrize("change", [{"warp": 1.5}, {"blur": 2.0}])
def test_no_border_comes_in(change):
    assert changed(photo(), **change).min() > 0.25
