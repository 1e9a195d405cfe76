"""The sequential test: how often it errs, and what it costs."""

import numpy as np
import pytest

from fmrgen.apps.explain.betting import ERROR, log_capital
from fmrgen.apps.release.sequential_test import decide, gate

PAIRS, ROWS = 300, 2000


def pairs(drop, discordant, seed, count=PAIRS, rows=ROWS):
    """Made-up pairs of classifiers: a share of rows on which they differ, and the drop in the long run; [count, rows]."""
    generator = np.random.default_rng(seed)
    chances = [(discordant + drop) / 2, (discordant - drop) / 2, 1 - discordant]
    return generator.choice(np.array([1, -1, 0], dtype=np.int8), p=chances, size=(count, rows))


def shares(drops, margin):
    """How often each verdict is found, and after how many rows on average."""
    found = [decide(one, margin) for one in drops]
    return {verdict: np.mean([said == verdict for said, _ in found]) for verdict in ("pass", "fail", "undecided")} | {
        "rows": np.mean([rows for _, rows in found])
    }


@pytest.mark.parametrize(("margin", "drop"), [(0.0, 0.0), (0.02, 0.02), (0.02, 0.0)])
def test_false_alarms_are_rare_however_often_one_looks(margin, drop):
    found = shares(pairs(drop, 0.1, seed=1), margin)
    print(f"margin {margin}, drop {drop}: {found}")
    assert found["fail"] <= ERROR


@pytest.mark.parametrize(("margin", "drop"), [(0.0, 0.0), (0.02, 0.02), (0.02, 0.03)])
def test_what_is_too_large_rarely_passes(margin, drop):
    assert shares(pairs(drop, 0.1, seed=2), margin)["pass"] <= ERROR


def test_a_drop_of_three_points_is_found_in_two_thousand_rows():
    found = shares(pairs(0.03, 0.1, seed=3), 0.0)
    print(f"drop of 3 points: {found}")
    assert found["fail"] >= 0.8
    assert found["rows"] < 0.6 * ROWS  # it stops early
    assert shares(pairs(0.0, 0.04, seed=4), 0.02)["pass"] >= 0.8  # and the good are let through


def test_capital_is_a_fair_bet():
    """At the margin itself the capital is 1 in expectation, whatever the rows so far."""
    for margin in (-0.3, 0.0, 0.02, 0.5):
        share = 0.5
        one, two = (share + margin) / 2, (share - margin) / 2
        outcomes = {1: max(one, 0), -1: max(two, 0)}
        outcomes[0] = 1 - sum(outcomes.values())
        if abs(outcomes[1] - outcomes[-1] - margin) > 1e-12:
            continue
        for side in (0, 1):
            expected = sum(
                chance * np.exp(log_capital(np.array([outcome]), margin)[side][0])
                for outcome, chance in outcomes.items()
            )
            assert expected == pytest.approx(1)


def test_bounds_hold_whenever_one_looks():
    generator = np.random.default_rng(5)
    outside = [0, 0]
    for drops in pairs(0.03, 0.15, seed=6, count=200, rows=600):
        stop = int(generator.integers(50, 601))
        one = gate_of(drops[:stop])
        outside[0] += one.low > 3
        outside[1] += one.high < 3
        assert one.low <= one.drop <= one.high
    assert max(outside) <= 0.08 * 200


def gate_of(drops, margin=50.0):
    baseline = drops >= 0
    candidate = drops <= 0
    return gate(baseline, candidate, np.zeros(len(drops), dtype=int), ["one"], margin, len(drops))


@pytest.mark.slow
def test_alarms_are_of_classes_that_fell():
    generator = np.random.default_rng(7)
    labels = generator.integers(0, 20, 4000)
    falls = labels < 3
    baseline = np.ones(4000, dtype=bool)
    candidate = ~(falls & (generator.random(4000) < 0.3)) & (generator.random(4000) > 0.001)
    found = gate(baseline, candidate, labels, [str(label) for label in range(20)], 99.0, 4000)
    assert found.verdict == "pass"
    assert {one.name for one in gate(baseline, candidate, labels, list(map(str, range(20))), 5.0, 4000).classes} == {
        str(label) for label in range(20)
    }
    alarmed = 0
    for seed in range(200):  # nothing fell: hardly an alarm, in any class
        drops = pairs(0.0, 0.2, seed=seed, count=1)[0]
        one = gate(drops >= 0, drops <= 0, labels[:ROWS], list(map(str, range(20))), 0.0, ROWS)
        alarmed += bool(one.alarms)
    assert alarmed <= 0.05 * 200
    slow = gate(baseline, candidate, labels, list(map(str, range(20))), 4.5, 4000)
    assert {one.name for one in slow.alarms} <= {"0", "1", "2"}


def test_how_many_rows_more():
    drops = pairs(0.03, 0.15, seed=8, count=1, rows=300)[0]
    found = gate_of(drops, 0.0)
    assert found.verdict == "undecided"
    assert 100 < found.rows_more < 10_000
    assert gate_of(np.zeros(300, dtype=np.int8), 0.0).rows_more is None
