"""The gate: a diff on a split that lets nothing pass which is not shown, and its action."""

import os
import subprocess
import sys
from xml.etree import ElementTree

import datasets
import pytest
import torch
import warm
import yaml
from broken_networks import Broken
from commands import run
from places import ROOT

from fmrgen import UserError, diff, evaluate
from fmrgen.apps.release.diff_report import diff_report, verdict_line
from fmrgen.apps.release.junit import to_junit
from fmrgen.recipe.job import parse_classifier
from fmrgen.report.markdown import to_markdown

LENET = "asset:mnist/lenet"
OTHER = "outside_components:HalfTrained"
DARK = "outside_components:BlindInTheDark"


def kinds(found):
    return {one.kind: one for one in found.evidence}


def report_of(found):
    return diff_report(found, "a\x1b<b>|c", {"OLD": "a", "NEW": "b"}, needs_proof=True)


@pytest.mark.nightly
def test_a_network_that_learnt_half_is_worse_on_every_kind_of_images(split):
    found = diff(LENET, OTHER, images=str(split), margin=2)
    assert found.verdict == "broke more"
    assert [one.kind for one in found.evidence] == [
        "originals",
        "class",
        "perturbed",
        "class",
        "moved",
        "class",
        "moved",
        "moved",
        "changed",
    ]
    assert kinds(found)["originals"].is_worse
    assert kinds(found)["perturbed"].is_worse
    suite = ElementTree.fromstring(to_junit(report_of(found)))
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "0")
    assert suite.find("testcase/failure").get("message").startswith("NEW broke more than it fixed: of ")
    assert to_markdown(report_of(found), level=3).startswith("### a\\\\x1b\\<b\\>\\|c\n\nNEW broke more")


@pytest.mark.slow
def test_the_reverse_fixed_more(split):
    found = diff(OTHER, LENET, images=str(split), margin=2)
    assert found.verdict == "fixed more"
    assert len(found.changed) == 28


FAULTS = {
    "nan": "gives outputs that are not finite on",
    "sometimes nan": "gives outputs that are not finite on",
    "untrained": "hardly better than chance",
    "constant": "hardly better than chance",
}


@pytest.mark.parametrize("sides", [("OLD",), ("NEW",), ("OLD", "NEW")])
@pytest.mark.parametrize("fault", [*FAULTS])
def test_a_broken_network_decides_nothing(split, fault, sides):
    pair = {"OLD": Broken(None), "NEW": Broken(None)} | dict.fromkeys(sides, Broken(fault))
    found = diff(pair["OLD"], pair["NEW"], images=str(split), margin=50)
    assert found.verdict == "invalid"
    assert [note.split()[0] for note in found.notes] == list(sides)
    assert all(FAULTS[fault] in note for note in found.notes)
    suite = ElementTree.fromstring(to_junit(report_of(found)))
    assert (suite.get("errors"), suite.get("failures"), suite.get("skipped")) == ("1", "0", "0")
    assert FAULTS[fault] in suite.find("testcase/error").get("message")


def test_one_network_against_itself_decides_nothing(split, capsys, tmp_path):
    job = ["gate", split, "--candidate", LENET, "--baseline", LENET, "--max-drop", "20", "-o", tmp_path]
    assert run(*job) == 2
    assert f"{LENET} is both old and new; name two" in capsys.readouterr().err
    twin = "{kind: lenet, checkpoint: 'asset:mnist/lenet/model.safetensors'}"
    assert (
        run(*[twin if word == LENET and job[place - 1] == "--candidate" else word for place, word in enumerate(job)])
        == 3
    )
    assert "OLD and NEW are one network" in capsys.readouterr().out
    suite = ElementTree.fromstring(to_junit(report_of(diff(LENET, LENET, images=str(split)))))
    assert suite.get("skipped") == "1"


@pytest.mark.slow
def test_other_preprocessing_of_the_same_weights_is_another_network(split):
    shifted = parse_classifier(LENET)[1].build()
    shifted.register_forward_pre_hook(lambda module, images: (images[0].roll(4, 3),))
    found = diff(LENET, shifted, images=str(split), margin=2)
    assert found.flips.new_accuracy != found.flips.old_accuracy
    assert not any("one network" in note for note in found.notes)


@pytest.mark.slow
def test_counts_are_those_of_evaluate(split):
    found = diff(OTHER, LENET, images=str(split))
    said = evaluate([str(split)], {"old": OTHER, "new": LENET}, progress=False)
    table = said.predictions.to_pandas()
    by = {name: table[table.classifier == name] for name in ("old", "new")}
    right = {name: (rows.original_prediction == rows.label).to_numpy() for name, rows in by.items()}
    assert found.flips.broke.value == pytest.approx(100 * (right["old"] & ~right["new"]).mean())
    valid = {name: rows[rows.valid] for name, rows in by.items()}
    right = {name: (rows.prediction == rows.label).to_numpy() for name, rows in valid.items()}
    assert kinds(found)["perturbed"].fixed.value == pytest.approx(100 * (right["new"] & ~right["old"]).mean())


