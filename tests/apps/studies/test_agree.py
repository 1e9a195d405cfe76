"""Rank correlations of measures over classifiers: what `agree` computes."""

import pytest

from fmrgen import UserError
from fmrgen.apps.studies.rank_correlation import correlations
from fmrgen.apps.studies.rank_correlation_report import correlations_report
from fmrgen.metrics.intervals import Estimate


def column(*values):
    return {f"net{number}": Estimate(value, value - 1, value + 1) for number, value in enumerate(values)}


def test_rank_correlations():
    columns = {
        "own FMR": column(60, 70, 80, 90, 95),
        "c": column(30, 40, 50, 60, 70),
        "mCE": column(90, 70, 60, 40, 30),
    }
    found = {(pair.first, pair.second): pair for pair in correlations(columns)}
    assert found["own FMR", "c"].spearman == found["own FMR", "c"].kendall == pytest.approx(1)
    assert found["own FMR", "c"].p_value == pytest.approx(2 / 120)  # two of all orders of five are as far from 0
    assert found["own FMR", "mCE"].kendall == pytest.approx(-1)
    report = correlations_report([found["own FMR", "mCE"]], columns)
    row = report.sections[0].tables[0].rows[0]
    assert row == ["own FMR – mCE", "5", "-1.00", "-1.00", "0.017"]
    (fewer,) = correlations({"a": column(1, 2, 3), "b": column(1, 3, 2, 5)})
    assert fewer.classifiers == ["net0", "net1", "net2"]
    with pytest.raises(UserError, match="2 classifiers have both, and 3 are needed"):
        correlations({"a": column(1, 2), "b": column(1, 2)}, ["a", "b"])
    with pytest.raises(UserError, match="no evaluation has z; choose from a, b"):
        correlations({"a": column(1, 2), "b": column(1, 2)}, ["a", "z"])
    with pytest.raises(UserError, match="no two measures cover 3 classifiers; found a"):
        correlations({"a": column(1, 2)})
