"""`--json`: one JSON value on stdout, and nothing else there."""

import json

import pytest
from commands import run
from installed import needs_app

LENET = "asset:mnist/lenet"


def outcome(capsys, *arguments, status=0):
    assert run(*arguments, "--json") == status
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
@needs_app("release")
@needs_app("judging")
def test_a_split_from_generate_to_a_strict_diff(tmp_path, capsys, monkeypatch):
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
    twin = "{kind: lenet, checkpoint: 'asset:mnist/lenet/model.safetensors'}"
    passed = outcome(capsys, "diff", "--images", "out", "--new", twin, "--old", LENET, "--strict", status=1)
    assert (passed["verdict"], passed["flips"]["drop"]["value"]) == ("undecided", 0)
    judged = outcome(capsys, "judge", "out", "--oracle", "asset:mnist/clip")
    assert judged[0]["judge"]
    path = next((tmp_path / "out/mnist").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    assert outcome(capsys, "verify", "out", "--files", status=1)["wrong"]


@pytest.mark.slow
@needs_app("training")
def test_what_several_splits_tell(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = ["mnist-lenet", "--limit", "12", "perturb.budget=2", "perturb.step_size=0.1"]
    planned = outcome(capsys, "generate", *job, "--dry-run")
    assert (planned["split"], planned["plan"]["work"]["images_left"]) == ("out:mnist/lenet", 12)
    assert planned["plan"]["recipe"]["perturb"]["budget"] == 2
    trained = outcome(capsys, "train", "train/mnist-lenet", "schedule.steps=2", "-o", "small", "--log-file", "log")
    assert trained == {"output": "small", "metrics": {"accuracy": trained["metrics"]["accuracy"]}}
    told = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    said = [(line["event"], line.get("step")) for line in told if line["event"] != "note"]  # on what it learnt so far
    assert said == [("progress", 2), ("end", None)]
    compared = outcome(capsys, "compare", *job, "-c", f"big={LENET}", "-c", "small", "-o", "compared")
    assert compared == json.loads((tmp_path / "compared/comparison/evaluation.json").read_text())


def test_what_is_no_number_is_null(capsys):
    from fmrgen.cli.display import print_json

    print_json({"a": [float("nan"), float("inf"), 1.5, "NaN"]})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, 1.5, "NaN"]}


def test_what_there_is(capsys):
    assert "mnist-lenet" in outcome(capsys, "recipes")
    assert outcome(capsys, "recipes", "mnist-lenet")["generator"]["kind"] == "vqgan"
    assert outcome(capsys, "recipes", "sets/imagenet-c")["severities"] == [1, 2, 3, 4, 5]
    assert "fmrgen" in outcome(capsys, "env")
