"""Images changed at random by an attribute, in a pipeline and in `fmrgen train`."""

import pytest
import torch
from torchvision.transforms import v2

from fmrgen import RandomChange, UserError
from fmrgen.apps.explain.attributes import ATTRIBUTES, Brightness, PositionUp
from fmrgen.apps.explain.interventions import AMOUNTS
from fmrgen.apps.training.augment import augment
from fmrgen.apps.training.recipe import AugmentConfig, load_train_recipe


def shapes(rows=64, width=6):
    """A bluish block in the middle of each; wide ones are aslant in half of them."""
    images = torch.zeros(rows, 3, 32, 32)
    images[:, :, 8:24, 13 : 13 + width] = 0.7
    images[:, 0] *= 0.6
    if width > 2:
        images[::2, :, 8:12, 15:21] = 0.5
    return images


def measured_change(attribute, before, after):
    return (attribute.measure(after) - attribute.measure(before)).mean().item()


@pytest.mark.parametrize("sign", AMOUNTS)
@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: attribute.name)
def test_images_are_changed_the_way_that_was_found(attribute, sign):
    torch.manual_seed(0)
    change = RandomChange(attribute.name, *AMOUNTS[sign])
    images = shapes(width=2 if attribute.name == "thickness" else 6)
    changed = change(images)
    assert changed.shape == images.shape
    assert 0 <= changed.min() <= changed.max() <= 1
    if attribute.name != "corner":  # there is nothing to empty
        assert 0 < (changed == images).flatten(1).all(1).sum() < 40  # of 64 a fifth
    assert measured_change(attribute, images, changed) * sign >= 0


def test_a_change_is_seeded_and_takes_one_image_too():
    change = RandomChange("size", share=1)
    torch.manual_seed(3)
    first = change(shapes())
    torch.manual_seed(3)
    assert torch.equal(first, change(shapes()))
    assert change(shapes()[0]).shape == (3, 32, 32)
    assert torch.equal(RandomChange("size", share=0)(shapes()), shapes())
    assert repr(change) == "RandomChange('size', least=-1, most=1, share=1)"
    pipeline = v2.Compose([v2.ToDtype(torch.float32, scale=True), RandomChange("contrast"), v2.Normalize([0.5], [0.5])])
    assert pipeline(torch.zeros(3, 32, 32, dtype=torch.uint8)).shape == (3, 32, 32)
    assert RandomChange(Brightness(), 0, 1).attribute.name == "brightness"
    for arguments, fault in (
        (["hue"], "attribute 'hue'"),
        (["size", 0.5, -0.5], "size: amounts go from -1 to 1, the least first, not 0.5 to -0.5"),
        (["size", -2], "not -2 to 1"),
        (["size", 0, 1, 1.5], "the share of images to change is from 0 to 1, not 1.5"),
    ):
        with pytest.raises(UserError, match=fault):
            RandomChange(*arguments)


def test_training_takes_it():
    torch.manual_seed(0)
    config = AugmentConfig(change={"position up": (0, 1)})
    images = shapes()
    changed, _ = augment(images, torch.zeros(64, dtype=torch.long), config, None, 10)
    assert measured_change(PositionUp(), images, changed) > 0.05
    recipe = load_train_recipe("train/mnist-lenet", ['augment.change={"size": [-1, 0], "contrast": [0, 1]}'])
    assert recipe.augment.change == {"size": (-1, 0), "contrast": (0, 1)}
    with pytest.raises(UserError, match="augment: change: unknown attribute 'siz'"):
        load_train_recipe("train/mnist-lenet", ['augment.change={"siz": [-1, 0]}'])
