"""The gate: how often it errs, what it costs, and that it says the same whoever asks."""

import os
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import datasets
import pytest
import torch
import warm
import yaml
from commands import run
from places import ROOT

from fmrgen.apps.release.gate import gate as gate_of_split
from fmrgen.apps.release.gate_report import gate_report, verdict_line
from fmrgen.apps.release.junit import to_junit
from fmrgen.apps.release.sequential_test import Gate
from fmrgen.errors import UserError
from fmrgen.recipe.job import parse_classifier
from fmrgen.report.markdown import to_markdown

LENET = "asset:mnist/lenet"
OTHER = "outside_components:HalfTrained"
DARK = "outside_components:BlindInTheDark"


def test_the_line_of_a_verdict():
    found = Gate("undecided", 0.0, 300, 300, 90.0, 88.0, 2.0, -1.0, 4.0, 1200)
    assert "about 1,200 rows more would" in verdict_line(found)
    passed = replace(found, verdict="pass")
    assert verdict_line(passed) == "pass: the candidate is at least as accurate"  # not "by 0 points"


def test_the_same_rows_whatever_the_batch(split):
    found = [
        gate_of_split(str(split), candidate=OTHER, baseline=LENET, max_drop=2, batch_size=size) for size in (7, 64)
    ]
    assert found[0] == found[1]
    assert found[0].verdict == "fail"
    assert found[0].rows < found[0].valid_rows


class Broken(torch.nn.Module):
    """LeNet with something wrong."""

    def __init__(self, fault):
        super().__init__()
        self.lenet, self.fault = parse_classifier(LENET)[1].build(), fault
        if fault == "untrained":
            torch.manual_seed(0)
            for layer in self.lenet.modules():
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()

    def forward(self, images):
        logits = self.lenet(images)
        if self.fault == "nan":
            return logits * float("nan")
        if self.fault == "sometimes nan":
            return torch.where(logits.argmax(1, keepdim=True) == 3, float("nan"), logits)
        if self.fault == "constant":
            return logits * 0 + torch.nn.functional.one_hot(torch.tensor(1), 10)
        return logits


FAULTS = {
    "nan": "gives outputs that are not finite on",
    "sometimes nan": "gives outputs that are not finite on",
    "untrained": "hardly better than chance",
    "constant": "hardly better than chance",
}


@pytest.mark.parametrize("side", ["baseline", "candidate", "both"])
@pytest.mark.parametrize("fault", [*FAULTS])
def test_a_broken_network_decides_nothing(split, fault, side):
    broken, lenet = Broken(fault), Broken(None)
    pair = {"baseline": lenet, "candidate": lenet} | dict.fromkeys(
        ("baseline", "candidate") if side == "both" else (side,), broken
    )
    found = gate_of_split(str(split), **pair, max_drop=50)
    assert (found.verdict, found.alarms) == ("invalid", [])
    sides = ("baseline", "candidate") if side == "both" else (side,)
    assert [note[: len(f"the {one} ")] for note, one in zip(found.notes, sides, strict=True)] == [
        f"the {one} " for one in sides
    ]
    assert all(FAULTS[fault] in note for note in found.notes)
    suite = ElementTree.fromstring(to_junit(gate_report(found, "split")))
    assert (suite.get("errors"), suite.get("failures"), suite.get("skipped")) == ("1", "0", "0")
    assert FAULTS[fault] in suite.find("testcase/error").get("message")
    assert FAULTS[fault] in to_markdown(gate_report(found, "split"))


@pytest.mark.slow
@pytest.mark.parametrize(("side", "verdict"), [("baseline", "pass"), ("candidate", "fail")])
def test_a_half_trained_network_is_a_network(split, side, verdict):
    found = gate_of_split(str(split), **({"baseline": LENET, "candidate": LENET} | {side: OTHER}), max_drop=2)
    assert found.verdict == verdict
    assert 30 < getattr(found, f"{side}_standard") < 60


def test_one_network_against_itself_decides_nothing(split, capsys):
    twin = gate_of_split(str(split), candidate=LENET, baseline=LENET, max_drop=20)
    assert (twin.verdict, twin.drop) == ("undecided", 0)
    assert twin.notes == [
        "baseline and candidate are one network: they have the same weights and give the same answers"
    ]
    assert run("gate", split, "--candidate", LENET, "--baseline", LENET, "--max-drop", "20") == 3
    assert "are one network" in capsys.readouterr().out


