"""What the terminal shows."""

import json
import logging
import re
import socket
import threading

import pytest
from commands import run

from fmrgen.cli.display import hub_progress, quiet_libraries
from fmrgen.distributed.prefetch import read_ahead
from fmrgen.distributed.rank import note
from fmrgen.progress.bars import progress_shown, report


@pytest.mark.slow
def test_a_log_has_a_line_at_the_start_now_and_then_and_at_the_end(tmp_path, monkeypatch, capsys):
    """Where stderr is no terminal; and the same as JSON lines."""
    monkeypatch.setattr("fmrgen.progress.bars._EVERY", 0.5)
    log = tmp_path / "job.jsonl"
    job = ["generate", "mnist-lenet", "--limit", "40", "perturb.budget=20", "perturb.slots=2"]
    assert run(*job, "-o", tmp_path / "out", "--log-file", log) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "1 process on cpu, 2 slots; 2 shards"
    *between, last_line = [line for line in lines if line.startswith("mnist/lenet: ")]
    assert between
    shown = r"mnist/lenet: \d+ of 40(, ([\d.]+ images/s|[\d.]+ s/image), [\d.]+% valid(, [\d.]+ steps)?)?"
    assert all(re.fullmatch(rf"{shown}(, about .* left)?", line) for line in between)
    assert any(line.endswith(" left") for line in between)
    assert re.fullmatch(rf"{shown}, done in .*", last_line)
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["event"] for entry in told][:2] == ["note", "progress"]
    assert told[0]["text"] == lines[0]
    assert {(entry["host"], entry["rank"]) for entry in told} == {(socket.gethostname(), 0)}
    assert all(isinstance(entry["pid"], int) for entry in told)
    last, end = told[-2:]
    assert (last["done"], last["total"], last["resumed"]) == (40, 40, 0)
    assert end["event"] == "end"
    assert end["summary"]["rows"] == 40
    assert last["validation_rate"] == end["summary"]["validation_rate"]["value"]

    capsys.readouterr()
    assert run(*job, "-o", tmp_path / "out", "--log-file", log, "perturb.budget=2") == 2
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "error"
    assert run(*job, "-o", tmp_path / "other", "--log-file", tmp_path / "no/folder/x") == 2
    assert "can't be written: No such file or directory" in capsys.readouterr().err


def test_the_hubs_retries_are_notes(capsys):
    quiet_libraries()
    said = logging.getLogger("huggingface_hub.utils._http")
    said.warning("'[Errno -2] Name or service not known' thrown while requesting HEAD https://huggingface.co/a/b")
    with hub_progress(show=False):
        said.warning("Retrying in 4s [Retry 3/5].")
    assert capsys.readouterr().err == "the Hub can't be reached; trying again in 4 s (3 of 5)\n"


def test_what_another_process_of_a_machine_says(monkeypatch, capsys):
    """What it alone knows is printed; what all of them say is left to the first."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    quiet_libraries()
    note("its shard was damaged", of_one=True)
    note("said by all")
    logging.getLogger("fmrgen.sources").warning("said by all")
    assert capsys.readouterr().err == "its shard was damaged\n"


def test_forced_colours_draw_no_bar_into_a_file(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_shown(True):
        report("digits", 3, 3)
    assert capsys.readouterr().err == "digits: 3 of 3, done in 0 s\n"


def test_a_source_that_is_stuck_lets_the_program_end():
    """No thread of a pool, which the interpreter waits for, draws from it."""
    stuck = threading.Event()

    def items():
        yield 1
        stuck.wait()

    ahead = read_ahead(items(), 2)
    assert next(ahead) == 1
    ahead.close()
    drawing = [thread for thread in threading.enumerate() if thread.name == "source"]
    assert [thread.daemon for thread in drawing] == [True]
    stuck.set()