def test_bad_input(split, capsys):
    assert run("gate", split, "--candidate", OTHER, "--baseline", LENET, "--max-drop", "100") == 2
    assert "must be points from 0 to less than 100" in capsys.readouterr().err
    assert (
        run("gate", split, "--recipe", "mnist-lenet", "--candidate", LENET, "--baseline", LENET, "--max-drop", "1") == 2
    )
    assert "name a SPLIT or pass --recipe RECIPE, one of the two" in capsys.readouterr().err
    with pytest.raises(UserError, match="classifier NEW"):
        diff(LENET, torch.nn.Flatten(), images=str(split))
    with pytest.raises(UserError, match="several trainings are for real images"):
        diff([LENET, OTHER], LENET, images=str(split))


@pytest.mark.parametrize(("asked", "installed"), [("", "/actions/fmrgen[models]"), ("fmrgen==9", "fmrgen==9")])
def test_the_action_installs_what_it_stands_in(tmp_path, asked, installed):
    step = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"][0]
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"')
    (tmp_path / "python").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/bin", "INSTALL": asked, "GITHUB_ACTION_PATH": "/actions/fmrgen"}
    done = subprocess.run(["/bin/bash", "-e", "-c", step["run"]], env=env, capture_output=True, text=True)
    assert done.stdout == f"-m pip install --quiet {installed}\n"


@pytest.mark.nightly
def test_the_action_runs(split, tmp_path):
    """The script of the action, as a runner would run it."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    step = next(step for step in action["runs"]["steps"] if step.get("id") == "gate")
    defaults = {name: told.get("default", "") for name, told in action["inputs"].items()}
    outcomes = {}
    (tmp_path / "tools").mkdir()
    warm.put_on_path(tmp_path / "tools")
    cases = (
        ("broke more", OTHER, "fail"),
        ("undecided", "outside_components:LenetWithOracle", "pass"),
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
            ["bash", "-e", "-c", step["run"]], env={**os.environ, **env}, capture_output=True, text=True, cwd=tmp_path
        )
        if name == "none":
            assert (done.returncode, files["GITHUB_OUTPUT"].exists()) == (2, False), done.stderr
            continue
        assert files["GITHUB_OUTPUT"].read_text() == f"verdict={name}\n", done.stderr
        assert "What the verdict rests on" in files["GITHUB_STEP_SUMMARY"].read_text()
        assert ElementTree.parse(tmp_path / f"{name}.xml").getroot().get("tests") == "1"
        outcomes[name] = done.returncode
    assert outcomes == {"broke more": 1, "undecided": 0, "invalid": 2}


@pytest.mark.nightly
def test_images_that_hardly_fool_either_are_told(finished_split):
    """LeNet and one whose gradient is another's, on a split of LeNet's originals and on its images."""
    networks = LENET, "outside_components:LenetWithOracle"
    told = diff(*networks, images=f"{finished_split}:mnist/lenet", margin=2)
    assert not any("hardly fool either" in note for note in told.notes)  # they were made to fool LeNet
    assert any("made against OLD alone" in note for note in told.notes)


@pytest.mark.nightly
def test_what_only_a_change_of_the_originals_shows_is_the_verdict(split, capsys, tmp_path):
    """On the split's own images it is LeNet, and on darker originals it is wrong throughout."""
    assert run("gate", split, "--candidate", DARK, "--baseline", OTHER, "--max-drop", "2", "-o", tmp_path) == 1
    assert "originals with lower contrast" in capsys.readouterr().out.replace("\n", " ")
    found = diff(OTHER, DARK, images=str(split), margin=2)
    assert [one.kind for one in found.evidence if one.is_worse] == ["changed"]
    assert {one.images for one in found.worse} == {"originals with lower contrast"}
    suite = ElementTree.fromstring(to_junit(report_of(found)))
    assert "originals with lower contrast" in suite.find("testcase/failure").get("message")


def test_rows_of_anyone_are_real_images(split):
    """No provenance, so no oracle: what they show is a matter of the images as they are."""
    rows = datasets.load_dataset(str(split), "mnist", split="lenet").select_columns(["id", "image", "label"])
    found = diff(OTHER, LENET, images=rows)
    assert [one.kind for one in found.evidence] == ["originals", "class"]
    assert found.verdict == "fixed more"
    assert verdict_line(found).startswith("NEW fixed more than it broke: of ")


@pytest.mark.nightly
def test_each_kind_of_images_must_show_it_for_a_pass(split, capsys, tmp_path):
    """The margin of a pass holds on every kind, so few images do not show it."""
    assert run("gate", split, "--candidate", LENET, "--baseline", OTHER, "--max-drop", "2", "-o", tmp_path) == 0
    good = "outside_components:LenetWithOracle"
    assert run("gate", split, "--candidate", good, "--baseline", LENET, "--max-drop", "0", "-o", tmp_path) == 3
    assert "NEW may have lost" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.slow
def test_a_masked_gradient_is_no_pass(tmp_path, capsys):
    (tmp_path / "few.yaml").write_text("{extends: mnist-lenet, perturb: {budget: 2, step_size: 0.1}}")
    job = ["gate", "--recipe", tmp_path / "few.yaml", "--limit", "30", "--max-drop", "40", "--baseline", LENET]
    masked = "{kind: module, target: 'masked_networks:reversed_gradient'}"
    assert run(*job, "--candidate", masked, "-o", tmp_path / "out") == 3
    assert "the gradient of NEW is masked" in capsys.readouterr().out