@pytest.mark.slow
def test_other_preprocessing_of_the_same_weights_is_another_network(split):
    shifted = parse_classifier(LENET)[1].build()
    shifted.register_forward_pre_hook(lambda module, images: (images[0].roll(4, 3),))
    found = gate_of_split(str(split), candidate=shifted, baseline=LENET, max_drop=2)
    assert found.candidate != found.baseline
    assert not any("one network" in note for note in found.notes)


@pytest.mark.slow
def test_accuracies_are_those_of_evaluate(split):
    from fmrgen import evaluate

    found = gate_of_split(str(split), candidate=LENET, baseline=OTHER, max_drop=0)
    result = evaluate([str(split)], [f"mine={LENET}"]).results[0].total
    full = gate_of_split(str(split), candidate=LENET, baseline=Broken(None), max_drop=0)
    assert full.rows == full.valid_rows == result.valid_rows
    assert full.candidate == pytest.approx(result.perturbed_accuracy.value)
    assert found.verdict != "fail"


def test_files_for_others(split, tmp_path):
    found = gate_of_split(str(split), candidate=OTHER, baseline=LENET, max_drop=2)
    suite = ElementTree.fromstring(to_junit(gate_report(found, "a\x1b<b>")))
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "0")
    assert suite.find("testcase/failure").get("message").startswith("fail: the candidate loses more than 2 points")
    assert "rows looked at" in suite.find("testcase/system-out").text
    assert to_markdown(gate_report(found, "a|b"), level=3).startswith("### Robustness on a\\|b\n\nFail: ")


def test_bad_input(split, capsys):
    assert run("gate", split, "--candidate", LENET, "--baseline", LENET, "--max-drop", "100") == 2
    assert "--max-drop: must be points from 0 to less than 100" in capsys.readouterr().err
    with pytest.raises(UserError, match="classifier candidate"):
        gate_of_split(str(split), candidate=torch.nn.Flatten(), baseline=LENET, max_drop=2)


@pytest.mark.parametrize(("asked", "installed"), [("", "/actions/fmrgen"), ("fmrgen==9", "fmrgen==9")])
def test_the_action_installs_what_it_stands_in(tmp_path, asked, installed):
    step = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"][0]
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"')
    (tmp_path / "python").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/bin", "INSTALL": asked, "GITHUB_ACTION_PATH": "/actions/fmrgen"}
    done = subprocess.run(["/bin/bash", "-e", "-c", step["run"]], env=env, capture_output=True, text=True)
    assert done.stdout == f"-m pip install --quiet {installed}\n"


@pytest.mark.slow
def test_the_action_runs(split, tmp_path):
    """The script of the action, as a runner would run it."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    step = next(step for step in action["runs"]["steps"] if step.get("id") == "gate")
    defaults = {name: told.get("default", "") for name, told in action["inputs"].items()}
    outcomes = {}
    (tmp_path / "tools").mkdir()
    warm.put_on_path(tmp_path / "tools")
    cases = (
        ("fail", OTHER, "fail"),
        ("undecided", LENET, "pass"),
        ("invalid", "outside_components:SmallNetConfig", "pass"),
        ("none", "no_such_module:Net", "pass"),
    )
    for name, candidate, undecided in cases:
        given = defaults | {
            "split": str(split),
            "candidate": candidate,
            "baseline": LENET,
            "max-drop": "0",
            "undecided": undecided,
        }
        env = {key: given[value.split(".")[1].strip(" }")] for key, value in step["env"].items()}
        files = {key: tmp_path / f"{name}-{key}" for key in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
        env |= {key: str(path) for key, path in files.items()} | {"JUNIT": str(tmp_path / f"{name}.xml")}
        env["PATH"] = f"{tmp_path / 'tools'}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
        env["PYTHONPATH"] = str(ROOT / "tests/support")
        done = subprocess.run(
            ["bash", "-e", "-c", step["run"]], env={**os.environ, **env}, capture_output=True, text=True
        )
        if name == "none":
            assert (done.returncode, files["GITHUB_OUTPUT"].exists()) == (2, False), done.stderr
            continue
        assert files["GITHUB_OUTPUT"].read_text() == f"verdict={name}\n", done.stderr
        assert f"\n{name.title()}: " in files["GITHUB_STEP_SUMMARY"].read_text()
        assert ElementTree.parse(tmp_path / f"{name}.xml").getroot().get("tests") == "1"
        outcomes[name] = done.returncode
    assert outcomes == {"fail": 1, "undecided": 0, "invalid": 2}


def test_images_that_hardly_fool_either_are_told(finished_split):
    """LeNet and one whose gradient is another's, on the images of a third that LeNet's are not."""
    networks = {"candidate": LENET, "baseline": "outside_components:LenetWithOracle"}
    plain = f"{finished_split}:mnist/lenet"
    told = gate_of_split(plain, **networks, max_drop=2)
    assert not any("hardly fool either" in note for note in told.notes)  # they were made to fool LeNet
    originals = datasets.load_dataset(str(finished_split), "mnist", split="lenet")
    harmless = originals.remove_columns(["image"]).rename_column("original", "image")
    told = gate_of_split(harmless, **networks, max_drop=2)
    assert any("hardly fool either: a drop can't show" in note for note in told.notes)


@pytest.mark.slow
def test_what_only_a_change_of_the_originals_shows_fails(split, capsys):
    """On the split's own images it is LeNet, and on darker originals it is wrong throughout."""
    assert run("gate", split, "--candidate", DARK, "--baseline", OTHER, "--max-drop", "2") == 1
    printed = capsys.readouterr()
    assert "fail: the candidate is worse on lower contrast: " in printed.out.replace("\n", " ")
    found = gate_of_split(str(split), candidate=DARK, baseline=OTHER, max_drop=2)
    assert (found.verdict, found.rows_verdict) == ("fail", "pass")
    assert {condition.words for condition in found.worse} == {"lower contrast"}
    suite = ElementTree.fromstring(to_junit(gate_report(found, "split")))
    assert "worse on lower contrast" in suite.find("testcase/failure").get("message")
    assert "* worse on lower contrast" in to_markdown(gate_report(found, "split"))


