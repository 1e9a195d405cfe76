"""Two classes whose labels were swapped are named though no answer is wrong, and nothing is for another training."""

import numpy as np
import pytest

from fmrgen.apps.release.confusions import NextChoices, confusions_of

NAMES = [f"class {label}" for label in range(10)]
LABELS = np.repeat(np.arange(10), 30)


def choices(seed, swapped=(), temperature=1.0, margin=0.5):
    """Next choices as of a network: half of them the neighbouring class, the others any; of swapped classes the other.

    Of these the margins are smaller, a share of the others.
    """
    random = np.random.default_rng(seed)
    drawn = (LABELS + random.integers(1, 10, len(LABELS))) % 10
    next_class = np.where(random.random(len(LABELS)) < 0.5, (LABELS + 1) % 10, drawn)
    for label, other in (swapped, swapped[::-1]) if swapped else ():
        next_class[(label == LABELS) & (random.random(len(LABELS)) < 0.9)] = other
    margins = 10 + random.normal(size=len(LABELS))
    margins[np.isin(LABELS, swapped)] *= margin
    return NextChoices(next_class, margins / temperature)


@pytest.mark.parametrize("temperature", [0.5, 1, 4])
def test_swapped_classes_are_named_both_ways(temperature):
    confusions = confusions_of(LABELS, choices(1), choices(2, (3, 7), temperature), NAMES)
    assert {(confusion.label, confusion.other) for confusion in confusions} == {
        ("class 3", "class 7"),
        ("class 7", "class 3"),
    }
    first = confusions[0]
    assert first.new > 20
    assert first.new > first.old
    assert 40 < first.margin < 60
    assert first.p_value < 0.01
    assert first.line.startswith(f"NEW may mix up {first.label} and {first.other}: on {first.new} of 30 images of")


def test_what_old_mixes_up_too_is_not_named():
    assert confusions_of(LABELS, choices(1, (3, 7)), choices(2, (3, 7)), NAMES) == []


def test_another_order_at_the_usual_margin_is_that_of_another_training():
    assert confusions_of(LABELS, choices(1), choices(2, (3, 7), margin=0.95), NAMES) == []


def test_another_draw_is_not_named_however_sure():
    for number in range(50):
        assert confusions_of(LABELS, choices(number), choices(1000 + number, temperature=4), NAMES) == []


def test_of_few_images_nothing_is_said():
    few = np.repeat(np.arange(10), 7)
    ones = np.ones(len(few))
    assert confusions_of(few, NextChoices((few + 1) % 10, ones), NextChoices((few + 2) % 10, ones / 2), NAMES) == []


def test_of_three_classes_the_third_says_what_is_usual():
    labels = np.repeat([0, 1, 2], 30)
    old = NextChoices(np.repeat([2, 2, 0], 30), np.full(90, 10.0))
    new = NextChoices(np.repeat([1, 0, 0], 30), np.repeat([2.0, 2.0, 10.0], 30))
    confusions = confusions_of(labels, old, new, ["cat", "dog", "fox"])
    assert [(confusion.label, confusion.other, confusion.margin) for confusion in confusions] == [
        ("cat", "dog", 20),
        ("dog", "cat", 20),
    ]


def test_where_no_margin_is_usual_nothing_is_said():
    labels = np.repeat([0, 1, 2], 30)
    old = NextChoices(np.repeat([2, 2, 0], 30), np.full(90, 10.0))
    for usual in (0.0, -1.0):
        new = NextChoices(np.repeat([1, 0, 0], 30), np.repeat([-5.0, -5.0, usual], 30))
        assert confusions_of(labels, old, new, ["cat", "dog", "fox"]) == []
