"""What broke, beside what was fixed: named where they differ, and only there."""

from types import SimpleNamespace

import numpy as np
import torch

from fmrgen.apps.release.diff import _traits
from fmrgen.apps.release.traits import measures_of, traits_of


def images(count, seed):
    """Blobs of random place and brightness on a dark ground."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    middle = 12 + 8 * torch.rand(2, count, 1, 1, generator=generator)
    level = 0.5 + 0.4 * torch.rand(count, 1, 1, generator=generator)
    blobs = level * torch.exp(-((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / 40) + 0.05
    noise = 0.03 * torch.rand(count, 32, 32, generator=generator)
    return (blobs + noise).clamp(0, 1)[:, None].expand(-1, 3, -1, -1)


def test_what_broke_is_named_beside_what_was_fixed():
    traits = traits_of(measures_of(images(40, 1) * 0.5), measures_of(images(12, 2)))
    assert {"darker images", "lower contrast"} <= {trait.words for trait in traits}
    first = traits[0]
    assert first.share > 85
    assert first.p_value < 0.01
    assert first.line.startswith(f"beside what was fixed, what broke are {first.words}: in ")
    assert "one of 40 and one of 12" in first.line


def test_images_of_one_kind_have_no_trait():
    """Over forty pairs of sets at most a few are named: 5 % by chance, for all attributes together."""
    named = [
        bool(traits_of(measures_of(images(25, 1000 + number)), measures_of(images(10, 2000 + number))))
        for number in range(40)
    ]
    assert sum(named) <= 6


def test_of_few_images_nothing_is_said():
    assert traits_of(measures_of(images(40, 1) * 0.3), measures_of(images(7, 2))) == []
    assert traits_of(np.array([]), measures_of(images(12, 2))) == []


def test_a_class_that_is_worse_has_a_name_and_is_left_out():
    dark, others, fixed = measures_of(images(30, 1) * 0.5), measures_of(images(30, 2)), measures_of(images(12, 3))
    broke = [*[("night", measures) for measures in dark], *[("day", measures) for measures in others]]
    flipped = {"broke": broke, "fixed": [("day", measures) for measures in fixed]}
    worse = SimpleNamespace(name="night", is_worse=True)
    assert _traits(flipped, SimpleNamespace(classes=[worse])) == []
    assert _traits(flipped, SimpleNamespace(classes=[])) != []
