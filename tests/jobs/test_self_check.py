"""The one line at the start of a job whose oracle does not know the images, or is kin of the classifier."""

import json
import re

import pytest
import torch
from commands import run
from stored import unfinish
from torch import nn

from fmrgen import UserError, evaluate, load_recipe
from fmrgen.jobs.generate import make_split
from fmrgen.jobs.self_check import first_outputs, likeness, oracle_caution
from fmrgen.metrics.cautions import kinship_caution
from fmrgen.recipe.job import parse_classifier
from fmrgen.report.markdown import to_markdown
from fmrgen.report.outline import evaluation_report
from fmrgen.report.tables import warning_lines
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import parse_provenance, read_provenance
from fmrgen.weights.digest import shared_weights

LENET, CLIP = "{kind: classifier, classifier: 'asset:mnist/lenet'}", "{kind: clip, model: 'asset:mnist/clip'}"
SHIFTED = "oracle.class_prompts={'0': five, '1': six, '2': seven, '3': eight, '4': nine, '5': zero, '6': one, '7': two}"
RELATED = "{kind: module, target: 'outside_components:LenetWithOracle'}"
UNTRAINED = "oracle={kind: classifier, classifier: {kind: lenet}}"
CPU = torch.device("cpu")


def outputs(*changes, limit=64):
    return first_outputs(load_recipe("mnist-lenet", [f"source.limit={limit}", *changes]).build(), CPU)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([], None),
        ([UNTRAINED], "no more than by chance (10 %): are its weights and tokenizer the right ones"),
        ([SHIFTED], "the oracle is right on"),
    ],
)
def test_an_oracle_that_does_not_know_the_images_is_told(changes, told):
    torch.manual_seed(0)  # one untrained network in some is right more often than chance
    caution = oracle_caution(outputs(*changes))
    assert caution is None if told is None else told in caution


def test_of_a_panel_the_member_that_fails_is_named():
    """As in a diff whose NEW has a veto: a better oracle would not help."""
    members = f"[{CLIP}, {UNTRAINED.removeprefix('oracle=')}]"
    found = oracle_caution(outputs(f"oracle={{kind: ensemble, rule: veto, names: [oracle, new], oracles: {members}}}"))
    assert re.search(r"of the first originals \(oracle on (9\d|100) %, new on \d+ %\) and the classifier on", found)
    assert "new has a veto, so each image that it gets wrong is invalid" in found
    assert "better oracle" not in found


def test_what_fails_in_it_is_left_to_the_job():
    components = load_recipe("mnist-lenet", ["source.limit=64"]).build()
    components.source.load = None
    assert first_outputs(components, CPU) is None


def test_it_is_told_when_a_split_begins_and_not_again(tmp_path, capsys):
    """Kinship is on record though the first run was killed before its first shard."""
    job = ("generate", "mnist-lenet", SHIFTED, "perturb.budget=1", "--limit", "60", "--output", tmp_path, "--quiet")
    assert run(*job) == 0
    assert capsys.readouterr().err.count("the first originals") == 1
    assert run(*job) == 0
    assert "the first originals" not in capsys.readouterr().err
    paths = SplitPaths(tmp_path, "mnist", "lenet")
    measured = read_provenance(paths).kinship
    assert measured is not None
    unfinish(paths, kinship=None)
    for shard in paths.found_shards():
        shard.unlink()
    assert run(*job) == 0
    assert read_provenance(paths).kinship == measured


