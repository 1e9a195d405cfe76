"""Ways to train compared over several trainings: by hand, by simulation, and through the command."""

import json

import numpy as np
import pytest
from commands import run

from fmrgen import UserError
from fmrgen.evaluation.trainings import compare_trainings
from fmrgen.metrics.intervals import ratio_and_influence
from fmrgen.recipe.job import load_classifiers
from fmrgen.recipe.objects import each_training

NET = "{kind: lenet, num_classes: 10}"


def figures(random, trainings, spread, groups=2, rows=300, images_alike=0.5):
    """FMR of networks of `groups` kinds that are equal on average, an image's difficulty being shared by all."""
    difficulty = random.random(rows)
    fmr, named = {}, {}
    for group in range(groups):
        named[str(group)] = [f"{group}-{number}" for number in range(trainings)]
        for name in named[str(group)]:
            accuracy = 0.73 + random.normal(0, 0.987 * spread / 100)
            own = np.where(random.random(rows) < images_alike, difficulty, random.random(rows))
            valid, original = random.random(rows) < 0.9, random.random(rows) < 0.987
            fmr[name] = ratio_and_influence(own < accuracy, valid, original)
    return fmr, named


def test_without_trainings_there_is_nothing_to_tell():
    fmr, groups = figures(np.random.default_rng(0), 1, 0)
    assert compare_trainings(fmr, groups) is None
    assert compare_trainings(fmr, {}) is None
    assert compare_trainings(fmr, {"0": ["0-0", "1-0"]}) is None  # one kind is no comparison


def test_means_spread_and_differences_by_hand():
    """Without images' part, this is a t-test with a pooled variance: 4 trainings, of SD √2 and 2√2, 2 degrees."""
    none = np.zeros(10)
    fmr = {"a1": (70.0, none), "a2": (72.0, none), "b1": (60.0, none), "b2": (64.0, none)}
    found = compare_trainings(fmr, {"b": ["b1", "b2"], "a": ["a1", "a2"]})
    assert [(group.name, group.mean.value, group.fmr) for group in found.groups] == [
        ("a", 71, [70, 72]),
        ("b", 62, [60, 64]),
    ]
    assert found.spread.value == pytest.approx(5**0.5)
    (pair,) = found.differences
    assert (pair.first, pair.second, pair.fmr.value) == ("a", "b", 9)
    assert pair.fmr.high - 9 == pytest.approx(4.302653 * 5**0.5, rel=1e-6)
    assert [(group.best, group.worst) for group in found.groups] == [(1, 2), (1, 2)]  # 9.62 points are chance


def test_a_clear_difference_is_ranked_and_one_training_takes_the_spread_of_others():
    random = np.random.default_rng(0)
    none = np.zeros(10)
    fmr = {f"a{i}": (90 + random.normal(), none) for i in range(5)} | {"b": (60.0, none)}
    found = compare_trainings(fmr, {"a": [f"a{i}" for i in range(5)], "b": ["b"]})
    assert [(group.name, group.best, group.worst) for group in found.groups] == [("a", 1, 1), ("b", 2, 2)]
    assert found.groups[1].mean.low < 60 < found.groups[1].mean.high


@pytest.mark.parametrize(("trainings", "spread"), [(2, 3), (3, 0), (3, 6), (5, 3)])
def test_intervals_hold_the_truth(trainings, spread):
    """In 93 to 97 % of 400 studies, or more: images' part alone is not left out where trainings do not differ."""
    random, held, means = np.random.default_rng(trainings), 0, 0
    for _ in range(400):
        found = compare_trainings(*figures(random, trainings, spread))
        held += found.differences[0].fmr.low <= 0 <= found.differences[0].fmr.high
        means += found.groups[0].mean.low <= 100 * 0.73 / 0.987 <= found.groups[0].mean.high
    assert held >= 372
    assert means >= 368


def test_several_trainings_are_written_with_commas():
    named = load_classifiers(["a=asset:mnist/lenet,asset:mnist/lenet", f"b={NET}", f"c={NET},asset:mnist/lenet"])
    assert [isinstance(given, list) for given in named.values()] == [True, False, True]
    assert [*each_training(named)] == ["a-1", "a-2", "b", "c-1", "c-2"]
    assert each_training(named)["c-2"][1] == "c"
    with pytest.raises(UserError, match=r"several trainings need a name, NAME=asset:mnist/lenet,asset:mnist/lenet"):
        load_classifiers(["asset:mnist/lenet,asset:mnist/lenet"])
    with pytest.raises(UserError, match="a list means several trainings of it; give at least two"):
        each_training({"a": ["asset:mnist/lenet"]})
    with pytest.raises(UserError, match="two classifiers are called a-1"):
        each_training({"a-1": "asset:mnist/lenet", "a": ["asset:mnist/lenet", NET]})


@pytest.mark.slow
def test_compare_tells_of_trainings(tmp_path, capsys):
    gray = "{kind: lenet, checkpoint: 'asset:mnist/lenet/model.safetensors', channels: gray}"
    fused = "{kind: module, target: 'outside_components:LenetWithOracle'}"
    job = ["compare", "mnist-lenet", "-c", f"small=asset:mnist/lenet,{gray}", "-c", f"lenet={fused}", "--limit", "24"]
    capsys.readouterr()
    assert run(*job, "perturb.budget=3", "perturb.step_size=0.1", "-o", tmp_path / "out") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "What was trained, each training on its own split" in printed
    assert "lenet: one training, which is taken to vary as the others do" in printed
    assert "another training of the same architecture" not in printed
    told = json.loads((tmp_path / "out/comparison/evaluation.json").read_text())
    assert [entry["training_of"] for entry in told["classifiers"]] == ["small", "small", None]
    groups = told["own"]["trainings"]["groups"]
    assert {group["name"]: group["classifiers"] for group in groups} == {
        "small": ["small-1", "small-2"],
        "lenet": ["lenet"],
    }
    assert r"\\" not in (tmp_path / "out/comparison/evaluation.md").read_text()  # what is escaped is escaped once
    for name in ("report.html", "evaluation.md"):
        assert "hat was trained, each training on its own split" in (tmp_path / "out/comparison" / name).read_text()
