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

SHIFTED = "oracle.class_prompts={'0': five, '1': six, '2': seven, '3': eight, '4': nine, '5': zero, '6': one, '7': two}"
UNTRAINED = "oracle={kind: classifier, classifier: {kind: lenet}}"
CPU = torch.device("cpu")


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
    answers = first_outputs(load_recipe("mnist-lenet", ["source.limit=64", *changes]).build(), CPU)
    found = oracle_caution(answers)
    assert (found is None) == (told is None)
    assert told is None or told in found


def test_of_a_panel_the_member_that_fails_is_named():
    """As in a diff whose NEW has a veto: a better oracle would not help."""
    clip, worse = "{kind: clip, model: 'asset:mnist/clip'}", "{kind: classifier, classifier: {kind: lenet}}"
    panel = f"oracle={{kind: ensemble, rule: veto, names: [oracle, new], oracles: [{clip}, {worse}]}}"
    answers = first_outputs(load_recipe("mnist-lenet", ["source.limit=64", panel]).build(), CPU)
    found = oracle_caution(answers)
    assert re.search(r"of the first originals \(oracle on (9\d|100) %, new on \d+ %\) and the classifier on", found)
    assert "new has a veto, so each image that it gets wrong is invalid" in found
    assert "better oracle" not in found


def test_what_fails_in_it_is_left_to_the_job():
    components = load_recipe("mnist-lenet", ["source.limit=64"]).build()
    components.source.load = None
    assert first_outputs(components, CPU) is None


