"""A pilot proposes a step that uses the budget, says what the parts are worth, and what to change."""

from dataclasses import replace

import pytest
import torch
from commands import run

from fmrgen.apps.pilot.inspect import _step_warnings, inspect
from fmrgen.jobs.step_size import Trial, Wanted
from fmrgen.recipe.job import load_recipe

WHOLE = 100_000  # seconds: nothing is left out, however busy the machine is
TRANSFORM = "generator={kind: transform, image_size: 32}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "towards"),
    [
        pytest.param(["perturb.step_size=.002"], 1, id="too short", marks=pytest.mark.nightly),
        pytest.param([TRANSFORM, "perturb.step_size=3"], -1, id="too long"),
    ],
)
def test_a_step_that_does_not_suit_the_generator_is_replaced(changes, towards):
    tried = []
    recipe = load_recipe("mnist-lenet", ["perturb.budget=25", *changes])
    found = inspect(recipe, images=10, on_trial=tried.append, seconds=WHOLE)
    own, proposed = found.own, found.proposed
    assert own.step_size == recipe.perturb.step_size
    assert (proposed.step_size > own.step_size) == (towards > 0)
    assert 5 <= proposed.mean_iterations <= 20
    assert proposed.valid >= 0.9
    assert found.trials == sorted(tried, key=lambda trial: trial.step_size)
    assert any(f"perturb.step_size={proposed.step_size:g}" in warning for warning in found.warnings)
    assert found.seconds_of_job > found.seconds_per_pass > 0


@pytest.mark.slow
def test_the_demo_is_found_to_be_in_order(capsys):
    found = inspect(load_recipe("mnist-lenet"), images=12, seconds=WHOLE)
    assert found.proposed == found.own
    assert found.trials == [found.own]
    assert found.warnings == []
    assert found.psnr > 25
    assert found.classifier_accuracy > 0.9
    assert (found.latent_size, found.images) == (256, 12)
    assert run("inspect", "mnist-lenet", TRANSFORM, "--images", 4, "--seconds", WHOLE, "perturb.budget=3") == 0
    told = capsys.readouterr().out
    assert "7 dimensions" in told
    assert "the whole job" in told


@pytest.mark.nightly
def test_it_ends_in_time_and_says_what_it_left_out(capsys):
    passes = []
    recipe = load_recipe("mnist-lenet", ["perturb.step_size=.001", "perturb.budget=40"])
    found = inspect(recipe, images=32, seconds=3, on_passes=lambda done, most: passes.append((done, most)))
    assert found.left_out[0] == "the random control"
    assert found.left_out[-1] == "other step sizes"
    assert 4 <= found.images < 32
    assert found.trials == [found.own]
    assert all(done <= most for done, most in passes)
    assert any("try perturb.step_size=0.00316, or a larger seconds=" in warning for warning in found.warnings)
    assert run("inspect", "mnist-lenet", "perturb.budget=40", "--images", 32, "--seconds", 3) == 0
    assert "left out, to end in time: the random control" in capsys.readouterr().out


def test_a_step_that_leaves_nothing_to_rank_is_told():
    wanted = Wanted(50, 0.9)
    fooled = Trial(0.1, valid=1.0, mean_iterations=20.0, by_budget=0.0, stuck=0.0, perturbed_accuracy=0.0)
    (warning,) = _step_warnings(fooled, fooled, wanted)
    assert warning == (
        "with perturb.step_size=0.1 PA is 0%, and nothing can be ranked there; try perturb.step_size=0.0316"
    )
    assert _step_warnings(replace(fooled, perturbed_accuracy=0.1), fooled, wanted) == [warning]
    assert _step_warnings(fooled, replace(fooled, perturbed_accuracy=0.1), wanted) == []