@pytest.mark.slow
def test_changed_originals_decide_nothing_that_rows_do_not(split):
    """Two networks of which one is wrong now and then, and few rows: undecided, whatever changes do not show."""
    found = gate_of_split(str(split), candidate=Unsteady(), baseline=LENET, max_drop=0)
    assert (found.verdict, found.rows_verdict) == ("undecided", "undecided")
    assert not found.worse
    assert found.conditions


class Unsteady(torch.nn.Module):
    """LeNet, but for an image in sixty."""

    def __init__(self):
        super().__init__()
        self.lenet = parse_classifier(LENET)[1].build()

    def forward(self, images):
        logits = self.lenet(images)
        odd = (images.flatten(1).sum(1) * 255).round().long() % 60 == 0
        return torch.where(odd[:, None], logits.roll(1, 1), logits)


def test_nothing_passes_where_originals_cannot_be_changed(split):
    rows = datasets.load_dataset(str(split), "mnist", split="lenet")
    found = gate_of_split(rows, candidate=LENET, baseline=OTHER, max_drop=2)
    assert (found.verdict, found.rows_verdict) == ("undecided", "pass")
    assert any("was not made by fmrgen: its images alone show too little" in note for note in found.notes)
    passed = gate_of_split(str(split), candidate=LENET, baseline=OTHER, max_drop=2)
    assert passed.verdict == "pass"
    assert "none of 28 changes to" in verdict_line(passed)


@pytest.mark.slow
def test_each_on_its_own_split(tmp_path, capsys):
    job = ["gate", "--recipe", "mnist-lenet", "--limit", "60", "--max-drop", "2"]
    good = "outside_components:LenetWithOracle"
    assert run(*job, "--candidate", good, "--baseline", LENET, "-o", tmp_path / "up") == 0
    printed = capsys.readouterr()
    assert "own splits of mnist-lenet" in printed.out
    assert "pass: the candidate loses at most 2 points" in printed.out
    assert run(*job, "--candidate", LENET, "--baseline", good, "-o", tmp_path / "down") == 1
    assert "fail: the candidate loses more than 2 points" in capsys.readouterr().out


@pytest.mark.slow
def test_a_masked_gradient_and_one_network_gate_nothing_on_own_splits(tmp_path, capsys):
    (tmp_path / "few.yaml").write_text("{extends: mnist-lenet, perturb: {budget: 2, step_size: 0.1}}")
    job = ["gate", "--recipe", tmp_path / "few.yaml", "--limit", "30", "--max-drop", "2", "--baseline", LENET]
    masked = "{kind: module, target: 'masked_networks:reversed_gradient'}"
    assert run(*job, "--candidate", masked, "-o", tmp_path / "out") == 2
    assert "the gradient of the candidate may be masked" in capsys.readouterr().out
    assert run(*job, "--candidate", LENET, "-o", tmp_path / "one") == 3
    assert "baseline and candidate are one network" in capsys.readouterr().out
    assert run(*job, "split", "--candidate", masked) == 2
    assert "name a SPLIT or pass --recipe RECIPE, one of the two" in capsys.readouterr().err