def test_it_is_told_when_a_split_begins_and_not_again(tmp_path, capsys):
    job = ("generate", "mnist-lenet", SHIFTED, "perturb.budget=1", "--limit", "60", "--output", tmp_path, "--quiet")
    assert run(*job) == 0
    assert capsys.readouterr().err.count("the first originals") == 1
    assert run(*job) == 0
    assert "the first originals" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("classifier", "oracle"),
    [
        ("asset:mnist/lenet", "{kind: classifier, classifier: 'asset:mnist/lenet'}"),
        (
            "asset:mnist/lenet",
            "{kind: ensemble, oracles: [{kind: classifier, classifier: 'asset:mnist/lenet'}, *CLIP]}",
        ),
        (
            "{kind: module, target: 'outside_components:LenetTwice'}",
            "{kind: classifier, classifier: 'asset:mnist/lenet'}",
        ),
        ("{kind: module, target: 'outside_components:OracleItself'}", None),
    ],
    ids=["the same", "a member", "in another module", "the oracle as classifier"],
)
def test_an_oracle_with_the_classifiers_weights_is_refused(tmp_path, classifier, oracle):
    changes = [f"classifier={classifier}", "source.limit=8"]
    if oracle is not None:
        changes.append("oracle=" + oracle.replace("*CLIP", json.dumps({"kind": "clip", "model": "asset:mnist/clip"})))
    with pytest.raises(UserError, match="^oracle: has the classifier's own weights, .* FMR would be 100"):
        make_split(load_recipe("mnist-lenet", changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_classifier_has_no_veto_over_itself(tmp_path, capsys):
    clip, lenet = "{kind: clip, model: 'asset:mnist/clip'}", "{kind: classifier, classifier: 'asset:mnist/lenet'}"
    panel = f"oracle={{kind: ensemble, rule: veto, oracles: [{clip}, {lenet}]}}"
    assert run("generate", "mnist-lenet", "--limit", 2, panel, "-o", tmp_path / "out") == 2
    assert "the classifier itself is among those that have a veto" in capsys.readouterr().err


@pytest.mark.slow
def test_a_classifier_with_the_oracle_in_it_is_told(tmp_path, notes):
    target = "{kind: module, target: 'outside_components:LenetWithOracle'}"
    recipe = load_recipe("mnist-lenet", [f"classifier={target}", "source.limit=8", "perturb.budget=1"])
    make_split(recipe, tmp_path / "out")
    assert any("are related: 100% of one's weights are in the other" in note for note in notes), notes


@pytest.mark.slow
def test_kinship_is_kept_and_shown_wherever_the_split_is_ranked(tmp_path, capsys):
    """Also after a resume, which asks nothing again; a split of an earlier version says nothing of it."""
    related = "{kind: module, target: 'outside_components:LenetWithOracle'}"
    job = ["source.limit=60", "perturb.budget=1", "output.shard_size=20"]
    recipes = {
        "lenet": load_recipe("mnist-lenet", [*job, "output.split=lenet"]),
        "kin": load_recipe("mnist-lenet", [*job, "output.split=kin", f"classifier={related}"]),
    }
    for recipe in recipes.values():
        make_split(recipe, tmp_path)
    paths = {split: tmp_path / f"provenance/mnist/{split}.json" for split in recipes}
    kinship = {split: json.loads(path.read_text())["kinship"] for split, path in paths.items()}
    assert kinship["lenet"] == {"weights": 0.0, "likeness": pytest.approx(0.3, abs=0.2)}
    assert kinship["kin"]["weights"] == 1.0
    next((tmp_path / "mnist").glob("kin-00001-of-*.parquet")).unlink()
    make_split(recipes["kin"], tmp_path)
    assert json.loads(paths["kin"].read_text())["kinship"] == kinship["kin"]

    splits = [f"{tmp_path}:mnist/{split}" for split in recipes]
    found = evaluate(splits, {"lenet": "asset:mnist/lenet", "kin": related}, progress=False)
    line = "classifier and oracle are related: 100% of one's weights are in the other"
    assert found.splits[0].related is None
    assert found.splits[1].related.startswith(line)
    assert found.splits[1].related in found.splits[1].notes
    assert any(line in warning for warning in warning_lines(found))
    assert "| kin (related to the oracle) |" in to_markdown(evaluation_report(found))
    assert (tmp_path / "README.md").read_text().count("classifier and oracle are related") == 1

    tree = json.loads(paths["kin"].read_text())
    del tree["kinship"]
    paths["kin"].write_text(json.dumps(tree))
    assert evaluate(splits[1], {"kin": related}, progress=False).splits[0].related is None
    assert "kinship" not in parse_provenance(tree, "kin").tree


def test_a_network_that_weighs_wrong_classes_as_the_oracle_does_is_told():
    """What a student takes from its teacher, whoever's weights it has: all but the oracle's own answers is LeNet's."""

    def likeness_of(classifier):
        components = load_recipe("mnist-lenet", [f"classifier={classifier}", "source.limit=256"]).build()
        return likeness(first_outputs(components, CPU))

    assert likeness_of("asset:mnist/lenet") < 0.5
    alike = likeness_of("{kind: module, target: 'outside_components:LenetWithOracle'}")
    assert alike > 0.7
    caution = kinship_caution(0.0, alike)
    assert f"they weigh the wrong classes alike (a correlation of {alike:.2f} or more" in caution


def test_few_originals_of_a_class_tell_nothing_of_likeness():
    target = "{kind: module, target: 'outside_components:LenetWithOracle'}"
    components = load_recipe("mnist-lenet", [f"classifier={target}", "source.limit=12"]).build()
    assert likeness(first_outputs(components, CPU)) is None


def test_strangers_share_nothing():
    networks = [parse_classifier(f"asset:mnist/{name}")[1].build() for name in ("lenet", "lenet")]
    torch.manual_seed(1)
    other = parse_classifier("{kind: lenet, num_classes: 10}")[1].build()
    assert shared_weights(networks[0], nn.Sequential(other, networks[1])) == 1
    assert shared_weights(nn.Sequential(other, networks[1]), networks[0]) == pytest.approx(0.5, abs=0.01)
    assert shared_weights(networks[0], other) == 0


def test_kinship_is_on_record_though_the_first_run_was_killed_before_its_first_shard(tmp_path):
    job = ("generate", "mnist-lenet", "perturb.budget=1", "--limit", "60", "--output", tmp_path, "--quiet")
    assert run(*job) == 0
    paths = SplitPaths(tmp_path, "mnist", "lenet")
    measured = read_provenance(paths).kinship
    assert measured is not None
    unfinish(paths, kinship=None)
    for shard in paths.found_shards():
        shard.unlink()
    assert run(*job) == 0
    assert read_provenance(paths).kinship == measured
