"""Moved accuracy: by hand, its intervals over originals, and no FMR of moved images."""

import numpy as np
import pytest

from fmrgen.metrics.intervals import Estimate, grouped_proportion, proportion, relative_moved_accuracy, wilson
from fmrgen.metrics.rows import Rows
from fmrgen.metrics.summary import METRICS, summarise
from fmrgen.results.rankings import difference


def columns(right, original_right, valid, copies, move=None):
    """Returns the columns of a split, given answers of copies [N · copies] and of originals [N]."""
    count = len(original_right)
    return {
        "label": np.zeros(count * copies, int),
        "prediction": np.where(right, 0, 1),
        "original_prediction": np.where(np.repeat(original_right, copies), 0, 1),
        "valid": np.asarray(valid),
        "original_id": np.repeat(np.arange(count), copies),
        "move": np.array(["turn"] * (count * copies)) if move is None else np.asarray(move),
    }


def test_figures_by_hand():
    right = [1, 1, 0, 1, 0, 0, 1, 1]  # four originals, two copies each
    valid = [1, 1, 1, 1, 1, 0, 0, 1]
    rows = columns(np.array(right, bool), np.array([1, 1, 1, 0], bool), np.array(valid, bool), 2, ["turn", "zoom"] * 4)
    summary = summarise(rows)
    assert summary.standard_accuracy.value == 75
    assert summary.validation_rate.value == 75
    assert summary.moved_accuracy.value == pytest.approx(100 * 4 / 6)
    assert summary.relative_moved_accuracy.value == pytest.approx(100 * 4 / 6 / 0.75)
    assert summary.worst_moved_accuracy.value == pytest.approx(100 * 2 / 4 / 0.75)  # the first original, and the last
    turn, zoom = Rows(rows, 500).after_each_move()
    assert (turn.move, turn.rows, turn.valid_rows) == ("turn", 4, 3)
    assert turn.accuracy.value == pytest.approx(100 * 1 / 3 / 0.75)
    assert (zoom.valid_rows, zoom.accuracy.value) == (3, pytest.approx(100 / 0.75))


def test_there_is_no_fmr_of_moved_images_and_no_moved_accuracy_of_others():
    rows = columns(np.ones(8, bool), np.ones(4, bool), np.ones(8, bool), 2)
    summary = summarise(rows)
    for metric in METRICS:
        if metric.images == "perturbed":
            assert summary[metric] is None, metric.field
    assert summary.of_moved_images
    del rows["move"], rows["original_id"]
    summary = summarise(rows)
    assert summary.fmr.value == 100
    assert not summary.of_moved_images


def test_intervals_are_over_originals_and_cover():
    """Copies of one original fail together: intervals over rows are too narrow."""
    random = np.random.default_rng(0)
    covered = dict.fromkeys(("MA / SA", "MA", "rows alone"), 0)
    studies, originals, copies = 300, 120, 4
    for _ in range(studies):
        easy = random.beta(1.2, 0.3, size=originals)  # chance to be right, mean 0.8
        original_right = random.random(originals) < 0.5 + 0.5 * easy
        right = random.random(originals * copies) < np.repeat(easy, copies)
        valid = random.random(originals * copies) < 0.8
        rows = columns(right, original_right, valid, copies)
        relative = relative_moved_accuracy(
            right, valid, np.repeat(original_right, copies), rows["original_id"], resamples=1000
        )
        accuracy = grouped_proportion(right[valid], rows["original_id"][valid])
        naive = proportion(right[valid])
        covered["MA / SA"] += relative.low <= 100 * 0.8 / 0.9 <= relative.high
        covered["MA"] += accuracy.low <= 80 <= accuracy.high
        covered["rows alone"] += naive.low <= 80 <= naive.high
    assert covered["MA / SA"] / studies > 0.92
    assert covered["MA"] / studies > 0.92
    assert covered["rows alone"] / studies < 0.85


def test_where_all_are_right_the_interval_is_that_of_so_many_originals():
    groups = np.repeat(np.arange(50), 4)
    all_right = np.ones(200, bool)
    assert grouped_proportion(all_right, groups) == proportion(np.ones(50, bool))
    assert grouped_proportion(np.ones(0, bool), groups[:0]) is None
    relative = relative_moved_accuracy(all_right, all_right, all_right, groups)
    assert relative.value == 100
    assert relative.low == pytest.approx(proportion(np.ones(50, bool)).low, abs=0.1)
    some_right = np.repeat(np.arange(50) < 45, 4)
    above = relative_moved_accuracy(all_right, all_right, some_right, groups)
    assert above.value == pytest.approx(100 / 0.9)
    assert above.low == pytest.approx(
        100 * proportion(np.ones(50, bool)).low / proportion(some_right[::4]).high, abs=0.2
    )
    assert relative_moved_accuracy(all_right, ~all_right, all_right, groups) is None


def test_groups_that_happen_to_agree_are_no_more_certain_than_rows():
    """By rounding or by luck the groups' own spread can be 0, or nearly."""
    alike = np.tile(np.arange(22) < 15, 10)
    assert grouped_proportion(alike, np.repeat(np.arange(10), 22)) == proportion_of(15 / 22, 10)
    nearly = np.concatenate([np.arange(4) < 3] * 9 + [np.arange(4) < 2])
    lucky = grouped_proportion(nearly, np.repeat(np.arange(10), 4))
    assert (lucky.low, lucky.high) == pytest.approx((proportion(nearly).low, proportion(nearly).high))


def proportion_of(share, rows):
    return Estimate(pytest.approx(100 * share), *(pytest.approx(end) for end in wilson(share * rows, rows)))


def test_groups_of_one_row_are_rows():
    random = np.random.default_rng(1)
    hits = random.random(200) < 0.7
    apart = grouped_proportion(hits, np.arange(200))
    assert apart.value == proportion(hits).value
    assert (apart.low, apart.high) == pytest.approx((proportion(hits).low, proportion(hits).high), abs=0.05)


def test_differences_are_paired_over_originals():
    random = np.random.default_rng(2)
    valid = np.ones(400, bool)
    first = columns(random.random(400) < 0.9, np.ones(100, bool), valid, 4)
    second = columns(random.random(400) < 0.6, np.ones(100, bool), valid, 4)
    pair = difference("a", "b", first, second)
    assert (pair.fmr, pair.perturbed_accuracy) == (None, None)
    assert pair.relative_moved_accuracy.value == pytest.approx(
        100 * ((first["prediction"] == 0).mean() - (second["prediction"] == 0).mean())
    )
    assert pair.relative_moved_accuracy.low > 20
    same = difference("a", "b", first, first)
    assert same.relative_moved_accuracy.high == pytest.approx(proportion(np.zeros(100, bool)).high)
