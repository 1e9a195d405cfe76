"""Whether generators agree on a ranking: against scipy, and by simulation."""

import numpy as np
import pyarrow as pa
import pytest
from fakes import ranked
from scipy.stats import kendalltau

from fmrgen.errors import UserError
from fmrgen.evaluation.agreement import _concordance, _taus, agreement, check_many_enough
from fmrgen.report.agreement import agreement_lines, agreement_table

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
    assert agreement_table(found).header == ["classifier", "one", "two", "not"]
    assert agreement_table(found).rows[0][0] == "a"
    assert agreement_table(found).rows[0][3].startswith("4: ")
    assert "one – two: Kendall's tau 1.00 [1.00, 1.00]" in agreement_lines(found)


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
    one = np.array([100.0, 100.0, 50.0, 25.0])[:, None]
    assert _taus(one, one) == pytest.approx(1)
    assert _taus(one, -one) == pytest.approx(-1)
    other = np.array([90.0, 80.0, 70.0, 70.0])[:, None]
    assert _taus(one, other)[0] == pytest.approx(kendalltau(one[:, 0], other[:, 0]).statistic)
    assert _concordance(np.stack([one, one])) == pytest.approx(1)
    assert _taus(one, np.ones_like(one)) == 0


def test_a_classifier_that_is_always_fooled_has_an_interval_all_the_same():
    random = np.random.default_rng(4)
    told = {name: ranked(random, {**APART, "e": 0.0}, rows=100) for name in ("one", "two")}
    found = agreement(told)
    never = found.fmr[0][found.classifiers.index("e")]
    assert never.value == never.low == 0
    assert 1 < never.high < 10


@pytest.mark.slow
def test_intervals_hold_the_truth():
    """Classifiers so close that chance orders them: the interval of tau holds 1, the truth, in nearly all studies."""
    random = np.random.default_rng(2)
    close = {"a": 0.55, "b": 0.5, "c": 0.45}
    held = 0
    for study in range(60):
        told = {name: ranked(random, close, rows=300) for name in ("one", "two")}
        tau = agreement(told, resamples=300, seed=study).pairs[0].tau
        held += tau.low <= 1 <= tau.high
    assert held >= 54


def test_what_can_not_be_compared():
    random = np.random.default_rng(3)
    one = ranked(random, APART)
    for told, message in (
        ({"one": one}, "an agreement needs at least two"),
        ({"one": one, "two": ranked(random, {"a": 0.5, "b": 0.4})}, "rankings of 2 can't be told to agree"),
        ({"one": one, "two": ranked(random, APART, ids=np.arange(1000, 1400))}, "no images in common"),
    ):
        with pytest.raises(UserError, match=message):
            agreement(told)
    other = ranked(random, APART)
    labels = pa.array(np.ones(len(other.predictions), int))
    other.predictions = other.predictions.set_column(3, "label", labels)
    with pytest.raises(UserError, match="have other labels for the same ids"):
        agreement({"one": one, "two": other})
    check_many_enough(2, 3)
