"""Whether generators agree on a ranking: against scipy, and by simulation."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from commands import run
from fakes import ranked
from scipy.stats import kendalltau, spearmanr

from fmrgen.errors import UserError
from fmrgen.jobs.compare import variants
from fmrgen.recipe.job import load_oracles, load_recipe
from fmrgen.report.orders import agreement_report
from fmrgen.results.orders import agreement, check_many_enough
from fmrgen.results.rank_correlation import rank_correlation

APART = {"a": 0.8, "b": 0.6, "c": 0.4, "d": 0.2}


def test_the_same_order_agrees_and_the_opposite_does_not():
    random = np.random.default_rng(0)
    turned = dict(zip(APART, reversed(APART.values()), strict=True))
    found = agreement({"one": ranked(random, APART), "two": ranked(random, APART), "not": ranked(random, turned)})
    taus = {(pair.first, pair.second): pair.kendall for pair in found.pairs}
    assert taus == {
        ("one", "two"): pytest.approx(1),
        ("one", "not"): pytest.approx(-1),
        ("two", "not"): pytest.approx(-1),
    }
    assert found.ranks() == [[1, 2, 3, 4], [1, 2, 3, 4], [4, 3, 2, 1]]
    (section,) = agreement_report(found).sections
    (table,) = section.tables
    assert table.header == ["classifier", "one", "two", "not"]
    assert table.rows[0][0] == "a"
    assert table.rows[0][3].startswith("4: ")
    assert section.lines[0] == "one – two: Kendall's tau 1.00 (p = 0.083), Spearman's rho 1.00"
    assert "all have one order: does not hold" in section.lines
    assert agreement({"one": ranked(random, APART), "two": ranked(random, APART)}).verdict == "holds"
    close = {"a": 0.8, "b": 0.5, "c": 0.49}
    assert agreement({"one": ranked(random, close), "two": ranked(random, close)}).verdict == "not decided"


def test_figures_are_those_of_scipy_over_the_images_in_common():
    random = np.random.default_rng(1)
    shares = dict.fromkeys("abcde", 0.5)
    first, second = ranked(random, shares), ranked(random, shares, ids=np.arange(100, 450))
    found = agreement({"one": first, "two": second})
    assert found.rows == 300

    def fmr(told, name):
        table = told.predictions.to_pandas()
        mine = table[(table.classifier == name) & table.id.between(100, 399)]
        accuracy = (mine.prediction == mine.label)[mine.valid].mean()
        return 100 * accuracy / (mine.original_prediction == mine.label).mean()

    one, two = ([fmr(told, name) for name in found.classifiers] for told in (first, second))
    assert [value.value for value in found.fmr[0]] == pytest.approx(one)
    (pair,) = found.pairs
    assert (pair.kendall, pair.spearman) == pytest.approx(
        (kendalltau(one, two).statistic, spearmanr(one, two).statistic)
    )


def test_equal_figures_are_no_order():
    def correlation(one, other):
        values = {"one": one, "other": other}
        return rank_correlation("one", "other", {name: dict(enumerate(figures)) for name, figures in values.items()})

    tied, other = [100.0, 100.0, 50.0, 25.0], [90.0, 80.0, 70.0, 70.0]
    assert correlation(tied, tied).kendall == pytest.approx(1)
    assert correlation(tied, [-value for value in tied]).kendall == pytest.approx(-1)
    assert correlation(tied, other).kendall == pytest.approx(kendalltau(tied, other).statistic)
    same = correlation(tied, [1.0] * 4)
    assert (same.kendall, same.spearman, same.p_value) == (0, 0, 1)
    assert correlation(tied[1:], other).classifiers == [0, 1, 2]


@pytest.mark.parametrize("classifiers", [3, 4, 5, 6, 9, 30])
@pytest.mark.parametrize("levels", [4, 10_000])
def test_p_values_are_seldom_small_where_measures_have_nothing_in_common(classifiers, levels):
    """In 5 % of cases or fewer; with ties, which few levels make, in hardly more."""
    random = np.random.default_rng(0)
    small = 0
    for _ in range(400):
        one, other = random.integers(levels, size=(2, classifiers))
        pair = {"one": dict(enumerate(one)), "other": dict(enumerate(other))}
        small += rank_correlation("one", "other", pair).p_value <= 0.05
    assert small <= 0.08 * 400  # 20 are 5 %, and 32 are 2.8 deviations more


def test_who_keeps_its_order_and_who_changes_places_is_told():
    random = np.random.default_rng(6)
    shares = {"a": 0.8, "b": 0.5, "c": 0.48, "d": 0.2}
    turned = {"a": 0.2, "b": 0.5, "c": 0.48, "d": 0.3}
    found = agreement({"one": ranked(random, shares), "two": ranked(random, turned)})
    told = {(order.first, order.second): (order.above, order.below) for order in found.orders}
    assert told["a", "b"] == (["one"], ["two"])
    assert told["b", "c"] == ([], [])
    assert {(order.first, order.second) for order in found.kept} == {("b", "d"), ("c", "d")}
    assert agreement_report(found).conclusions[0] == (
        "of 6 pairs of classifiers 2 keep their order under all 2 (b over d, c over d), 3 change places "
        "(a is above b under one and below under two; a is above c under one and below under two; a is above d under "
        "one and below under two); not told apart under all by these 400 images: 1"
    )


def test_a_classifier_that_is_always_fooled_has_an_interval_all_the_same():
    random = np.random.default_rng(4)
    told = {name: ranked(random, {**APART, "e": 0.0}, rows=100) for name in ("one", "two")}
    found = agreement(told)
    never = found.fmr[0][found.classifiers.index("e")]
    assert never.value == never.low == 0
    assert 1 < never.high < 10


@pytest.mark.parametrize("apart", [0.001, 0.03])
def test_orders_hold_the_truth(apart):
    """Classifiers so close that chance orders them, or not so close: none is reported the wrong way round, nor to
    change places, in 95 % of studies or more."""
    random = np.random.default_rng(2)
    close = {name: 0.6 - apart * number for number, name in enumerate("abcde")}
    held = 0
    for study in range(20):
        told = {name: ranked(random, close, rows=300) for name in ("one", "two", "three")}
        found = agreement(told, seed=study)
        held += not any(order.below or order.turns for order in found.orders)
    assert held >= 18


def test_what_can_not_be_compared():
    random = np.random.default_rng(3)
    one = ranked(random, APART)
    for told, message in (
        ({"one": one}, "an agreement needs at least two"),
        ({"one": one, "two": ranked(random, {"a": 0.5, "b": 0.4})}, "rankings of 2 can't be compared"),
        ({"one": one, "two": ranked(random, APART, ids=np.arange(1000, 1400))}, "no images in common"),
    ):
        with pytest.raises(UserError, match=message):
            agreement(told)
    other = ranked(random, APART)
    labels = pa.array(np.ones(len(other.predictions), int))
    other = replace(other, predictions=other.predictions.set_column(3, "label", labels))
    with pytest.raises(UserError, match="have different labels for the same ids"):
        agreement({"one": one, "two": other})
    check_many_enough(2, 3)


def test_what_a_ranking_is_to_be_robust_to():
    recipe = load_recipe("_mnist")
    assert variants(recipe, ["search"])["search"].perturb == replace(recipe.perturb, update="nes")
    with pytest.raises(UserError, match="perturb.update is nes already"):
        variants(load_recipe("_mnist", ["perturb.update=nes"]), ["search"])
    found = variants(recipe, ["step", "threshold"])
    assert {name: (made.perturb.step_size, made.perturb.min_probability) for name, made in found.items()} == {
        "as_it_is": (0.03, 0.915),
        "half_step": (0.015, 0.915),
        "double_step": (0.06, 0.915),
        "stricter": (0.03, 0.9575),
    }
    assert found["as_it_is"] is recipe
    other = load_oracles(["lookout=mnist-transform", "half_step={kind: reference, model: asset:mnist/lenet}"])
    found = variants(recipe, [], other)
    assert {name: made.oracle.kind for name, made in found.items()} == {
        "as_it_is": "clip",
        "lookout": "clip",
        "half_step": "reference",
    }
    with pytest.raises(UserError, match="oracles: half_step is a variant's name; choose another one"):
        variants(recipe, ["step"], other)
    with pytest.raises(UserError, match=r"unknown robust_to, did you mean step\?"):
        variants(recipe, ["steps"])


@pytest.mark.nightly
def test_compare_tells_whether_the_order_holds(tmp_path, capsys):
    nets = ["lenet=asset:mnist/lenet", "gray={kind: lenet, checkpoint: 'asset:mnist/lenet/model.safetensors'}"]
    few = ["--limit", "16", "perturb.budget=1", "perturb.step_size=0.1"]
    job = [
        "compare",
        "mnist-lenet",
        *few,
        "-c",
        nets[0],
        "-c",
        nets[1],
        "--robust-to",
        "threshold",
        "--oracle",
        "second=asset:mnist/clip",
        "-o",
        tmp_path / "out",
    ]
    assert run(*job) == 2
    assert "rankings of 2 can't be compared" in capsys.readouterr().err
    assert run(*job, "-c", "fused={kind: module, target: 'outside_components:LenetWithOracle'}") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "classifier as_it_is stricter second" in printed
    assert "of 3 pairs of classifiers" in printed
    assert "keep their order under all 3" in printed
    told = json.loads((tmp_path / "out/agreement.json").read_text())
    assert told["generators"] == ["as_it_is", "stricter", "second"]
