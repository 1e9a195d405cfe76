"""Classifiers on their own splits: paired by id, and ranks that hold together."""

import numpy as np
import pytest

from fmrgen.results.own_splits import compare_own, fooled_more_by


def columns(random, rows, robustness, difficulty, validity=0.95):
    """A split of a classifier: rows that are hard for one are hard for all."""
    right = difficulty + random.normal(0, 0.5, rows) < robustness
    original = right | (random.random(rows) < 0.9)
    return {
        "id": np.arange(rows),
        "label": np.zeros(rows, dtype=int),
        "valid": random.random(rows) < validity,
        "prediction": np.where(right, 0, 1),
        "original_prediction": np.where(original, 0, 1),
    }


def family(random, rows, robustness):
    difficulty = random.normal(0, 1, rows)
    return [(f"s{i}", f"c{i}", columns(random, rows, value, difficulty)) for i, value in enumerate(robustness)]


def test_rows_are_paired_by_id_whatever_their_order():
    random = np.random.default_rng(0)
    own = family(random, 400, (0.5, 0.0, -0.5))
    found = compare_own(own, {})
    assert [place.classifier for place in found.ranking] == ["c0", "c1", "c2"]
    assert found.rows == 400
    order = random.permutation(400)[:300]
    shuffled = {name: values[order] for name, values in own[1][2].items()}
    fewer = compare_own([own[0], ("s1", "c1", shuffled), own[2]], {})
    kept = np.sort(order)
    same = compare_own([(s, c, {name: v[kept] for name, v in told.items()}) for s, c, told in own], {})
    assert fewer == same
    assert fewer.rows == 300


def test_of_several_splits_of_a_classifier_the_first_counts():
    random = np.random.default_rng(0)
    (one, two), (other, _) = family(random, 300, (0.5, 0.0)), family(random, 300, (-2.0, 0.0))
    found = compare_own([one, two, ("later", "c0", other[2])], {})
    assert [(place.split, place.classifier) for place in found.ranking] == [("s0", "c0"), ("s1", "c1")]
    assert found.differences == compare_own([one, two], {}).differences


def test_what_can_not_be_compared_is_none():
    random = np.random.default_rng(0)
    one, two = family(random, 50, (0.5, 0.0))
    assert compare_own([one], {}) is None
    assert compare_own([one, (*two[:2], {**two[2], "id": two[2]["id"] + 1000})], {}) is None
    assert compare_own([one, (*two[:2], {n: v for n, v in two[2].items() if n != "id"})], {}) is None
    nothing_valid = {**two[2], "valid": np.zeros(50, dtype=bool)}
    found = compare_own([one, (*two[:2], nothing_valid)], {})
    ranks = [(place.classifier, place.best, place.worst) for place in found.ranking]
    assert ranks == [("c0", 1, 1), ("c1", None, None)]
    assert found.differences[0].fmr is None


def test_equal_classifiers_share_all_ranks():
    random = np.random.default_rng(0)
    told = family(random, 200, (0.2,))[0][2]
    found = compare_own([("a", "a", told), ("b", "b", told), ("c", "c", told)], {})
    assert {(place.best, place.worst) for place in found.ranking} == {(1, 3)}
    assert found.differences[0].fmr.value == 0


def true_fmr(robustness):
    random = np.random.default_rng(9)
    told = columns(random, 400_000, robustness, random.normal(0, 1, 400_000))
    right, original = told["prediction"] == 0, told["original_prediction"] == 0
    return 100 * right.mean() / original.mean()


@pytest.mark.slow
@pytest.mark.parametrize("robustness", [(0.3, 0.2, 0.1, 0.1), (0.2, 0.2, 0.2, 0.2)])
def test_paired_intervals_and_ranks_cover(robustness):
    """In 95 % of studies a pair's interval holds its difference; in at least as many all ranks are right at once."""
    random = np.random.default_rng(1)
    truth = [true_fmr(value) for value in robustness]
    trials, held, ranked = 150, 0, 0
    for _ in range(trials):
        found = compare_own(family(random, 400, robustness), {})
        pair = next(p for p in found.differences if {p.first, p.second} == {"c0", "c2"})
        apart = truth[0] - truth[2] if pair.first == "c0" else truth[2] - truth[0]
        held += pair.fmr.low <= apart <= pair.fmr.high
        right = []
        for place in found.ranking:
            own = robustness[int(place.classifier[1])]
            above, below = sum(v > own for v in robustness), sum(v < own for v in robustness)
            right.append(place.best <= 1 + above and place.worst >= len(robustness) - below)
        ranked += all(right)
    assert 0.9 <= held / trials <= 0.99
    assert ranked / trials >= 0.91


def test_no_split_fools_a_classifier_more_by_chance():
    """Three splits whose images fool a classifier alike: in 5 % of studies at most one of the others is said to do so
    more than its own; where one does, it is named."""
    random = np.random.default_rng(2)
    said = 0
    for _ in range(300):
        difficulty = random.normal(0, 1, 200)
        own, *others = (columns(random, 200, 0.2, difficulty) for _ in range(3))
        said += fooled_more_by(own, dict(zip(("s1", "s2"), others, strict=True))) is not None
    assert said <= 0.07 * 300
    assert fooled_more_by(own, {"s1": others[0], "s2": columns(random, 200, -0.3, difficulty)}) == "s2"
    elsewhere = {**columns(random, 200, -0.3, difficulty), "id": own["id"] + 1000}
    assert fooled_more_by(own, {"elsewhere": elsewhere}) is None
