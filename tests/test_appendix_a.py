"""The paper's Appendix A, simulated: where pooling many collections beats one fixed benchmark, and where it does not.

Each collection draws from the true distribution (mean μ, variance σ²) and has an error of its own in each.
"""

import numpy as np
import pytest

MEAN, VARIANCE, ROWS = 3.0, 4.0, 50
COLLECTIONS, REPEATS = 20, 4000


@pytest.fixture
def random():
    return np.random.default_rng(0)


def collected(random, errors):
    """Samples [repeat, collection, row] whose collections are off by `errors` [repeat, collection]."""
    shape = (*errors.shape, ROWS)
    return MEAN + errors[..., None] + random.normal(0, VARIANCE**0.5, shape)


def squared_error(estimates):
    return float(np.mean((estimates - MEAN) ** 2))


def test_independent_unbiased_errors_average_out(random):
    """Proposition A.1 for μ: both are unbiased, and the pooled estimate's variance is smaller, by the number of
    collections."""
    samples = collected(random, random.normal(0, 1, (REPEATS, COLLECTIONS)))
    one, pooled = samples[:, 0].mean(-1), samples.mean((-1, -2))
    assert one.mean() == pytest.approx(MEAN, abs=0.1)
    assert pooled.mean() == pytest.approx(MEAN, abs=0.02)
    alone = 1 + VARIANCE / ROWS
    assert one.var() == pytest.approx(alone, rel=0.1)
    assert pooled.var() == pytest.approx(alone / COLLECTIONS, rel=0.1)


def test_the_proposition_for_variances_holds_only_around_each_collections_own_mean(random):
    """Factors from Exp(1) average out as well. But eq. 20 centres all samples on the pooled mean: what is then
    estimated holds the spread of the collections' errors too, and is not unbiased."""
    factors = random.exponential(1, (REPEATS, COLLECTIONS))
    assert (factors[:, 0] * VARIANCE).var() == pytest.approx(VARIANCE**2, rel=0.15)  # Σ², where eq. 33 ends at Σ
    assert (factors.mean(1) * VARIANCE).var() == pytest.approx(VARIANCE**2 / COLLECTIONS, rel=0.15)
    samples = collected(random, random.normal(0, 1, (REPEATS, COLLECTIONS)))
    around_own, around_pooled = samples.var(-1).mean(), samples.var((-1, -2)).mean()
    assert around_own == pytest.approx(VARIANCE * (1 - 1 / ROWS), rel=0.02)
    assert around_pooled == pytest.approx(around_own + 1 - 1 / COLLECTIONS, rel=0.02)


@pytest.mark.parametrize(("shared", "bias"), [(0.8, 0.0), (0.0, 1.0)], ids=["errors that are kin", "a common bias"])
def test_errors_that_all_collections_share_do_not_average_out(random, shared, bias):
    """However many collections, the pooled error stays above what they have in common."""
    common = random.normal(0, shared**0.5, (REPEATS, 1))
    errors = bias + common + random.normal(0, (1 - shared) ** 0.5, (REPEATS, COLLECTIONS))
    pooled = collected(random, errors).mean((-1, -2))
    independent = (1 + VARIANCE / ROWS) / COLLECTIONS
    assert squared_error(pooled) > 0.9 * (shared + bias**2)
    assert squared_error(pooled) > 10 * independent
    if bias:  # then a single benchmark without that bias is as good as all of them
        fixed = collected(random, random.normal(0, 1, (REPEATS, 1))).mean((-1, -2))
        assert squared_error(pooled) > 0.9 * squared_error(fixed)


def test_guided_search_finds_the_oracles_errors(random):
    """An oracle that lets 5 % of the ruined images through lets far more of them through to a search.

    Of candidates for an image, some have lost their class; a classifier is wrong on these and on some of the others.
    Drawn by chance, few accepted images have lost their class. A search takes those that the oracle accepts *and* the
    classifier is wrong on: then their share, and with it the share of errors that are none, is many times as large.
    """
    shape = (REPEATS, 50)
    lost = random.random(shape) < 0.3
    accepted = np.where(lost, random.random(shape) < 0.05, random.random(shape) < 0.95)
    wrong = lost | (random.random(shape) < 0.02)
    by_chance = lost[accepted].mean()
    guided = lost[accepted & wrong].mean()
    assert by_chance < 0.03
    assert guided > 0.4
