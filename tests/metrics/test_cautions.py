"""Every way in which FMR may be a figure about something else is told, and a sound split says nothing."""

import re

import numpy as np
import pytest

from fmrgen.metrics.cautions import cautions
from fmrgen.metrics.summary import summarise

ROWS = 200


def split(**changed):
    """A split of one class in which nothing is wrong: SA 95 %, PA 60 %, all rows ended by the oracle."""
    right = np.zeros(ROWS, dtype=int)
    told = {
        "label": right,
        "valid": np.ones(ROWS, dtype=bool),
        "iterations": np.full(ROWS, 9),
        "prediction": (np.arange(ROWS) >= 120).astype(int),
        "original_prediction": (np.arange(ROWS) >= 190).astype(int),
        "reconstruction_prediction": (np.arange(ROWS) >= 188).astype(int),
        "original_oracle_label": (np.arange(ROWS) >= 192).astype(int),
        "stop_reason": np.full(ROWS, "oracle"),
        **changed,
    }
    return cautions(summarise(told))


def test_a_sound_split_has_none():
    assert split() == []


def test_a_few_points_are_no_reason_for_doubt_however_many_rows_show_them():
    """The oracle is right on 92 % of 20,000 originals, the classifier on 95."""
    told = {"label": np.zeros(20_000, dtype=int), "valid": np.ones(20_000, dtype=bool)}
    share = np.arange(20_000) / 20_000
    for name, right in (("prediction", 0.6), ("original_prediction", 0.95), ("original_oracle_label", 0.92)):
        told[name] = (share >= right).astype(int)
    assert cautions(summarise(told)) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stop_reason": np.repeat(["stuck", "oracle"], ROWS // 2)}, "50.0 % of the rows are stuck"),
        ({"stop_reason": np.full(ROWS, 4)}, "100.0 % of the rows are stuck"),  # as numbers in a split
        ({"valid": np.arange(ROWS) % 5 < 2}, "only 40.0 % of the rows are valid: the oracle rejects the first step"),
        ({"stop_reason": np.repeat(["stuck", "oracle"], ROWS // 2), "valid": np.arange(ROWS) >= 120}, "50.0 % of the rows are stuck"),
        ({"stop_reason": np.repeat(["budget", "oracle"], [50, 150])}, "25 % of the rows use up the"),
        ({"stop_reason": np.full(ROWS, "budget")}, "100 % of the rows use up the budget: .*step_size=auto"),
        ({"prediction": np.zeros(ROWS, dtype=int)}, "FMR is 105.3: the steps have not lowered the accuracy"),
        ({"original_oracle_label": np.repeat([0, 1], ROWS // 2)}, "the oracle is right on 50.0 % of the originals"),
        ({"reconstruction_prediction": np.repeat([0, 1], ROWS // 2)}, "the classifier is right on 50.0 % of the plain"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_alone(changed, message):
    with_it = split(**changed)
    assert len(with_it) == 1
    assert re.match(message, with_it[0])


def test_a_classifier_that_knows_nothing_is_told():
    with_it = split(original_prediction=(np.arange(ROWS) >= 20).astype(int))
    assert with_it[0].startswith("SA is 10.0 %: are the classifier's weights loaded")
