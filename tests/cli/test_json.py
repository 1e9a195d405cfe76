"""`--json`: one JSON value on stdout, and nothing else there."""

import json

import pytest
from helpers import run

from fmrgen.cli.app import app

LENET = "asset:mnist/lenet"


def outcome(capsys, *arguments, status=0):
    assert run(*arguments, "--json") == status
    return json.loads(capsys.readouterr().out)


def test_a_split_from_its_making_to_a_gate(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = ["mnist-lenet", "--limit", "20", "perturb.budget=3", "perturb.step_size=0.1", "-o", "out"]
    made = outcome(capsys, "generate", *job)
    assert made["split"] == "out:mnist/lenet"
    assert made["summary"]["rows"] == 20
    assert made["summary"]["fmr"].keys() == {"value", "low", "high"}
    verified = outcome(capsys, "verify", "out")
    assert (verified["rows"], verified["disagreements"]) == (20, [])
    files = outcome(capsys, "verify", "out", "--files")
    assert (files["intact"], files["wrong"], files["finished"]) == (1, [], True)
    evaluation = outcome(capsys, "evaluate", "out", "-c", LENET)
    assert evaluation == json.loads((tmp_path / "evaluation/evaluation.json").read_text())
    passed = outcome(capsys, "gate", "out", "--candidate", LENET, "--baseline", LENET, "--max-drop", "0", status=3)
    assert (passed["verdict"], passed["drop"]) == ("undecided", 0)
    judged = outcome(capsys, "judge", "out", "--oracle", "asset:mnist/clip")
    assert judged[0]["judge"]
    path = next((tmp_path / "out/mnist").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    assert outcome(capsys, "verify", "out", "--files", status=1)["wrong"]


def test_what_there_is(capsys):
    assert "mnist-lenet" in outcome(capsys, "recipes")
    assert outcome(capsys, "recipes", "mnist-lenet")["generator"]["kind"] == "vqgan"
    assert outcome(capsys, "recipes", "sets/imagenet-c")["severities"] == [1, 2, 3, 4, 5]
    assert "fmrgen" in outcome(capsys, "doctor")


@pytest.mark.parametrize(
    "name", ["generate", "verify", "evaluate", "gate", "judge", "push", "submit", "inspect", "recipes", "doctor"]
)
def test_commands_that_programs_read(name):
    import typer

    command = typer.main.get_command(app).commands[name]
    assert any("--json" in parameter.opts for parameter in command.params)
