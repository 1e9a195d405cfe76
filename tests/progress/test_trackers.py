"""Trackers that work, raise, hang and fill the disk: the job goes on."""

import json
import os
import time
from pathlib import Path

import pytest
from accelerate import tracking as of_accelerate
from commands import run, wait_for

from fmrgen.jobs.generate import make_split
from fmrgen.progress import trackers as own
from fmrgen.progress.terminal import JobLog
from fmrgen.progress.tracked import TrackedJob
from fmrgen.recipe.job import load_recipe

FAKE = """
import pathlib, time

def init(project, **settings):
    {at_start}
    return Run()

class config:
    def update(values, **settings):
        pathlib.Path("config").write_text(values["classifier.kind"])

class Run:
    def log(self, values, step=None):
        {at_log}
        with open("told", "a") as file:
            print(step, values, file=file)
    def finish(self):
        pathlib.Path("finished").touch()
"""


@pytest.fixture
def recipe():
    return load_recipe("mnist-lenet", ["source.limit=12", "perturb.budget=4", "perturb.step_size=0.1"])


def make(recipe, folder, name, monkeypatch):
    """Makes a split under a tracker; returns its folder and the notes."""
    monkeypatch.setattr("fmrgen.progress.tracked._EVERY", 0.0)
    notes = []
    with own.tracking([name], recipe.model_dump(mode="json"), folder / "logs", notes.append) as trackers:
        summary = make_split(recipe, folder / "out", on_progress=TrackedJob(trackers))
    assert summary.rows == 12
    return folder / "logs", notes


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Installs a trackio that does what is said."""

    def install(at_start="pass", at_log="pass"):
        (tmp_path / "fake").mkdir()
        (tmp_path / "fake/trackio.py").write_text(FAKE.format(at_start=at_start, at_log=at_log))
        info = tmp_path / "fake/trackio-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trackio\nVersion: 1.0\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"), prepend=os.pathsep)
        monkeypatch.setattr(of_accelerate, "_available_trackers", ["trackio"])

    return install


def test_figures_and_images_arrive(recipe, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs, notes = make(recipe, tmp_path, "tensorboard", monkeypatch)
    assert notes == []
    (events,) = (logs / "fmrgen").glob("events.*")
    found = EventAccumulator(str(events))
    found.Reload()
    wanted = {"done", "validation_rate", "mean_iterations", "stuck_rows", "nonfinite_rows", "slots", "memory_gib"}
    assert wanted <= set(found.Tags()["scalars"])
    assert [event.value for event in found.Scalars("done")][-1] == 12
    assert any("misclassified" in tag for tag in found.Tags()["images"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_start", "at_log", "trouble"),
    [
        ("raise RuntimeError('no server')", "pass", "RuntimeError: no server"),
        ("pass", "raise ValueError('what is this?')", "ValueError: what is this?"),
        ("pass", "open('/dev/full', 'w').write('x' * 100_000)", "No space left on device"),
        ("time.sleep(1000)", "pass", "does not answer"),
        ("import os; os._exit(3)", "pass", "ended with status 3"),
    ],
)
def test_a_tracker_that_fails_stops_no_job(fake, recipe, tmp_path, monkeypatch, at_start, at_log, trouble):
    fake(at_start, at_log)
    monkeypatch.setattr(own, "_LAST_WORDS", 15.0 if "sleep" not in at_start else 1.0)
    began = time.monotonic()
    _, (note,) = make(recipe, tmp_path, "trackio", monkeypatch)
    assert note.startswith("trackers trackio: ")
    assert note.endswith(f"{trouble}; the job went on without it")
    assert time.monotonic() - began < 120


def test_a_tracker_that_hangs_ends_after_its_job(fake, tmp_path, monkeypatch):
    fake(at_log="pathlib.Path('hangs').touch(); time.sleep(1000)")
    monkeypatch.setattr(own, "_LAST_WORDS", 0.5)
    tracker = own._Tracker("trackio", tmp_path / "logs", {"classifier": {"kind": "lenet"}})
    own.Trackers([tracker]).log({"done": 1}, 1)
    wait_for((tmp_path / "logs/hangs").exists)
    tracker._process.stdin.close()  # as a job's SIGKILL does
    assert tracker._process.wait(30) == 1


def test_a_tracker_is_told_everything_and_ended(fake, recipe, tmp_path, monkeypatch):
    fake()
    logs, notes = make(recipe, tmp_path, "trackio", monkeypatch)
    assert notes == []
    assert (logs / "config").read_text() == "lenet"
    assert (logs / "finished").exists()
    assert "12 {'done': 12," in (logs / "told").read_text()


def test_a_folder_that_can_not_be_written(recipe, tmp_path, monkeypatch):
    (tmp_path / "logs").write_text("in the way")
    _, (note,) = make(recipe, tmp_path, "tensorboard", monkeypatch)
    assert "the job went on without it" in note


def test_trackers_that_there_are_not(tmp_path, capsys):
    assert run("generate", "mnist-lenet", "--limit", "2", "-o", tmp_path / "out", "--log-with", "nothing") == 2
    assert "--log-with: no tracker nothing; there are" in capsys.readouterr().err
    assert run("generate", "mnist-lenet", "--limit", "2", "-o", tmp_path / "out", "--log-with", "comet_ml") == 2
    assert "--log-with: comet_ml is not installed" in capsys.readouterr().err


def test_the_log_file_has_the_same_figures(tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    command = ["generate", "mnist-lenet", "--limit", "6", "perturb.budget=2", "-o", tmp_path / "out", "--log-file", log]
    assert run(*command) == 0
    told = [json.loads(line) for line in log.read_text().splitlines()]
    last = [line for line in told if line["event"] == "progress"][-1]
    assert (last["done"], last["stuck_rows"], last["nonfinite_rows"], last["seconds_left"]) == (6, 0, 0, 0.0)
    assert last["memory_gib"] > 0.1
    assert last["slots"] > 0


def test_a_log_that_is_full_ends_no_job(capsys):
    log = JobLog(Path("/dev/full"))
    log.write("note", text="one")
    log.write("note", text="two")
    line = "--log-file /dev/full: can't be written: No space left on device; the job goes on without it\n"
    assert capsys.readouterr().err == line
