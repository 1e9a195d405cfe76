"""Attributes: what is changed is what is measured, and images stay images."""

import pytest
import torch

from fmrgen import UserError
from fmrgen.apps.explain.attributes import ATTRIBUTES, Attribute, Contrast, load_attribute
from fmrgen.recipe.build import build_source
from fmrgen.recipe.job import load_recipe


@pytest.fixture(scope="module")
def digits():
    source = build_source(load_recipe("mnist-lenet", ["source.limit=40"]).source)
    return torch.stack([example.image for example in source.load_all(32)])


def tinted(images, colour):
    return images * torch.tensor(colour).view(1, 3, 1, 1)


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda one: one.name)
@pytest.mark.parametrize("look", ["digits", "on white", "in colours"])
def test_more_is_more_and_less_is_less(attribute, look, digits):
    grounds = {"digits": 0.8 * digits + 0.1, "on white": 0.9 - 0.8 * digits, "in colours": 0.1 + 0.6 * digits}
    images = tinted(grounds[look], (1.0, 0.6, 0.4)) if look == "in colours" else grounds[look]
    if attribute.name == "corner":
        images = images.clone()
        images[:, :, -3:, -3:] = 1 - images[:, :, :1, :1]  # a mark that can be taken away
    if attribute.name == "colour" and look != "in colours":
        assert torch.allclose(attribute.change(images, 0.5), images, atol=1e-3)
        return
    amounts = (-1.0, -0.5, 0.0, 0.5, 1.0)
    changed = [attribute.change(images, amount) for amount in amounts]
    measured = [attribute.measure(these).mean().item() for these in changed]
    if attribute.name == "corner":  # one mark more is not more than one
        assert measured[0] < measured[1] < measured[2]
    else:
        assert measured[0] <= measured[1] < measured[2] < measured[3]
        assert measured[4] > measured[2]  # what is at its end already stays there
    torch.testing.assert_close(changed[2], images, atol=1e-3, rtol=0)
    for these in changed:
        assert these.shape == images.shape
        assert these.min() >= 0
        assert these.max() <= 1
    alone = torch.cat([attribute.change(one[None], 0.7) for one in images])
    torch.testing.assert_close(attribute.change(images, 0.7), alone)


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda one: one.name)
def test_empty_images_do_no_harm(attribute):
    assert attribute.measure(torch.zeros(0, 3, 32, 32)).shape == (0,)
    for level in (0.0, 0.5, 1.0):
        images = torch.full((2, 3, 32, 32), level)
        assert attribute.measure(images).isfinite().all()
        for amount in (-1.0, 1.0):
            assert attribute.change(images, amount).isfinite().all()


class Own(Attribute):
    name, more, less, other = "red", "redder images", "less red ones", "another red"

    def measure(self, images):
        return images[:, 0].mean((1, 2))

    def change(self, images, amount):
        return torch.cat([(images[:, :1] + amount).clamp(0, 1), images[:, 1:]], 1)


def test_one_of_ones_own():
    assert isinstance(load_attribute(f"{__name__}:Own"), Own)
    assert isinstance(load_attribute("fmrgen.apps.explain.attributes:Contrast"), Contrast)
    with pytest.raises(UserError, match=r"torch.nn:Flatten: is no attribute; derive it from fmrgen.Attribute"):
        load_attribute("torch.nn:Flatten")
