"""The record of speed: what fell by more than its noise is named, and nothing else."""

import json
import sys

import pytest

from benchmarks import record


def of(rounds):
    return {"engine to bare models": rounds}


@pytest.mark.parametrize(
    ("rounds", "falls"),
    [
        ([0.90, 0.92, 0.91], False),  # as ever
        ([0.99, 1.0, 1.01], False),  # faster
        ([0.86, 0.88, 0.87], False),  # within the noise: from 0.88, 5 % of 0.92 below
        ([0.80, 0.82, 0.81], True),
        ([0.70, 0.86, 0.71], False),  # two rounds beside a busy neighbour
    ],
)
def test_what_fell_by_more_than_its_noise_is_named(rounds, falls):
    earlier = [of([0.90, 0.91, 0.94]), of([0.88, 0.92, 0.93])]
    assert bool(record.fallen(of(rounds), earlier)) == falls


def test_check_takes_the_last_records_before_the_new_one(tmp_path, monkeypatch, capsys):
    for day, value in enumerate([2.0, 1.0, 1.01, 1.02, 0.1, 1.0, 1.03, 0.2], 1):
        tree = {"commit": f"{day}", "date": f"2026-01-0{day}T00:00", "ratios": {"a to b": [value]}}
        tree["machine"] = "another" if day == 5 else "this"
        (tmp_path / f"{day}.json").write_text(json.dumps(tree))
    new = tmp_path / "new"
    new.mkdir()
    for value, status in ((0.99, 0), (0.9, 1)):
        tree = {"commit": "new", "date": "2026-01-08T00:00", "machine": "this"}
        tree["ratios"] = {"a to b": [value]}
        (new / "new.json").write_text(json.dumps(tree))
        monkeypatch.setattr(sys, "argv", ["record", "check", str(new / "new.json"), "--record", str(tmp_path)])
        with pytest.raises(SystemExit) as ended:
            record.main()
        assert ended.value.code == status
    assert "a to b: 0.900, was 1.010 (its noise ends at 0.950)" in capsys.readouterr().out