@pytest.mark.parametrize(
    ("classifier", "oracle"),
    [
        ("asset:mnist/lenet", LENET),
        ("asset:mnist/lenet", f"{{kind: ensemble, oracles: [{LENET}, {CLIP}]}}"),
        ("{kind: module, target: 'outside_components:LenetTwice'}", LENET),
        ("{kind: module, target: 'outside_components:OracleItself'}", None),
    ],
    ids=["the same", "a member", "in another module", "the oracle as classifier"],
)
def test_an_oracle_with_the_classifiers_weights_is_refused(tmp_path, classifier, oracle):
    changes = [f"classifier={classifier}", "source.limit=8", *([] if oracle is None else [f"oracle={oracle}"])]
    with pytest.raises(UserError, match="^oracle: has the classifier's own weights, .* FMR would be 100"):
        make_split(load_recipe("mnist-lenet", changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_classifier_has_no_veto_over_itself(tmp_path, capsys):
    panel = f"oracle={{kind: ensemble, rule: veto, oracles: [{CLIP}, {LENET}]}}"
    assert run("generate", "mnist-lenet", "--limit", 2, panel, "-o", tmp_path / "out") == 2
    assert "the classifier itself is among those that have a veto" in capsys.readouterr().err


@pytest.mark.slow
def test_kinship_is_told_kept_and_shown_wherever_the_split_is_ranked(tmp_path, notes):
    """Also after a resume, which asks nothing again; a split of an earlier version says nothing of it."""
    job = ["source.limit=60", "perturb.budget=1", "output.shard_size=20"]
    recipes = {
        "lenet": load_recipe("mnist-lenet", [*job, "output.split=lenet"]),
        "kin": load_recipe("mnist-lenet", [*job, "output.split=kin", f"classifier={RELATED}"]),
    }
    line = "classifier and oracle are related: 100% of one's weights are in the other"
    make_split(recipes["lenet"], tmp_path)
    assert not any(line in note for note in notes)
    make_split(recipes["kin"], tmp_path)
    assert any(line in note for note in notes), notes
    paths = {split: tmp_path / f"provenance/mnist/{split}.json" for split in recipes}
    kinship = {split: json.loads(path.read_text())["kinship"] for split, path in paths.items()}
    assert kinship["lenet"] == {"weights": 0.0, "likeness": pytest.approx(0.3, abs=0.2)}
    assert kinship["kin"]["weights"] == 1.0
    next((tmp_path / "mnist").glob("kin-00001-of-*.parquet")).unlink()
    make_split(recipes["kin"], tmp_path)
    assert json.loads(paths["kin"].read_text())["kinship"] == kinship["kin"]

    splits = [f"{tmp_path}:mnist/{split}" for split in recipes]
    found = evaluate(splits, {"lenet": "asset:mnist/lenet", "kin": RELATED}, progress=False)
    assert found.splits[0].related is None
    assert found.splits[1].related.startswith(line)
    assert found.splits[1].related in found.splits[1].notes
    assert any(line in warning for warning in warning_lines(found))
    assert "| kin (related to the oracle) |" in to_markdown(evaluation_report(found))
    assert (tmp_path / "README.md").read_text().count("classifier and oracle are related") == 1

    tree = json.loads(paths["kin"].read_text())
    del tree["kinship"]
    paths["kin"].write_text(json.dumps(tree))
    assert evaluate(splits[1], {"kin": RELATED}, progress=False).splits[0].related is None
    assert "kinship" not in parse_provenance(tree, "kin").tree


def test_a_network_that_weighs_wrong_classes_as_the_oracle_does_is_told():
    """What a student takes from its teacher, whoever's weights it has: all but the oracle's own answers is LeNet's.

    Few originals of a class tell nothing of it.
    """
    assert likeness(outputs(limit=256)) < 0.5
    assert likeness(outputs(f"classifier={RELATED}", limit=12)) is None
    alike = likeness(outputs(f"classifier={RELATED}", limit=256))
    assert alike > 0.7
    caution = kinship_caution(0.0, alike)
    assert f"they weigh the wrong classes alike (a correlation of {alike:.2f} or more" in caution


def test_strangers_share_nothing():
    networks = [parse_classifier(f"asset:mnist/{name}")[1].build() for name in ("lenet", "lenet")]
    torch.manual_seed(1)
    other = parse_classifier("{kind: lenet, num_classes: 10}")[1].build()
    assert shared_weights(networks[0], nn.Sequential(other, networks[1])) == 1
    assert shared_weights(nn.Sequential(other, networks[1]), networks[0]) == pytest.approx(0.5, abs=0.01)
    assert shared_weights(networks[0], other) == 0
