"""Panels: their rules, the literal algorithm under each, and their members' verdicts in a split's rows."""

import shutil
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import launched, run
from fakes import COUNT, Fixture, Identity
from installed import needs_app
from places import SUPPORT
from small_models import LABELS, smooth_images, tiny_network
from stored import assert_same_rows, rows
from torch import nn

import fmrgen
from fmrgen import Judgement, Originals, UserError, load_recipe, verify
from fmrgen.engine.interfaces import NONE, Oracle
from fmrgen.jobs.generate import make_split
from fmrgen.oracles.classifier import ClassifierOracle
from fmrgen.oracles.ensemble import Config, EnsembleOracle

CLIP = {"kind": "clip", "model": "asset:mnist/clip"}
LENET = {"kind": "classifier", "classifier": "asset:mnist/lenet"}
RULES = ("mean", "majority", "unanimous", "veto")


class Says(Oracle):
    """Sees what it was told, surely."""

    def __init__(self, *labels):
        self.labels = torch.tensor(labels)

    def judge(self, images, originals=None):
        sure = nn.functional.one_hot(self.labels.clamp(min=0), 3).float()
        return Judgement(sure, -sure, self.labels)


def decided(rule, *members, weights=None):
    panel = EnsembleOracle([Says(*labels) for labels in members], list("abcd")[: len(members)], rule, weights)
    return panel.judge(torch.zeros(len(members[0]), 3, 2, 2)).decided.tolist()


def test_each_rule_decides_as_it_says():
    members = (0, 0, 1), (0, 1, 2), (0, 1, NONE)
    assert decided("majority", *members) == [0, 1, NONE]
    assert decided("unanimous", *members) == [0, NONE, NONE]
    assert decided("mean", *members)[:2] == [0, 1]
    assert decided("majority", (0,), (1,)) == [NONE]  # half is no majority
    assert decided("majority", (0,), (1,), weights=[1, 1.5]) == [1]
    assert decided("majority", (0,), (1,), (1,), weights=[3, 1, 1]) == [0]
    assert decided("unanimous", *[(2,)] * 3, weights=[0.1, 0.2, 0.7]) == [2]
    assert decided("majority", (NONE,), (NONE,), (1,)) == [NONE]
    assert decided("veto", *members) == [0, NONE, NONE]
    assert decided("veto", (0,), (NONE,)) == [NONE]


def test_with_a_veto_the_first_ones_probabilities_and_scores_are_the_panels():
    images = smooth_images(5)
    first, second = (ClassifierOracle(tiny_network(seed)) for seed in (1, 2))
    judgement = EnsembleOracle([first, second], ("a", "b"), "veto").judge(images)
    assert torch.equal(judgement.probabilities, first.judge(images).probabilities)
    assert torch.equal(judgement.score, first.judge(images).score)
    agree = first.judge(images).decided == second.judge(images).decided
    assert torch.equal(judgement.decided, first.judge(images).decided.masked_fill(~agree, NONE))
    assert Config(oracles=[CLIP, LENET], rule="veto").is_image_text
    assert not Config(oracles=[LENET, CLIP], rule="veto").is_image_text


def test_a_mean_is_weighted_and_scores_of_several_kinds_are_not_mixed():
    images = smooth_images(5)
    networks = [ClassifierOracle(tiny_network(seed)) for seed in (1, 2)]
    one, other = (member.judge(images).probabilities for member in networks)
    panel = EnsembleOracle(networks, ("a", "b"), weights=[3, 1])
    judgement = panel.judge(images)
    torch.testing.assert_close(judgement.probabilities, 0.75 * one + 0.25 * other)
    assert judgement.score.equal(judgement.probabilities)
    assert list(judgement.members) == ["a", "b"]
    assert judgement.members["a"].probabilities.equal(one)


def test_members_are_called_by_their_models():
    named = Config(oracles=[CLIP, CLIP, {**CLIP, "prompts": ["{class}"]}, LENET])
    assert named.build().member_names == ("clip-1", "clip-2", "clip-3", "model.safetensors")
    assert Config(oracles=[CLIP, LENET], names=["clip", "lenet"]).build().member_names == ("clip", "lenet")
    for keys, error in (
        ({"weights": [1.0]}, "weights has 1 entries for 2 oracles"),
        ({"names": ["a", "a"]}, "two names are the same"),
        ({"weights": [1.0, 0.0]}, "greater than 0"),
        ({"weights": [1, 2], "rule": "veto"}, "a veto has none"),
    ):
        with pytest.raises(ValueError, match=error):
            Config(oracles=[CLIP, LENET], **keys)


class NearOriginal(Oracle):
    """Sees the original's label where an image is near the original, else none of the classes."""

    needs_originals = True

    def judge(self, images, originals=None):
        near = 1 - (images - originals.images).abs().flatten(1).mean(1) * 20
        score = near.new_zeros(len(images), LABELS).scatter(1, originals.labels[:, None], near[:, None])
        return Judgement(score.clamp(min=0), score, originals.labels.masked_fill(near < 0.5, NONE))


