"""Rows in groups: by values, by bounds, with values that are missing or no numbers."""

import pytest

from fmrgen import UserError
from fmrgen.metrics.grouping import Grouping


def rows_by_group(text, values):
    groups = Grouping.of_short_form(text).groups(values)
    return {name: rows.nonzero()[0].tolist() for name, rows in groups.items()}


def test_bounds_belong_to_the_group_above():
    rows = rows_by_group("width:30,60", [29, 30, 59.5, 60, 100, None, float("nan")])
    assert rows == {"below 30": [0], "30 to 60": [1, 2], "60 and more": [3, 4], "unknown": [5, 6]}
    assert rows_by_group("width:0.5", [0.4, 0.2]) == {"below 0.5": [0, 1]}


def test_values_are_groups_of_their_own():
    assert rows_by_group("track", ["b", "a", None, "a"]) == {"a": [1, 3], "b": [0], "unknown": [2]}


def test_a_colon_may_be_part_of_a_name():
    assert Grouping.of_short_form("taken:where") == Grouping("taken:where")
    assert Grouping.of_short_form("taken:where:3") == Grouping("taken:where", (3.0,))


def test_bounds_must_rise_and_values_be_numbers():
    with pytest.raises(UserError, match=r"by: the bounds of width:60,30 must be numbers that rise, as in width:30,60"):
        Grouping.of_short_form("width:60,30")
    with pytest.raises(UserError, match=r"by: the column width holds 'wide', which has no bounds"):
        rows_by_group("width:30", [20, "wide"])