def test_a_generator_size_that_costs_accuracy_is_told():
    """Both take 32 px; brought to 8 px and back, digits are blurred."""
    small = ["generator={kind: transform, image_size: 8}", "perturb.budget=1"]
    found = inspect(load_recipe("mnist-lenet", small), images=60, seconds=WHOLE)
    assert found.classifier_native > 0.9 > found.classifier_accuracy
    assert found.oracle_native > 0.9 > found.oracle_accuracy
    told = [warning for warning in found.warnings if "of the source's own pixels" in warning]
    assert [warning.partition(" is right")[0] for warning in told] == ["the classifier", "the oracle"]
    assert all("at the generator's size: SA is too low by that" in warning for warning in told)


@pytest.mark.nightly
def test_a_pilot_of_a_sure_classifier_finds_a_way_too():
    """Logits times 100 are the same predictions, but the cross-entropy's gradient would be zero and nothing move."""
    plain = load_recipe("mnist-lenet", ["perturb.budget=8", "perturb.step_size=.1"])
    target = "{kind: module, target: 'test_inspect:hot_lenet', size: 32}"
    hot = load_recipe("mnist-lenet", ["perturb.budget=8", "perturb.step_size=.1", f"classifier={target}"])
    one, other = inspect(plain, images=10, seconds=WHOLE).own, inspect(hot, images=10, seconds=WHOLE).own
    assert other.stuck == 0
    assert max(one.perturbed_accuracy, other.perturbed_accuracy) < 0.9


def hot_lenet():
    inner = load_recipe("mnist-lenet").classifier.build()

    class Hot(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, images):
            return 100 * self.inner(images)

    return Hot()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("masked_networks:decoy", "another"),
        pytest.param("masked_networks:reversed_gradient", "another", marks=pytest.mark.nightly),
        pytest.param("masked_networks:SureThenMasked", "another", marks=pytest.mark.nightly),
        (None, None),
    ],
)
def test_a_gradient_that_is_not_its_own_is_told(target, told):
    """By finite differences also where it is its own as long as the network is sure, which the first steps can't see."""
    changes = [] if target is None else [f"classifier={{kind: module, target: '{target}'}}"]
    found = inspect(load_recipe("mnist-lenet", ["perturb.budget=12", *changes]), images=8, seconds=WHOLE)
    lines = [line for line in found.warnings if "another gradient than its own" in line]
    assert bool(lines) == (told is not None), found.warnings
    if target is None:
        assert all(0.8 < slope < 1.1 for slope in found.slopes)
        assert found.guided.first_steps_up.value == 100
        assert found.guided.guided_less_random.value < 0
    if target == "masked_networks:SureThenMasked":
        assert found.slopes[0] > 0.8
        assert abs(found.slopes[1]) < 0.2


@pytest.mark.nightly
@pytest.mark.parametrize(("target", "is_masked"), [(None, False), ("masked_networks:random_gradient", True)])
def test_a_search_without_gradients_beats_only_one_that_lies(target, is_masked, capsys):
    changes = [] if target is None else [f"classifier={{kind: module, target: '{target}'}}"]
    recipe = load_recipe("_mnist", [*changes, "perturb.queries=20", "perturb.budget=25"])
    found = inspect(recipe, images=32, masking=True, seconds=WHOLE)
    about_search = [line for line in found.warnings if "a search without gradients fools" in line]
    assert len(about_search) == is_masked, found
    assert found.searched.beats_the_gradient == is_masked
    assert found.searched.rows > 11
    assert 100 < found.searched.queries < 527
    assert (found.searched.guided_less_searched.value > 0) == is_masked


def test_a_search_beside_what_follows_no_gradient_is_refused(capsys):
    assert run("inspect", "mnist-lenet", "--masking", "--images", 2, "perturb.update=nes") == 2
    assert "perturb.update is nes, which follows no gradient: leave out --masking" in capsys.readouterr().err


def test_the_slope_of_a_line_is_what_its_gradient_says():
    from torch import nn

    from fmrgen.engine.objectives import margin
    from fmrgen.engine.slope import slope_along_gradient

    torch.manual_seed(0)
    images, labels = torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    line = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    assert slope_along_gradient(line, margin, images, labels) == pytest.approx(1, abs=0.05)

    class Flat(nn.Module):
        def forward(self, x):
            return line(x).detach() + 0 * x.sum()

    assert slope_along_gradient(Flat(), margin, images, labels) is None
