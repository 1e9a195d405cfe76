"""What else stands out in a diff: on the page, in the JSON, after the verdict, and from networks that are broken so."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fmrgen import diff, load_recipe
from fmrgen.apps.release.confusions import Confusion
from fmrgen.apps.release.diff_report import diff_report, verdict_line
from fmrgen.apps.release.remedies import Remedy
from fmrgen.apps.release.traits import Trait

REMEDY = Remedy("blurred images", 300, 70.0, 86.0, 97.0, 77.0, 1e-6)
CONFUSION = Confusion("cat", "dog", 30, 28, 1, 20.0, 1e-5)
TRAIT = Trait("darker images", 82.0, 0.01, 40, 12)
JOB = ["source.limit=240", "perturb.budget=1", "perturb.step_size=0.1", "output.shard_size=60"]


@pytest.fixture
def outcome():
    labels = np.arange(100) % 2
    new = labels.copy()
    new[:30] = 1 - new[:30]
    return replace(diff(labels, new, labels), remedies=[REMEDY], confusions=[CONFUSION], traits=[TRAIT])


def test_what_explains_all_errors_comes_first_and_all_is_on_the_page(outcome):
    assert outcome.hints == [REMEDY, CONFUSION, TRAIT]
    assert verdict_line(outcome).endswith(f"; {REMEDY.phrase}")
    report = diff_report(outcome, "old → new", {"OLD": "a", "NEW": "b"})
    section = next(section for section in report.sections if section.title == "What else stands out")
    assert section.lines == [REMEDY.line, CONFUSION.line, TRAIT.line]
    tree = json.loads(json.dumps(report.data, default=str))
    assert tree["confusions"][0]["other"] == "dog"
    assert tree["remedies"][0]["new_after"] == 86


def test_a_doubt_follows_a_verdict_that_nothing_was_found(outcome):
    alike = diff(np.arange(100) % 2, np.arange(100) % 2, np.arange(100) % 2)
    assert verdict_line(alike) == verdict_line(replace(alike, remedies=[]))
    line = verdict_line(replace(alike, verdict="undecided", confusions=[CONFUSION]))
    assert line.endswith("; NEW may mix up cat and dog")


@pytest.mark.slow
def test_a_network_that_sees_mirrored_images_is_mended_by_a_mirror(tmp_path):
    recipe = load_recipe("mnist-lenet", JOB)
    compared = diff("asset:mnist/lenet", "broken_networks:Mirrored", recipe=recipe, output=tmp_path / "out")
    assert compared.remedies[0].words == "left and right exchanged"
    assert compared.remedies[0].new_after == pytest.approx(compared.remedies[0].old_before)
    assert compared.confusions == []


@pytest.mark.slow
def test_threes_that_are_nearly_sevens_are_doubted_though_no_answer_is_wrong(tmp_path):
    recipe = load_recipe("mnist-lenet", JOB)
    compared = diff("asset:mnist/lenet", "broken_networks:NearlySeven", recipe=recipe, output=tmp_path / "out")
    assert (compared.flips.broke.value, compared.remedies, compared.traits) == (0, [], [])
    assert [(confusion.label, confusion.other) for confusion in compared.confusions] == [("3", "7")]
