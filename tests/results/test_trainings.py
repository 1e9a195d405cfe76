"""Ways to train compared over several trainings: by hand, by simulation, and through the command."""

import json

import numpy as np
import pytest
from commands import run
from scipy.special import stdtrit

from benchmarks.coverage import covers, kinds_alike
from fmrgen import UserError, read_figures
from fmrgen.recipe.job import load_classifiers
from fmrgen.recipe.objects import each_training
from fmrgen.results.trainings import compare_trainings

NET = "{kind: lenet, num_classes: 10}"


def test_without_trainings_there_is_nothing_to_tell():
    fmr, groups = kinds_alike(np.random.default_rng(0), [1, 1], [0, 0])
    assert compare_trainings(fmr, groups) is None
    assert compare_trainings(fmr, {}) is None
    assert compare_trainings(fmr, {"0": ["0-0", "1-0"]}) is None  # one kind is no comparison


def test_means_deviations_and_differences_by_hand():
    """Without images' part, this is Welch's t-test: 4 trainings, of variances 2 and 8, 25 / 17 degrees of freedom."""
    none = np.zeros(10)
    fmr = {"a1": (70.0, none), "a2": (72.0, none), "b1": (60.0, none), "b2": (64.0, none)}
    found = compare_trainings(fmr, {"b": ["b1", "b2"], "a": ["a1", "a2"]})
    of_groups = [(group.name, group.mean.value, group.fmr) for group in found.groups]
    assert of_groups == [("a", 71, [70, 72]), ("b", 62, [60, 64])]
    assert [group.deviation for group in found.groups] == pytest.approx([2**0.5, 8**0.5])
    assert found.groups[0].mean.high - 71 == pytest.approx(12.7062, rel=1e-5)  # t of one degree, SD 1
    (pair,) = found.differences
    assert (pair.first, pair.second, pair.fmr.value) == ("a", "b", 9)
    assert pair.fmr.high - 9 == pytest.approx(stdtrit(25 / 17, 0.975) * 5**0.5, rel=1e-6)
    assert [(group.best, group.worst) for group in found.groups] == [(1, 2), (1, 2)]


def test_one_training_has_neither_interval_nor_rank():
    random, none = np.random.default_rng(0), np.zeros(10)
    fmr = {f"{kind}{i}": (top + random.normal(), none) for kind, top in (("a", 90), ("c", 50)) for i in range(5)}
    fmr |= {"b": (60.0, none)}
    several = {kind: [f"{kind}{i}" for i in range(5)] for kind in "ac"}
    found = compare_trainings(fmr, {**several, "b": ["b"]})
    ranks = [(group.name, group.best, group.worst) for group in found.groups]
    assert ranks == [("a", 1, 1), ("b", None, None), ("c", 2, 2)]
    assert (found.groups[1].mean.low, found.groups[1].deviation) == (None, None)
    assert [pair.fmr.low is None for pair in found.differences] == [True, False, True]  # a – b, a – c, b – c
    alone = compare_trainings(fmr, {"a": several["a"], "b": ["b"]})
    assert [group.best for group in alone.groups] == [None, None]
    assert alone.groups[0].mean.low < 90 < alone.groups[0].mean.high


@pytest.mark.parametrize(
    ("trainings", "spreads"),
    [
        *[([2, 2], [3, 3]), ([3, 3], [0, 0]), ([3, 3], [6, 6])],
        *[([5, 2], [1, 8]), ([5, 1], [1, 8]), ([5, 5, 1], [1, 1, 8]), ([3, 3, 3, 3], [1, 1, 1, 8])],
    ],
)
def test_intervals_hold_the_truth_and_ranks_too(trainings, spreads):
    """In 93 % of 400 studies or more, also where one kind is steady and another wild."""
    random = np.random.default_rng(0)
    differences, means, false_ranks = [], [], 0
    for _ in range(400):
        found = compare_trainings(*kinds_alike(random, trainings, spreads))
        differences += [covers(pair.fmr, 0) for pair in found.differences if pair.fmr.low is not None]
        means += [covers(group.mean, 100 * 0.73 / 0.987) for group in found.groups if group.mean.low is not None]
        ranks = [(group.best, group.worst) for group in found.groups if group.best is not None]
        false_ranks += any(rank != (1, len(ranks)) for rank in ranks)
    assert not differences or np.mean(differences) >= 0.93
    assert np.mean(means) >= 0.93
    assert false_ranks <= 0.07 * 400


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
    assert run(*job, "perturb.budget=3", "perturb.step_size=0.1", "-o", tmp_path / "out", "--all") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "What was trained, each training on its own split" in printed
    assert "lenet: one training does not show how far trainings vary, so it gets no rank" in printed
    assert "another training of the same architecture" not in printed
    told = json.loads((tmp_path / "out/comparison/evaluation.json").read_text())
    assert [entry["training_of"] for entry in told["classifiers"]] == ["small", "small", None]
    groups = {group["name"]: group["classifiers"] for group in told["own"]["trainings"]["groups"]}
    assert groups == {"small": ["small-1", "small-2"], "lenet": ["lenet"]}
    assert r"\\" not in (tmp_path / "out/comparison/evaluation.md").read_text()  # what is escaped is escaped once
    for name in ("report.html", "evaluation.md"):
        assert "hat was trained, each training on its own split" in (tmp_path / "out/comparison" / name).read_text()
    header, _, *rows = read_figures(tmp_path / "out/comparison/evaluation.json").to_markdown().splitlines()
    assert header == "| trainings of | trainings | mean FMR | standard deviation |"
    assert sorted(row.split(" | ")[1] for row in rows) == ["1", "2"]
