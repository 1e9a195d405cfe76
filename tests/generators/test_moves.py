"""Random moves: pinned draws, exact originals, and amounts that mean what their units say."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fmrgen import UserError, load_recipe
from fmrgen.engine.interfaces import Latents
from fmrgen.generators.moves import KINDS, Config, Moves, _moved, move_of

SIDE = 64


def blob(row=32, column=32, radius=6):
    """Returns a bright disc on dark, [1, 3, 64, 64]."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    distance = ((rows - row) ** 2 + (columns - column) ** 2).sqrt()
    return (distance < radius).float().expand(1, 3, SIDE, SIDE).clone()


def centre(image):
    """Returns the centre of mass of an image [1, 3, H, W] as shares of its side: across, down."""
    weights = image[0, 0]
    places = (torch.arange(SIDE) + 0.5) / SIDE
    total = weights.sum()
    return float((weights.sum(0) * places).sum() / total), float((weights.sum(1) * places).sum() / total)


def moved(kind, image, amount, x=0.0, y=0.0):
    return _moved(kind, image, *(torch.tensor([value], dtype=torch.float32) for value in (amount, x, y))).clamp(0, 1)


def test_the_draws_of_protocol_1_never_change():
    drawn = [move_of(seed, family) for family in ("geometric", "photometric", "occluding") for seed in (0, 1)]
    assert [(move.kind, round(move.amount, 6), round(move.x, 6), round(move.y, 6)) for move in drawn] == [
        ("turn", -28.180808, 0.001016, 0.086935),
        ("shift", 0.070914, 0.184003, 0.473359),
        ("brightness", -0.281808, 0.001016, 0.086935),
        ("gamma", -0.290861, 0.184003, 0.473359),
        ("patch", 0.059096, 0.001016, 0.086935),
        ("stripe", 0.088642, 0.184003, 0.473359),
    ]


def test_kinds_are_drawn_evenly_and_amounts_over_their_whole_range():
    for family in ("geometric", "photometric", "occluding"):
        drawn = [move_of(seed, family) for seed in range(3000)]
        counts = Counter(move.kind for move in drawn)
        names = [name for name, kind in KINDS.items() if kind.family == family]
        assert sorted(counts) == sorted(names)
        assert min(counts.values()) > 0.85 * 3000 / len(names)
        for name in names:
            shares = np.array([move.amount for move in drawn if move.kind == name]) / KINDS[name].most
            low = -1 if KINDS[name].has_sign else 0
            assert low <= shares.min() < low + 0.02
            assert 0.98 < shares.max() <= 1
            assert shares.mean() == pytest.approx((low + 1) / 2, abs=0.08)


def test_latents_of_zero_are_the_original_and_of_one_step_the_move():
    images = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for family in ("geometric", "photometric", "occluding"):
        generator = Moves(32, family)
        generator.row_seeds = range(40)
        free, fixed = generator.encode(images, torch.zeros(40))
        assert torch.equal(generator.decode(Latents(free, fixed)), images)
        ahead, behind = (generator.decode(Latents(free + step, fixed)) for step in (1, -1))
        assert torch.equal(ahead, behind)
        for row in range(40):
            move = move_of(row, family)
            alone = moved(move.kind, images[row : row + 1], move.amount, move.x, move.y)
            assert torch.allclose(ahead[row], alone[0], atol=1e-6)
        assert ((ahead - images).flatten(1).abs().amax(1) > 0.01).float().mean() > 0.9


def test_amounts_mean_what_their_units_say():
    angles = []
    for image in (blob(column=48), moved("turn", blob(column=48), 30)):
        across, down = centre(image)
        angles.append(math.degrees(math.atan2(down - 0.5, across - 0.5)))
        assert math.hypot(down - 0.5, across - 0.5) == pytest.approx(0.25, abs=0.02)
    assert abs(angles[1] - angles[0]) == pytest.approx(30, abs=1)

    larger = moved("zoom", blob(), math.log(1.5))
    assert float(larger.sum() / blob().sum()) == pytest.approx(1.5**2, rel=0.06)

    shifted = moved("shift", blob(), 0.2, x=0.25)
    assert centre(shifted)[0] - centre(blob())[0] == pytest.approx(0, abs=0.01)
    assert centre(shifted)[1] - centre(blob())[1] == pytest.approx(0.2, abs=0.01)

    slanted = moved("slant", blob(row=48), 0.5)
    assert abs(centre(slanted)[0] - 0.5) == pytest.approx(0.125, abs=0.02)

    grey = torch.full((1, 3, 8, 8), 0.4)
    assert moved("brightness", grey, 0.3).mean() == pytest.approx(0.7)
    assert moved("contrast", grey, math.log(2)).mean() == pytest.approx(0.3)
    assert moved("gamma", grey, math.log(2)).mean() == pytest.approx(0.16)

    covered = moved("patch", torch.zeros(1, 3, 100, 100), 0.4, x=1, y=0)[0, 0] == 0.5
    assert covered.sum() == 1600
    assert covered[:40, 60:].all()
    assert (moved("stripe", torch.zeros(1, 3, 100, 100), 0.25, x=0)[0, 0] == 0.5).sum() == 2500


def test_a_recipe_that_would_not_move_images_once_is_refused():
    for change, words in (
        ("perturb.update=sign", "generator moves takes one random step: set perturb.update to random"),
        ("perturb.budget=2", "set perturb.budget to 1"),
        ("perturb.keep=first", "leave out perturb.keep"),
        ("perturb.start=fgsm", "leave out perturb.start"),
    ):
        with pytest.raises(UserError, match=words):
            load_recipe("mnist-moves", [change])
    with pytest.raises(UserError, match="source.copies is for generator moves"):
        load_recipe("mnist-lenet", ["source.copies=3"])
    with pytest.raises(ValidationError):
        Config(protocol=2)
