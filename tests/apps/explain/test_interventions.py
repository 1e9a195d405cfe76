"""Hypotheses tried: what is planted is confirmed, what is not there is not, and the control is as large as the change."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fmrgen.apps.explain.attributes import ATTRIBUTES, Contrast, PositionAcross, PositionUp, Sharpness, Thickness
from fmrgen.apps.explain.interventions import DOSES, ERROR, confirmed, fewest_errors, otherwise, p_of_more, try_out
from fmrgen.apps.explain.rows import DrawnRows
from fmrgen.engine.images import on_byte_grid
from fmrgen.recipe.build import build_source
from fmrgen.recipe.job import load_recipe

COUNT = 80


@pytest.fixture(scope="module")
def digits():
    source = build_source(load_recipe("mnist-lenet", [f"source.limit={COUNT}"]).source)
    examples = list(source.load_all(32))
    return torch.stack([example.image for example in examples]), np.array([example.label for example in examples])


@dataclass(frozen=True)
class Rows(DrawnRows):
    """Of a classifier that errs where `is_wrong(changed images, originals)`, and an oracle that `sees` likewise."""

    is_wrong: Callable
    sees: Callable

    def predictions(self, images):
        return np.where(self.is_wrong(images, self.originals).numpy(), (self.labels + 1) % 10, self.labels)

    def accepts(self, images):
        return self.sees(images, self.originals)


def originals(digits, is_wrong, sees=lambda images, before: np.ones(len(images), dtype=bool)):
    images, labels = digits
    return Rows(images, images, {"id": np.arange(len(labels)), "label": labels}, None, None, is_wrong, sees)


def tried(rows, attributes=ATTRIBUTES):
    return [trial for attribute in attributes for trial in try_out(rows, attribute)]


PLANTED = {
    "thinner strokes": (Thickness(), lambda change: change < -0.3),
    "lower contrast": (Contrast(), lambda change: change < -0.3),
    "blurred images": (Sharpness(), lambda change: change < -0.2),
    "shapes further right": (PositionAcross(), lambda change: change > 0.15),
    "shapes moved up or down": (PositionUp(), lambda change: change.abs() > 0.15),
}


@pytest.mark.parametrize(
    "words", [pytest.param(words, marks=[] if words == "lower contrast" else pytest.mark.slow) for words in PLANTED]
)
def test_what_is_planted_is_found_first(digits, words):
    attribute, is_wrong = PLANTED[words]
    of = originals(digits, lambda images, before: is_wrong(attribute.measure(images) - attribute.measure(before)))
    found = confirmed(tried(of))
    assert found[0].words == words, [(one.words, one.p_value) for one in found]
    moved = found[0].moved["along"]
    assert (moved.last != digits[1]).mean() > 0.5
    assert moved.by_dose[0][2] <= moved.by_dose[-1][2]


@pytest.mark.slow
def test_errors_of_chance_prove_nothing(digits):
    """A classifier that any change makes err by chance, whatever it is."""

    def by_chance(images, before):
        return torch.tensor([zlib.crc32(image.numpy().tobytes()) % 10 < 3 for image in images])

    assert confirmed(tried(originals(digits, by_chance))) == []


def test_an_image_is_moved_no_further_than_the_oracle_sees_it(digits):
    def sees(changed, before):
        return (changed - before).flatten(1).norm(dim=1).numpy() < 8

    seen = []

    def is_wrong(changed, before):
        seen.extend((changed - before).flatten(1).norm(dim=1).tolist())
        return torch.zeros(len(changed), dtype=torch.bool)

    trials = try_out(originals(digits, is_wrong, sees), PositionAcross())
    assert 0 < max(seen) < 8
    doses = trials[0].moved["along"].doses
    assert 0 < doses.mean() < len(DOSES)
    assert (trials[0].moved["along"].last == digits[1]).all()


def test_the_control_is_as_large_a_change_and_another_one():
    images = torch.full((3, 3, 32, 32), 0.5)
    changed = images + 0.05 * torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    control = otherwise(images, changed, [4, 5, 6])
    assert torch.equal(control[1:2], otherwise(images[1:2], changed[1:2], [5]))
    one, other = (changed - images).flatten(1), (control - images).flatten(1)
    torch.testing.assert_close(other.norm(dim=1), one.norm(dim=1), rtol=0.05, atol=0)
    waves = [torch.fft.rfft2(image - images).abs()[..., 0, 0] for image in (changed, control)]
    torch.testing.assert_close(waves[0], waves[1], rtol=0.05, atol=0.05)
    centred = [these - these.mean(1, keepdim=True) for these in (one, other)]
    alike = (centred[0] * centred[1]).sum(1) / (centred[0].norm(dim=1) * centred[1].norm(dim=1))
    assert alike.abs().max() < 0.3


def test_the_control_of_what_is_of_waves_has_the_waves_of_the_image(digits):
    """Else it would be sharper too, and nothing could be confirmed of sharpness."""
    images = 0.2 + 0.6 * digits[0][:20]
    changed = on_byte_grid(Sharpness().change(images, 1.0))
    controls = [otherwise(images, changed, range(20), own_waves=own) for own in (False, True)]
    fine = [ATTRIBUTES[-1].measure(these).mean() - ATTRIBUTES[-1].measure(images).mean() for these in controls]
    assert fine[1] < 0.5 * fine[0]


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda one: one.name)
def test_a_control_on_black_is_as_large_too(attribute, digits):
    """Half of what is added to a black ground is below it, and lost."""
    images = digits[0][:20]
    for amount in (-1.0, 0.5):
        changed = on_byte_grid(attribute.change(images, amount))
        long, control = (
            (these - images).flatten(1).norm(dim=1)
            for these in (changed, otherwise(images, changed, range(20), own_waves=attribute.is_of_waves))
        )
        torch.testing.assert_close(control[long > 0.5], long[long > 0.5], rtol=0.05, atol=0)
        assert (control[long == 0] == 0).all()


def test_names_are_seldom_wrong():
    """Simulated: of many hypotheses, errors either way are as likely in most."""
    draws = np.random.default_rng(0)
    false, named = 0, 0
    for _ in range(300):
        trials = []
        for number in range(20):
            rate = 0.4 if number < 4 else 0.1
            p_value = max(p_of_more(draws.random(100) < rate, draws.random(100) < 0.1) for _ in range(2))
            trials.append(type("Tried", (), {"p_value": p_value, "is_true": number < 4})())
        kept = confirmed(trials)
        named += len(kept)
        false += not all(one.is_true for one in kept)
    assert named > 300 * 3.5
    assert false <= ERROR * 300 + 8


def test_the_fewest_errors_that_prove_something():
    few = fewest_errors(200, 33)
    wrong, none = np.arange(200) < few, np.zeros(200, dtype=bool)
    assert p_of_more(wrong, none) <= ERROR / 33 < p_of_more(np.arange(200) < few - 1, none)
    assert p_of_more(none, none) == 1
    assert fewest_errors(5, 33) is None
    assert on_byte_grid(torch.tensor([0.5])).item() * 255 == pytest.approx(128)