@pytest.mark.parametrize("rule", RULES)
def test_the_engine_equals_the_literal_algorithm_under_a_panel(double, rule):
    other = tiny_network(2)
    for weights in other.parameters():
        weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)), alpha=0.03)
    members = [ClassifierOracle(tiny_network(2)), ClassifierOracle(other), NearOriginal()]
    setting = Fixture(Identity(), 0.02, EnsembleOracle(members, ("one", "two", "near"), rule))
    found = {slots: setting.engine(slots=slots) for slots in (1, 3, COUNT)}
    for i, row in found[3].items():
        literal = setting.reference(i)
        assert (row.valid, row.iterations, row.stop_reason) == (literal.valid, literal.iterations, literal.stop_reason)
        assert torch.equal(row.image, literal.image)
        originals = Originals(row.original.double()[None] / 255, torch.tensor([row.label]))
        judgement = setting.oracle.judge(row.image.double()[None] / 255, originals)
        assert row.member_labels == [member.decided.item() for member in judgement.members.values()]
        scores = [member.score[0, row.label].item() for member in judgement.members.values()]
        assert row.member_scores == pytest.approx(scores, abs=1e-9)
        if row.valid:
            assert judgement.decided.item() == row.label == row.oracle_label
        for others in found.values():
            assert torch.equal(others[i].image, row.image)
            assert others[i].member_labels == row.member_labels
    reasons = Counter(row.stop_reason.value for row in found[3].values())
    assert reasons["oracle"] > COUNT / 8 or rule == "mean"  # there a sure reference outweighs two that are not


PANEL = (
    "oracle={kind: ensemble, rule: majority, names: [clip, lenet, again], oracles: [{kind: clip, model: 'asset:"
    "mnist/clip'}, {kind: classifier, classifier: 'asset:mnist/lenet'}, {kind: clip, model: 'asset:mnist/clip', "
    "prompts: ['{class}']}]}"
)
CLASSIFIER = "classifier={kind: module, target: 'outside_components:SmallNet'}"
OPTIONS = ("perturb.min_probability=0.0", "perturb.budget=12", "output.shard_size=10", "--limit", "30")
JOB = ("mnist-lenet", PANEL, CLASSIFIER, *OPTIONS)


@pytest.fixture(scope="module")
def panel_split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panel") / "out"
    assert run("generate", *JOB, "--output", folder, "--quiet") == 0
    return folder


@pytest.mark.slow
def test_a_panels_verdicts_are_in_the_rows_and_true(panel_split):
    verification = verify(f"{panel_split}:mnist/lenet", trust=True)
    assert (verification.rows, verification.disagreements) == (30, [])
    stored = rows(panel_split)
    names = {tuple(verdict["name"] for verdict in row["judges"]) for row in stored.values()}
    assert names == {("clip", "lenet", "again")}
    for row in stored.values():
        seen = Counter(verdict["label"] for verdict in row["judges"])
        label, votes = seen.most_common(1)[0]
        assert row["oracle_label"] == (label if votes >= 2 else NONE)
        assert row["valid"] == (row["iterations"] > 0)
    assert len({verdict["label"] for row in stored.values() for verdict in row["judges"]}) > 3


@needs_app("judging")
def test_a_member_is_no_second_opinion_on_the_panels_split(panel_split, tmp_path):
    shutil.copytree(panel_split, tmp_path / "out")
    (found,) = fmrgen.judge(str(tmp_path / "out"), ["one=asset:mnist/clip"], progress=False)
    assert found.shares_weights_with == ["the split's own oracle"]


@pytest.mark.slow
def test_two_processes_make_the_same_rows_of_a_panel(panel_split, tmp_path):
    for done in launched(2, "generate", *JOB, "--output", tmp_path / "two", "--quiet", PYTHONPATH=str(SUPPORT)):
        assert done.returncode == 0, done.stderr
    assert_same_rows(rows(tmp_path / "two"), rows(panel_split))


def test_a_changed_verdict_is_found(panel_split, tmp_path):
    shutil.copytree(panel_split, tmp_path / "out")
    shard = sorted((tmp_path / "out/mnist").glob("*.parquet"))[0]
    table = pq.read_table(shard)
    judges = table["judges"].to_pylist()
    judges[0][0]["label"] = (judges[0][0]["label"] + 1) % 10
    judges[1][2]["score"] += 0.01
    judges[2] = judges[2][:2]
    place = table.schema.get_field_index("judges")
    pq.write_table(table.set_column(place, "judges", pa.array(judges, table.schema.field(place).type)), shard)
    found = verify(f"{tmp_path / 'out'}:mnist/lenet", trust=True).disagreements
    told = {entry.id: entry.column for entry in found}
    assert told == {0: "judges: label of clip", 1: "judges: score of again", 2: "judges"}
    assert len(found) == 3


def test_originals_that_are_not_stored_leave_nothing_to_compare_with(tmp_path):
    oracle = "oracle={kind: 'outside_components:ComparingConfig'}"
    few = ["output.keep_original=false", "source.limit=4", "perturb.budget=2"]
    make_split(load_recipe("mnist-lenet", [oracle, *few]), tmp_path)
    no_originals = r"has no originals \(output.keep_original\), and its oracle compares with them"
    with pytest.raises(UserError, match=no_originals):
        verify(f"{tmp_path}:mnist/lenet", trust=True)
