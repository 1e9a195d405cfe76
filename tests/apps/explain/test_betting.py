"""E-values, and which hypotheses they reject."""

import numpy as np
import pytest

from fmrgen.apps.explain.betting import discoveries, e_value


def test_discoveries_are_those_of_the_procedure_by_hand():
    """Of four the largest must be 80, of the two largest the smaller 40, and so on."""
    assert discoveries(np.array([41.0, 1.0, 79.0, 5.0])).tolist() == [True, False, True, False]
    assert discoveries(np.array([39.0, 1.0, 79.0, 5.0])).tolist() == [False] * 4
    assert discoveries(np.array([])).tolist() == []
    assert e_value(np.array([], dtype=np.int8), 0.0) == 1


def test_capital_is_a_fair_bet():
    """At the margin itself the capital after one row is 1 in expectation."""
    for margin in (0.0, 0.02, 0.3):
        chances = {1: (0.5 + margin) / 2, -1: (0.5 - margin) / 2, 0: 0.5}
        expected = sum(chance * e_value(np.array([outcome]), margin) for outcome, chance in chances.items())
        assert expected == pytest.approx(1)
