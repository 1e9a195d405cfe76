"""Whether generators agree on a ranking: against scipy, and by simulation."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from commands import run
from fakes import ranked
from scipy.stats import kendalltau

from fmrgen.errors import UserError
from fmrgen.jobs.compare import variants
from fmrgen.recipe.job import load_oracles, load_recipe
from fmrgen.report.orders import agreement_report
from fmrgen.results.orders import _concordance, _tau, agreement, check_many_enough

APART = {"a": 0.8, "b": 0.6, "c": 0.4, "d": 0.2}


def test_the_same_order_agrees_and_the_opposite_does_not():
    random = np.random.default_rng(0)
    turned = dict(zip(APART, reversed(APART.values()), strict=True))
    found = agreement({"one": ranked(random, APART), "two": ranked(random, APART), "not": ranked(random, turned)})
    taus = {(pair.first, pair.second): pair.tau for pair in found.pairs}
    assert [taus["one", "two"].value, taus["one", "two"].low] == [1, 1]
    assert [taus["one", "not"].value, taus["two", "not"].high] == [-1, -1]
    assert found.concordance.value == pytest.approx(1 / 9)
    assert found.ranks() == [[1, 2, 3, 4], [1, 2, 3, 4], [4, 3, 2, 1]]
    (section,) = agreement_report(found).sections
    (table,) = section.tables
    assert table.header == ["classifier", "one", "two", "not"]
    assert table.rows[0][0] == "a"
    assert table.rows[0][3].startswith("4: ")
    assert "one – two: Kendall's tau 1.00 [1.00, 1.00]" in section.lines
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
    assert found.pairs[0].tau.value == pytest.approx(kendalltau(one, two).statistic)
    ranks = np.argsort(np.argsort([one, two], axis=1), axis=1).sum(0)
    assert found.concordance.value == pytest.approx(12 * ((ranks - ranks.mean()) ** 2).sum() / (4 * 120))


def test_ties_make_no_order_another_one():
    def signs(*columns):
        return np.stack([np.sign(np.subtract.outer(column, column)) for column in map(np.array, columns)])

    one, other = [100.0, 100.0, 50.0, 25.0], [90.0, 80.0, 70.0, 70.0]
    assert _tau(signs(one, one), signs(one, one)).value == pytest.approx(1)
    assert _tau(signs(one, [-v for v in one]), signs(one, one)).value == pytest.approx(-1)
    told = _tau(signs(one, other), signs(one, other))
    assert told.value == pytest.approx(kendalltau(one, other).statistic)
    assert _concordance(signs(one, one), signs(one, one)).value == pytest.approx(1)
    assert _tau(signs(one, [1] * 4), signs(one, [1] * 4)).value == 0


def test_w_is_between_what_the_told_pairs_leave_possible():
    """Four in one order under three generators; one of a pair is not told apart under one of them, then under all."""
    signs = np.stack([np.sign(np.subtract.outer(values, values)) for values in [np.arange(4.0)] * 3])
    certain = _concordance(signs, signs)
    assert (certain.low, certain.value, certain.high) == pytest.approx((1, 1, 1))
    told = signs.copy()
    told[0, 0, 1] = told[0, 1, 0] = 0
    turned = np.array([np.arange(4), np.arange(4), [1, 0, 2, 3]]) + 1
    sums = turned.sum(0)
    lowest = 12 * ((sums - sums.mean()) ** 2).sum() / (9 * 60)
    found = _concordance(signs, told)
    assert (found.low, found.high) == pytest.approx((lowest, 1))
    nothing = _concordance(signs, np.zeros_like(signs))
    assert (nothing.low, nothing.high) == pytest.approx((0, 1))


def test_who_keeps_its_order_and_who_changes_places_is_told():
    random = np.random.default_rng(6)
    shares = {"a": 0.8, "b": 0.5, "c": 0.48, "d": 0.2}
    turned = {"a": 0.2, "b": 0.5, "c": 0.48, "d": 0.3}
    found = agreement({"one": ranked(random, shares), "two": ranked(random, turned)})
    told = {(order.first, order.second): (order.above, order.below) for order in found.orders}
    assert told["a", "b"] == (["one"], ["two"])
    assert told["b", "c"] == ([], [])
    assert {(order.first, order.second) for order in found.kept} == {("b", "d"), ("c", "d")}
    assert agreement_report(found).sections[0].lines[-1] == (
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


@pytest.mark.nightly
def test_intervals_hold_the_truth():
    """Classifiers so close that chance orders them, or not so close: the intervals of tau and W hold 1, the truth, and
    no pair changes places that does not, in 95 % of studies or more."""
    random = np.random.default_rng(2)
    for apart in (0.001, 0.03, 0.08):
        close = {name: 0.6 - apart * number for number, name in enumerate("abcde")}
        held = 0
        for study in range(40):
            told = {name: ranked(random, close, rows=300) for name in ("one", "two", "three")}
            found = agreement(told, seed=study)
            held += all(estimate.high >= 1 for estimate in (found.pairs[0].tau, found.concordance)) and not any(
                order.turns for order in found.orders
            )
        assert held >= 36


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
    recipe = load_recipe("mnist-lenet")
    assert variants(recipe, ["search"])["search"].perturb == replace(recipe.perturb, update="nes")
    with pytest.raises(UserError, match="perturb.update is nes already"):
        variants(load_recipe("mnist-lenet", ["perturb.update=nes"]), ["search"])
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


@pytest.mark.slow
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
