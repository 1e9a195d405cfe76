"""The control of guided steps: as many steps of chance from the same encoding, in the same slots."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from fakes import COUNT, Brightness, Fixture, Identity, Patient, by_id, grey
from small_models import SIZE, perturb, tiny_vqgan

from fmrgen.engine.options import PerturbOptions
from fmrgen.generators.transform import Transform


@pytest.mark.parametrize("objective", ["margin", "cross_entropy"])
@pytest.mark.parametrize("generator", ["vqgan", "transform"])
def test_it_is_the_random_update_cut_off_and_changes_nothing_else(double, generator, objective):
    made, step_size = (tiny_vqgan(), 0.05) if generator == "vqgan" else (Transform(SIZE), 0.02)
    setting = Fixture(made, step_size)
    plain = setting.engine(objective=objective)
    random = setting.engine(objective=objective, update="random")
    shorter = 0
    for slots in (1, 3, 32):
        rows = setting.engine(slots=slots, objective=objective, controlled=range(0, COUNT, 2))
        assert rows.keys() == plain.keys()
        for i, row in rows.items():
            assert torch.equal(row.image, plain[i].image), (slots, i)
            for name in ("valid", "iterations", "stop_reason", "step_predictions", "prediction", "rejected_prediction"):
                assert getattr(row, name) == getattr(plain[i], name), (slots, i, name)
            assert row.step_objectives == pytest.approx(plain[i].step_objectives, abs=1e-9)
            assert not plain[i].control_predictions
            if i % 2 or not row.valid:
                assert row.control_predictions == row.control_objectives == []
                continue
            taken = min(row.iterations, random[i].iterations) + 1
            assert row.control_predictions == random[i].step_predictions[:taken]
            assert row.control_objectives == pytest.approx(random[i].step_objectives[:taken], abs=1e-9)
            shorter += taken <= row.iterations
    assert shorter  # the oracle ended some, not the number of steps


@pytest.mark.parametrize("slots", [1, 4])
def test_it_needs_no_gradient_and_no_more_passes_than_the_row(slots):
    """What has no gradient at an image that steps of chance lead to does not end them."""
    active = []
    classifier = Brightness(nan_gradient_above=0.55)
    images = [replace(example, controlled=True) for example in grey(0.2, 0.3, 0.5)]
    settings = {"budget": 6, "step_size": 1 / 32, "slots": slots, "on_pass": active.append}
    rows = by_id(perturb(images, classifier, Identity(), Patient(2), **settings))
    assert [rows[i].stop_reason for i in range(3)] == ["budget", "budget", "nonfinite"]
    assert [len(rows[i].control_predictions) for i in range(3)] == [7, 7, rows[2].iterations + 1]
    assert sum(active) <= 2 * sum(row.iterations + 1 for row in rows.values())


@pytest.mark.parametrize(
    ("options", "examples", "rows"),
    [
        ({}, 199, 0),
        ({}, 200, 16),
        ({}, 300, 24),
        ({}, 1000, 64),
        ({}, 50_000, 64),
        ({"control": 0}, 1000, 0),
        ({"control": 10}, 50, 10),
        ({"control": 100}, 50, 50),
        ({"update": "random"}, 1000, 0),
        ({"reencode": True}, 1000, 0),
    ],
)
def test_which_rows_are_chosen(options, examples, rows):
    settings = PerturbOptions(**options)
    chosen = [position for position in range(examples) if settings.is_controlled(position, examples)]
    assert len(chosen) == rows
    if rows > 1:
        apart = {later - earlier for earlier, later in pairwise(chosen)}
        assert max(apart) - min(apart) <= 1  # evenly


def test_half_precision_tells_of_the_control_too():
    setting = Fixture(tiny_vqgan(), 0.05)
    rows = setting.engine(COUNT // 2, controlled=range(COUNT), budget=4, slots=8, precision="bf16").values()
    assert any(row.control_predictions for row in rows)
    for row in rows:
        assert len(row.control_predictions) == len(row.control_objectives) <= row.iterations + 1
        if row.valid:  # what is measured again in full precision is so in all lists
            assert row.step_predictions[-1] == row.prediction
