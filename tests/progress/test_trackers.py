"""Trackers that work and raise: the job goes on."""

import os
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import warm
from accelerate import tracking as of_accelerate
from commands import run
from notes import noted

from fmrgen.jobs.generate import make_split
from fmrgen.progress import trackers as own
from fmrgen.progress.log import JobLog, job_report
from fmrgen.recipe.job import load_recipe


@pytest.fixture
def recipe():
    return load_recipe("mnist-lenet", ["source.limit=12", "perturb.budget=4", "perturb.step_size=0.1"])


def make(recipe, folder, names, monkeypatch):
    """Makes a split under trackers; returns their folder and the notes on them."""
    monkeypatch.setattr("fmrgen.progress.bars._EVERY", 0.0)
    config = recipe.model_dump(mode="json")
    with noted() as notes, own.tracking(names, config, folder / "logs") as trackers:
        summary = make_split(recipe, folder / "out", on_progress=job_report("mnist/lenet", trackers=trackers))
    assert summary.rows == 12
    return folder / "logs", [note for note in notes if note.startswith("trackers")]


@pytest.fixture
def trackio(monkeypatch):
    """A trackio that keeps what it gets, and is its own run."""
    trackio = Mock()
    trackio.init.side_effect = lambda project: print("a line for people") or trackio
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setattr(of_accelerate, "_available_trackers", ["trackio", "tensorboard"])
    return trackio


def test_figures_arrive(recipe, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs, notes = make(recipe, tmp_path, ["tensorboard"], monkeypatch)
    assert notes == []
    (events,) = (logs / "fmrgen").glob("events.*")
    found = EventAccumulator(str(events))
    found.Reload()
    wanted = {"done", "validation_rate", "mean_iterations", "stuck_rows", "nonfinite_rows", "slots", "memory_gib"}
    assert wanted <= set(found.Tags()["scalars"])
    assert [event.value for event in found.Scalars("done")][-1] == 12


@pytest.mark.parametrize(
    ("call", "error", "trouble"),
    [
        ("init", RuntimeError("no server"), "no server"),
        ("log", ValueError("not a number"), "not a number"),
        ("log", SystemExit(3), "3"),
    ],
)
def test_a_tracker_that_fails_is_noted_once_and_stops_no_other(
    trackio, recipe, tmp_path, monkeypatch, call, error, trouble
):
    getattr(trackio, call).side_effect = error
    logs, notes = make(recipe, tmp_path, ["trackio", "tensorboard"], monkeypatch)
    assert notes == [f"trackers trackio: {trouble}; the job goes on without it"]
    assert list((logs / "fmrgen").glob("events.*"))


def test_a_tracker_gets_everything_and_is_ended(trackio, recipe, tmp_path, monkeypatch, capsys):
    assert make(recipe, tmp_path, ["trackio"], monkeypatch)[1] == []
    assert trackio.config.update.call_args.args[0]["classifier.kind"] == "lenet"
    (figures,), options = trackio.log.call_args
    assert figures["done"] == options["step"] == 12
    assert trackio.finish.called
    assert capsys.readouterr().out == ""  # which belongs to the command


def test_the_first_of_many_processes_waits_for_no_other(tmp_path):
    code = (
        "from pathlib import Path\n"
        "from fmrgen.progress.trackers import tracking\n"
        f"with tracking(['tensorboard'], {{}}, Path({str(tmp_path)!r})) as trackers:\n"
        "    trackers.log({'done': 1}, 1)\n"
    )
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    result = warm.run(["-c", code], os.environ | launched, timeout=120)
    assert result.returncode == 0
    assert list((tmp_path / "fmrgen").glob("events.*"))


def test_trackers_that_there_are_not(tmp_path, capsys):
    for name, message in {"nothing": "no tracker nothing; there are", "comet_ml": "comet_ml is not installed"}.items():
        assert run("generate", "mnist-lenet", "--limit", "2", "-o", tmp_path / "out", "--log-with", name) == 2
        assert f"--log-with: {message}" in capsys.readouterr().err


def test_a_log_that_is_full_ends_no_job(capsys):
    log = JobLog(Path("/dev/full"))
    log.write("note", text="one")
    log.write("note", text="two")
    line = "--log-file /dev/full: can't be written: No space left on device; the job goes on without it\n"
    assert capsys.readouterr().err == line
