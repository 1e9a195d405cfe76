"""Rank correlations of measures over classifiers: what `agree` computes."""

import numpy as np
import pytest

from fmrgen import UserError
from fmrgen.apps.studies.rank_correlation import correlations
from fmrgen.metrics.intervals import Estimate


def column(*values):
    return {f"net{number}": Estimate(value, value - 1, value + 1) for number, value in enumerate(values)}


def test_rank_correlations():
    columns = {
        "own FMR": column(60, 70, 80, 90, 95),
        "c": column(30, 40, 50, 60, 70),
        "mCE": column(90, 70, 60, 40, 30),
    }
    found = {(one.first, one.second): one for one in correlations(columns)}
    assert found["own FMR", "c"].spearman.value == pytest.approx(1)
    assert -0.1 < found["own FMR", "c"].kendall.low < 0.5  # of five classifiers, in whatever order
    assert found["own FMR", "c"].kendall.high == 1
    assert found["own FMR", "mCE"].kendall.value == pytest.approx(-1)
    many = {"a": column(*range(0, 1000, 20)), "b": column(*range(0, 1000, 20))}
    (one,) = correlations(many)
    assert 0.95 < one.spearman.low < one.spearman.value <= one.spearman.high == 1
    (one,) = correlations({"a": column(1, 1, 1, 1, 9), "b": column(1, 2, 3, 4, 5)})
    assert (one.spearman.low, one.spearman.high) == (-1, 1)  # one classifier apart from equals tells nothing
    close = {"a": column(60, 60.1, 60.2, 60.3), "b": column(1, 2, 3, 4)}
    (one,) = correlations(close)
    assert one.spearman.value == pytest.approx(1)
    assert one.spearman.low < 0  # within the images' chance they could be in any order
    with pytest.raises(UserError, match="2 classifiers have both, and 3 are needed"):
        correlations({"a": column(1, 2), "b": column(1, 2)}, ["a", "b"])
    with pytest.raises(UserError, match="no evaluation has z; choose from a, b"):
        correlations({"a": column(1, 2), "b": column(1, 2)}, ["a", "z"])


@pytest.mark.parametrize("classifiers", [3, 5, 9, 30])
@pytest.mark.parametrize(("correlation", "error"), [(0.0, 0.0), (0.8, 0.0), (0.95, 0.5)])
def test_the_interval_of_a_correlation_contains_the_populations(classifiers, correlation, error):
    """Of the true figures, however uncertain those that were measured are."""
    random = np.random.default_rng(0)
    expected = 6 / np.pi * np.arcsin(correlation / 2), 2 / np.pi * np.arcsin(correlation)
    held = np.zeros(2)
    for _ in range(200):
        x, y = random.normal(size=(2, classifiers))
        y = correlation * x + np.sqrt(1 - correlation**2) * y
        measured = (
            {
                f"net{place}": Estimate(value, value - 1.96 * error, value + 1.96 * error)
                for place, value in enumerate(one + error * random.normal(size=classifiers))
            }
            for one in (x, y)
        )
        (found,) = correlations(dict(zip("ab", measured, strict=True)))
        for place, (one, truth) in enumerate(zip((found.spearman, found.kendall), expected, strict=True)):
            held[place] += one.low <= truth <= one.high
    assert (held >= 182).all(), held  # 95 % of 200 are 190, and 182 are 2.6 deviations fewer
