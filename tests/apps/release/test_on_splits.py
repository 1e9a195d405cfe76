"""A diff on the originals and the perturbed images of a split."""

from xml.etree import ElementTree

import datasets
import pytest
import torch
from broken_networks import Broken
from commands import run

from fmrgen import UserError, diff_classifiers, evaluate
from fmrgen.apps.release.diff_report import diff_report, to_junit, verdict_line
from fmrgen.recipe.job import parse_classifier
from fmrgen.report.markdown import to_markdown

LENET = "asset:mnist/lenet"
OTHER = "outside_components:HalfTrained"


def kinds(found):
    return {one.kind: one for one in found.evidence}


def report_of(found):
    return diff_report(found, "a\x1b<b>|c", {"OLD": "a", "NEW": "b"}, strict=True)


FAULTS = {
    "nan": "gives outputs that are not finite on",
    "sometimes nan": "gives outputs that are not finite on",
    "untrained": "hardly better than chance",
    "constant": "hardly better than chance",
}


@pytest.mark.parametrize("sides", [("OLD",), ("NEW",), ("OLD", "NEW")])
@pytest.mark.parametrize("fault", [*FAULTS])
def test_a_broken_network_decides_nothing(finished_split, fault, sides):
    pair = {"OLD": Broken(None), "NEW": Broken(None)} | dict.fromkeys(sides, Broken(fault))
    found = diff_classifiers(pair["OLD"], pair["NEW"], images=str(finished_split), margin=50)
    assert found.verdict == "invalid"
    assert [note.split()[0] for note in found.notes] == list(sides)
    assert all(FAULTS[fault] in note for note in found.notes)
    suite = ElementTree.fromstring(to_junit(report_of(found)))
    assert (suite.get("errors"), suite.get("failures"), suite.get("skipped")) == ("1", "0", "0")
    assert FAULTS[fault] in suite.find("testcase/error").get("message")


@pytest.mark.slow
def test_other_preprocessing_of_the_same_weights_is_another_network(finished_split):
    shifted = parse_classifier(LENET)[1].build()
    shifted.register_forward_pre_hook(lambda module, images: (images[0].roll(4, 3),))
    found = diff_classifiers(LENET, shifted, images=str(finished_split), margin=2)
    assert found.flips.new_accuracy != found.flips.old_accuracy
    assert not any("one network" in note for note in found.notes)


@pytest.mark.slow
def test_counts_are_those_of_evaluate(finished_split):
    found = diff_classifiers(OTHER, LENET, images=str(finished_split))
    said = evaluate([str(finished_split)], {"old": OTHER, "new": LENET}, progress=False)
    table = said.predictions.to_pandas()
    by = {name: table[table.classifier == name] for name in ("old", "new")}
    right = {name: (rows.original_prediction == rows.label).to_numpy() for name, rows in by.items()}
    assert found.flips.negative.value == pytest.approx(100 * (right["old"] & ~right["new"]).mean())
    valid = {name: rows[rows.valid] for name, rows in by.items()}
    right = {name: (rows.prediction == rows.label).to_numpy() for name, rows in valid.items()}
    assert kinds(found)["perturbed"].positive.value == pytest.approx(100 * (right["new"] & ~right["old"]).mean())


def test_rows_of_anyone_are_real_images(finished_split):
    """No provenance, so no oracle: what they show is a matter of the images as they are."""
    rows = datasets.load_dataset(str(finished_split), "mnist", split="lenet").select_columns(["id", "image", "label"])
    found = diff_classifiers(OTHER, LENET, images=rows)
    assert [one.kind for one in found.evidence] == ["originals", "class"]
    assert found.verdict == "better"
    assert verdict_line(found).startswith("NEW is better: of ")


@pytest.mark.slow
def test_a_network_that_learnt_half_is_worse_and_the_reverse_fixed_more(finished_split):
    found = diff_classifiers(LENET, OTHER, images=str(finished_split), margin=2)
    assert found.verdict == "worse"
    assert [one.kind for one in found.evidence] == ["originals", "class", "perturbed", "class"]
    assert kinds(found)["originals"].is_worse
    suite = ElementTree.fromstring(to_junit(report_of(found)))
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "0")
    assert suite.find("testcase/failure").get("message").startswith("NEW is worse: of ")
    assert to_markdown(report_of(found), level=3).startswith("### a\\\\x1b\\<b\\>\\|c\n\nNEW is worse")
    assert diff_classifiers(OTHER, LENET, images=str(finished_split), margin=2).verdict == "better"


def test_one_network_against_itself_decides_nothing(finished_split, capsys, tmp_path):
    job = ["diff", "--images", finished_split, "--old", LENET, "--new", LENET, "--margin", "20", "-o", tmp_path]
    assert run(*job) == 2
    assert f"{LENET} is both old and new; name two" in capsys.readouterr().err
    job[6] = "{kind: lenet, checkpoint: 'asset:mnist/lenet/model.safetensors'}"
    assert run(*job) == 0
    assert "OLD and NEW are one network" in capsys.readouterr().out
    assert run(*job, "--strict") == 1
    suite = ElementTree.fromstring(to_junit(report_of(diff_classifiers(LENET, LENET, images=str(finished_split)))))
    assert suite.get("failures") == "1"


def test_bad_input(finished_split):
    with pytest.raises(UserError, match="classifier NEW"):
        diff_classifiers(LENET, torch.nn.Flatten(), images=str(finished_split))
    with pytest.raises(UserError, match="several trainings work on real images only"):
        diff_classifiers([LENET, OTHER], LENET, images=str(finished_split))
