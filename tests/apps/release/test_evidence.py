"""The evidence of a diff: its tests, one verdict over all of it, and how often they err."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, multinomial, norm

from fmrgen.apps.release.evidence import ERROR_OF_REAL, evidence_of, judged, p_of_loss, shares_of_error
from fmrgen.apps.release.flips import groups_tested


def pairs(drop, discordant, seed, count=400, rows=300):
    """Returns made-up pairs of classifiers: a share of rows on which they differ, and the drop in the long run; [count,
    rows]."""
    generator = np.random.default_rng(seed)
    chances = [(discordant + drop) / 2, (discordant - drop) / 2, 1 - discordant]
    return generator.choice(np.array([1, -1, 0], dtype=np.int8), p=chances, size=(count, rows))


def evidence(drops, kind="originals", margin=0.0):
    return evidence_of(kind, "images", drops > 0, drops < 0, margin)


def test_without_a_margin_the_test_is_the_exact_one():
    assert p_of_loss(5, 0, 100, 0.0) == pytest.approx(1 / 32)
    assert p_of_loss(4, 1, 100, 0.0) == pytest.approx(6 / 32)
    assert p_of_loss(0, 0, 100, 0.0) == 1
    assert p_of_loss(90, 0, 100, 1.04) == 1  # as a class has of a margin of 99 points


@pytest.mark.parametrize(
    ("negative", "positive", "rows", "margin"), [(30, 10, 300, 0.02), (40, 4, 300, 0.05), (25, 9, 80, 0.1)]
)
def test_with_a_margin_it_is_the_score_at_the_likeliest_shares(negative, positive, rows, margin):
    def unlikely(share):
        shares = np.array([share + margin, share, 1 - 2 * share - margin])
        counts = np.array([negative, positive, rows - negative - positive])
        return -float((counts * np.log(np.maximum(shares, 1e-300))).sum())

    found = minimize_scalar(unlikely, bounds=(0, (1 - margin) / 2), method="bounded", options={"xatol": 1e-12}).x
    score = (negative - positive - rows * margin - 1) / np.sqrt(rows * (2 * found + margin - margin**2))
    assert p_of_loss(negative, positive, rows, margin) == pytest.approx(norm.sf(score), rel=1e-3)


def test_where_none_is_fixed_it_is_no_less_than_exact():
    for negative in range(20):
        assert p_of_loss(negative, 0, 300, 0.03) >= binom.sf(negative - 1, 300, 0.03) * (1 - 1e-12)


@pytest.mark.parametrize(("rows", "margin"), [(17, 0.05), (40, 0.1)])
def test_of_few_images_it_is_exact_whatever_share_is_fixed(rows, margin):
    """Of all that can be seen, what is called worse is as seldom as it should be, and 17 of 17 is called so."""
    seen = [(negative, positive) for negative in range(rows + 1) for positive in range(rows + 1 - negative)]
    p_values = np.array([p_of_loss(negative, positive, rows, margin) for negative, positive in seen])
    for share in (0.0, 0.013, 0.1, 0.22, 0.37, 0.449):
        chances = multinomial(rows, [share + margin, share, 1 - 2 * share - margin])
        likely = chances.pmf([[negative, positive, rows - negative - positive] for negative, positive in seen])
        for level in (0.1, 0.025, 0.003):
            assert likely[p_values <= level].sum() <= 1.001 * level
    assert p_of_loss(rows, 0, rows, margin) == pytest.approx(((1 + margin) / 2) ** rows)


def test_a_class_that_is_lost_whole_is_called_worse():
    """The 17 stop signs of 700 signs of 43 classes, beside seven other kinds of images."""
    labels = np.append(np.repeat(np.arange(42), 16), np.full(17, 42))
    lost = labels == 42
    _, (of_class,) = groups_tested(labels.astype(str), lost, np.zeros_like(lost), "images of class {name}", 0.0)
    assert of_class.images == "images of class 42"
    others = [evidence(drops) for drops in pairs(0, 0.1, 3, 7)]
    assert judged([of_class, *others])[0] == "worse"


def test_groups_that_can_not_be_worse_take_no_share_of_the_error():
    """Of 40 classes of three images none could be shown to be lost, so two larger ones share the error."""
    sizes = np.array([3] * 40 + [30, 60])
    assert p_of_loss(3, 0, 3, 0.05) > ERROR_OF_REAL / 3
    assert shares_of_error(sizes, 5.0, ERROR_OF_REAL) == 2
    assert shares_of_error(np.full(40, 30), 5.0, ERROR_OF_REAL) == 40


@pytest.mark.parametrize(("discordant", "margin"), [(0.02, 0.01), (0.01, 0.01), (0.3, 0.1), (0.12, 0.1)])
def test_a_loss_of_the_margin_is_called_worse_as_seldom_as_it_should_be(discordant, margin):
    found = [evidence(drops, margin=100 * margin).p_worse for drops in pairs(margin, discordant, 1, 4000)]
    for level in (0.025, 0.005):
        assert np.mean(np.array(found) <= level) <= level + 3 * (level / 4000) ** 0.5


def test_equal_networks_are_called_different_in_at_most_5_percent_over_all_kinds():
    verdicts = []
    kinds = ("originals", "class", "transformed", "transformed", "perturbed", "class")
    drawn = [pairs(0.0, 0.02 if kind == "originals" else 0.2, number) for number, kind in enumerate(kinds)]
    for drops in zip(*drawn, strict=True):
        lines = [evidence(of_kind, kind) for of_kind, kind in zip(drops, kinds, strict=True)]
        verdicts.append(judged(lines[:2], lines[2:])[0])
    assert verdicts.count("worse") <= 0.035 * 400 + 6
    assert verdicts.count("better") <= 0.015 * 400 + 6


@given(data=st.data())
def test_no_other_images_make_a_verdict_on_real_ones_greener(data):
    """A loss that real images show is shown whatever stands beside it, and what they leave open stays open."""
    counts = st.tuples(st.integers(0, 30), st.integers(0, 30))
    drawn = data.draw(st.lists(counts, min_size=1, max_size=5))
    real, *others = [evidence(np.repeat([1, -1, 0], [*flips, 60]), margin=2) for flips in drawn]
    alone, together = judged([real])[0], judged([real], others)[0]
    if alone in ("worse", "undecided"):
        assert together in ("worse", alone)


def test_one_kind_is_enough_for_worse_and_none_may_be_open_for_no_worse():
    (same,) = pairs(0.0, 0.01, 3, 1, 4000)
    (worse,) = pairs(0.3, 0.4, 4, 1)
    (few,) = pairs(0.0, 0.4, 5, 1, 30)
    verdict, lines = judged([evidence(same, margin=1), evidence(worse, "class", margin=1)])
    assert (verdict, [one.is_worse for one in lines]) == ("worse", [False, True])
    assert judged([evidence(same, margin=1)])[0] == "no worse"
    assert judged([evidence(same, margin=1), evidence(few, "transformed", margin=1)])[0] == "undecided"
    assert judged([evidence(same, margin=1), evidence(few, "class", margin=1)])[0] == "no worse"
    verdict, lines = judged([evidence(same, margin=1), evidence(-worse, "transformed", margin=1)])
    assert (verdict, [one.is_better for one in lines]) == ("better", [False, True])


def test_the_worst_of_several_answers_for_their_number():
    random, false = np.random.default_rng(0), 0
    for _ in range(300):
        labels = random.integers(0, 20, 1000)
        flips = random.choice(3, 1000, p=[0.15, 0.15, 0.7])
        _, (worst,) = groups_tested(labels.astype(str), flips == 0, flips == 1, "{name}", 0.0, of_another_seed=0.0)
        assert worst.p_better == 1
        false += worst.p_worse <= 0.05
    assert false <= 0.05 * 300 + 6
