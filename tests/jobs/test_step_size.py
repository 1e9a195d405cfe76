"""`perturb.step_size=auto`: the step that a job finds, and what is recorded of it."""

import json

import pytest
from commands import run

from fmrgen import PerturbOptions
from fmrgen.errors import UserError
from fmrgen.jobs.step_size import Trial, Wanted, search

JOB = ["generate", "mnist-lenet", "--limit", "12", "perturb.budget=20", "output.shard_size=4", "-q"]


@pytest.mark.slow
def test_the_step_is_found_recorded_and_kept(tmp_path, capsys):
    out = tmp_path / "out"
    assert run(*JOB, "perturb.step_size=auto", "-o", out) == 0
    notes = capsys.readouterr().err
    assert "step size 0.0" in notes
    recorded = json.loads((out / "provenance/mnist/lenet.json").read_text())["recipe"]["perturb"]["step_size"]
    assert f"perturb.step_size=auto: takes {recorded:g}" in notes
    assert 0.005 < recorded < 0.1
    shard = next(out.glob("mnist/*-00001-*"))
    before = shard.read_bytes()
    shard.unlink()
    assert run(*JOB, "perturb.step_size=auto", "-o", out) == 0
    assert "step size" not in capsys.readouterr().err  # the split's own is taken
    assert shard.read_bytes() == before
    assert run(*JOB, f"perturb.step_size={recorded}", "-o", tmp_path / "told") == 0
    assert next((tmp_path / "told").glob("mnist/*-00001-*")).read_bytes() == before


def test_it_is_of_jobs_alone():
    options = PerturbOptions(step_size="auto")
    with pytest.raises(UserError, match="auto is found by `fmrgen generate`; give a number here"):
        _ = options.step
    assert PerturbOptions(step_size="auto", attacks="standard").attacks[0].step == 1
    with pytest.raises(ValueError, match="step_size must be a number or auto"):
        PerturbOptions(step_size="long")


@pytest.mark.parametrize(
    ("steps_at", "tried"),
    [
        (lambda step: 1 / step, []),  # 10 to 40 steps from 0.025 to 0.1
        (lambda step: 0.1 / step, [0.0316, 0.00999]),
        (lambda step: 5 / step, [0.316]),
        (lambda step: 50.0, [0.316, 0.999]),  # up to where no step can be tried
    ],
)
def test_a_search_goes_up_and_down_until_a_step_is_good(steps_at, tried):
    def trial_of(step):
        return None if step > 1 else Trial(step, 1.0, steps_at(step))

    assert [trial.step_size for trial in search(trial_of(0.1), Wanted(50, 0.9), trial_of)] == tried
