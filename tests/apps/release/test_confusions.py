"""Two classes whose labels were swapped are named though no answer is wrong, and nothing is for another training."""

import numpy as np

from fmrgen.apps.release.confusions import confusions_of

NAMES = [f"class {label}" for label in range(10)]
LABELS = np.repeat(np.arange(10), 30)


def choices(seed, swapped=()):
    """Next choices as of a network: half of them the neighbouring class, the others any; of swapped classes the other."""
    random = np.random.default_rng(seed)
    drawn = (LABELS + random.integers(1, 10, len(LABELS))) % 10
    next_class = np.where(random.random(len(LABELS)) < 0.5, (LABELS + 1) % 10, drawn)
    for label, other in (swapped, swapped[::-1]) if swapped else ():
        next_class[(label == LABELS) & (random.random(len(LABELS)) < 0.9)] = other
    return next_class


def test_swapped_classes_are_named_both_ways():
    found = confusions_of(LABELS, choices(1), choices(2, swapped=(3, 7)), NAMES)
    assert {(confusion.label, confusion.other) for confusion in found} == {
        ("class 3", "class 7"),
        ("class 7", "class 3"),
    }
    first = found[0]
    assert first.new > 20
    assert first.new > first.old
    assert first.p_value < 0.01
    assert first.line.startswith(f"NEW may mix up {first.label} and {first.other}: on {first.new} of 30 images of")


def test_what_old_mixes_up_too_is_not_named():
    assert confusions_of(LABELS, choices(1, swapped=(3, 7)), choices(2, swapped=(3, 7)), NAMES) == []


def test_another_draw_is_named_in_few_cases():
    hits = [bool(confusions_of(LABELS, choices(number), choices(1000 + number), NAMES)) for number in range(100)]
    assert sum(hits) <= 5


def test_of_few_images_or_two_classes_nothing_is_said():
    few = np.repeat(np.arange(10), 7)
    assert confusions_of(few, (few + 1) % 10, (few + 2) % 10, NAMES) == []
    two = np.repeat([0, 1], 50)
    assert confusions_of(two, 1 - two, 1 - two, ["cat", "dog"]) == []
