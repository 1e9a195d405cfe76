"""Trackers that work and raise: the job goes on."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import warm
from accelerate import tracking as of_accelerate
from commands import run
from notes import noted

from fmrgen.jobs.generate import make_split
from fmrgen.progress import trackers as own
from fmrgen.progress.log import JobLog, job_report
from fmrgen.recipe.job import load_recipe


class FakeRun:
    """The run of a trackio that does what it must: it keeps what it gets, and may fail."""

    def __init__(self, at_start, at_log):
        self.at_start, self.at_log = at_start, at_log
        self.config, self.logged, self.finished = {}, [], False

    def init(self, project):
        print("a line for people")
        self.at_start()
        return self

    def update(self, values, allow_val_change):
        self.config |= values

    def log(self, values, step=None):
        self.at_log()
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


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
def fake(monkeypatch):
    """Installs a trackio, and returns its run."""

    def install(at_start=lambda: None, at_log=lambda: None):
        trackio = FakeRun(at_start, at_log)
        monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=trackio.init, config=trackio))
        monkeypatch.setattr(of_accelerate, "_available_trackers", ["trackio", "tensorboard"])
        return trackio

    return install


def failing(error):
    def fail():
        raise error

    return fail


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
    ("faults", "trouble"),
    [
        ({"at_start": failing(RuntimeError("no server"))}, "no server"),
        ({"at_log": failing(ValueError("not a number"))}, "not a number"),
        ({"at_log": failing(SystemExit(3))}, "3"),
    ],
)
def test_a_tracker_that_fails_is_noted_once_and_stops_no_other(fake, recipe, tmp_path, monkeypatch, faults, trouble):
    fake(**faults)
    logs, notes = make(recipe, tmp_path, ["trackio", "tensorboard"], monkeypatch)
    assert notes == [f"trackers trackio: {trouble}; the job goes on without it"]
    assert list((logs / "fmrgen").glob("events.*"))


def test_a_tracker_gets_everything_and_is_ended(fake, recipe, tmp_path, monkeypatch, capsys):
    trackio = fake()
    assert make(recipe, tmp_path, ["trackio"], monkeypatch)[1] == []
    assert trackio.config["classifier.kind"] == "lenet"
    assert trackio.logged[-1][0] == trackio.logged[-1][1]["done"] == 12
    assert trackio.finished
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
    assert run("generate", "mnist-lenet", "--limit", "2", "-o", tmp_path / "out", "--log-with", "nothing") == 2
    assert "--log-with: no tracker nothing; there are" in capsys.readouterr().err
    assert run("generate", "mnist-lenet", "--limit", "2", "-o", tmp_path / "out", "--log-with", "comet_ml") == 2
    assert "--log-with: comet_ml is not installed" in capsys.readouterr().err


def test_a_log_that_is_full_ends_no_job(capsys):
    log = JobLog(Path("/dev/full"))
    log.write("note", text="one")
    log.write("note", text="two")
    line = "--log-file /dev/full: can't be written: No space left on device; the job goes on without it\n"
    assert capsys.readouterr().err == line
