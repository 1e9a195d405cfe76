"""Which images people see: strata, controls, repeats, and an order for each rater."""

from collections import Counter

import numpy as np
import pytest

from fmrgen import UserError
from fmrgen.apps.judging.sample import draw


def columns(rows=1000, fooled=0.3, valid=0.9, seed=0):
    random = np.random.default_rng(seed)
    label = random.integers(0, 10, rows)
    return {
        "id": np.arange(rows) * 3,
        "label": label,
        "valid": random.random(rows) < valid,
        "iterations": random.integers(1, 51, rows),
        "prediction": np.where(random.random(rows) < fooled, (label + 1) % 10, label),
    }


def test_half_of_a_sample_fooled_the_classifier_and_classes_are_even():
    rows = columns()
    sample = draw(rows, 300, 0, reconstructions=True)
    first = [entry for entry in sample.shown if entry.which == "image" and not entry.repeat]
    assert len(first) == len({entry.id for entry in first}) == 300
    assert Counter(entry.stratum.partition(" ")[0] for entry in first) == {"fooled": 150, "right": 150}
    assert sum(sample.strata.values()) == rows["valid"].sum()
    assert len(sample.strata) == 6
    of = dict(zip(rows["id"].tolist(), range(1000), strict=True))
    for entry in first:
        row = of[entry.id]
        group, _, band = entry.stratum.partition(" ")
        low, high = map(int, band.split("-"))
        assert rows["valid"][row]
        assert low <= rows["iterations"][row] <= high
        assert (group == "fooled") == (rows["prediction"][row] != rows["label"][row])
    by_class = Counter(int(rows["label"][of[entry.id]]) for entry in first)
    assert min(by_class.values()) >= 22
    assert max(by_class.values()) <= 38
    kinds = Counter((entry.which, entry.repeat) for entry in sample.shown)
    assert kinds == {("image", 0): 300, ("image", 1): 15, ("original", 0): 30, ("reconstruction", 0): 15}


def test_a_rare_group_is_taken_whole_and_a_small_split_too():
    few = draw(columns(fooled=0.02), 300, 0, reconstructions=False)
    groups = Counter(entry.stratum.partition(" ")[0] for entry in few.shown if entry.stratum and not entry.repeat)
    fooled = sum(size for name, size in few.strata.items() if name.startswith("fooled"))
    assert groups == {"fooled": fooled, "right": 300 - fooled}
    whole = draw(columns(rows=40), 300, 0, reconstructions=False)
    assert sum(entry.which == "image" and not entry.repeat for entry in whole.shown) == sum(whole.strata.values())
    with pytest.raises(UserError, match="no row of the split is valid"):
        draw(columns(valid=0), 300, 0, reconstructions=False)


def test_raters_see_the_same_in_other_orders_and_repeats_late():
    sample, again = (draw(columns(), 200, 3, reconstructions=True) for _ in range(2))
    assert sample == again
    assert draw(columns(), 200, 4, reconstructions=True) != sample
    ann, ben = sample.order("ann"), sample.order("ben")
    assert ann == sample.order("ann")
    assert ann != ben
    assert Counter((entry.id, entry.which) for entry in ann) == Counter((entry.id, entry.which) for entry in ben)
    seen = set()
    for place, entry in enumerate(ann):
        assert entry.repeat == ((entry.id, entry.which) in seen)
        assert not entry.repeat or place > len(ann) / 2
        seen.add((entry.id, entry.which))


def test_a_quick_look_has_few_controls():
    sample = draw(columns(), 30, 0, reconstructions=False, fewest_originals=10)
    assert Counter(entry.which for entry in sample.shown if not entry.repeat) == {"image": 30, "original": 10}
