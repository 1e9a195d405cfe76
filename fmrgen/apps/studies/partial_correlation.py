"""Rank correlations where a third figure is equal, their intervals, and what so many rows can show."""

from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.stats import norm, rankdata

from fmrgen.metrics.intervals import CONFIDENCE, Estimate

_RESAMPLES = 4000
_POWER = 0.8
_SIMULATED = 4000
_STUDIES = 500  # of `power_with_choice`


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rank correlation over the last axis; 0 where all of one are equal."""
    x, y = (rankdata(of, axis=-1) for of in (x, y))
    x, y = (of - of.mean(axis=-1, keepdims=True) for of in (x, y))
    norms = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    found: np.ndarray = np.divide((x * y).sum(axis=-1), norms, out=np.zeros_like(norms), where=norms > 0)
    return found


def partial_correlation(x: np.ndarray, y: np.ndarray, given: np.ndarray, reliability: float = 1.0) -> np.ndarray:
    """Spearman's correlation where `given` is equal, over the last axis; where what it reads with so much
    `reliability` is equal (Cochran 1968)."""
    xy, xz, yz = spearman(x, y), spearman(x, given), spearman(y, given)
    norms = np.sqrt((reliability - xz**2).clip(0) * (reliability - yz**2).clip(0))
    found: np.ndarray = np.divide(reliability * xy - xz * yz, norms, out=np.zeros_like(norms), where=norms > 1e-6)
    return found.clip(-1, 1)


def resampled(figure: Callable[[np.ndarray], np.ndarray], rows: int) -> Estimate:
    """What `figure` makes of all rows; its interval from resampled ones, the same for every figure of so many rows.

    `figure` takes places of rows [..., n] and returns [...].
    """
    picks = np.random.default_rng(0).integers(rows, size=(_RESAMPLES, rows))
    low, high = np.quantile(figure(picks), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(figure(np.arange(rows))), float(low), float(high))


@cache
def power_with_choice(choose: int, confirm: int, candidates: int, correlation: float, others: float = 0.1) -> float:
    """The share of simulated studies that show a partial correlation above 0, their choice counted.

    One candidate has this true partial correlation and the rest a lower one, each with errors of its own. As in a
    study, the candidate that goes best with the target on *choose* is taken, and tested once on *confirm*.

    Args:
        choose: recipes of training among which is chosen.
        confirm: those on which the question is put.
        candidates: how many there are to choose from.
        correlation: the true one of the best candidate.
        others: the true one of the others.
    """
    random = np.random.default_rng(0)
    true = np.full(candidates, others)
    true[0] = correlation
    count = choose + confirm
    shown = 0
    for _ in range(_STUDIES):
        target, given = random.normal(size=(2, count))
        noise = random.normal(size=(candidates, count))
        figures = given + true[:, None] * target + np.sqrt(1 - true**2)[:, None] * noise  # [candidates, recipes]
        targets = np.broadcast_to(given + target, figures.shape)
        equal = np.broadcast_to(given, figures.shape)
        on_choose = partial_correlation(figures[:, :choose], targets[:, :choose], equal[:, :choose])
        chosen = int(on_choose.argmax())
        on_confirm = partial_correlation(figures[chosen, choose:], targets[chosen, choose:], equal[chosen, choose:])
        shown += bool(_is_shown(on_confirm, confirm))
    return shown / _STUDIES


@cache
def smallest_visible_by_choice(choose: int, confirm: int, candidates: int) -> float:
    """The true partial correlation of the best candidate that 80 % of studies show, their choice counted."""
    for correlation in np.arange(smallest_visible(confirm), 1, 0.05):
        if power_with_choice(choose, confirm, candidates, round(float(correlation), 2)) >= _POWER:
            return round(float(correlation), 2)
    return 1.0


def _is_shown(found: np.ndarray, count: int) -> np.ndarray:
    """Whether partial correlations over so many recipes are above 0 beyond chance."""
    height = np.arctanh(found.clip(-0.999, 0.999))
    # The error of a rank correlation (Bonett and Wright 2000), one degree of freedom less for SA.
    error = np.sqrt((1 + np.tanh(height) ** 2 / 2) / (count - 4))
    is_shown: np.ndarray = height - norm.ppf((1 + CONFIDENCE) / 2) * error > 0
    return is_shown


@cache
def smallest_visible(count: int) -> float:
    """The partial correlation of normal figures that `count` recipes show to be above 0 in 80 % of studies."""
    random = np.random.default_rng(count)
    first, noise, given = random.normal(size=(3, _SIMULATED, count))
    for correlation in np.arange(0.05, 1, 0.05):
        second = correlation * first + np.sqrt(1 - correlation**2) * noise
        found = partial_correlation(given + first, given + second, given)
        if _is_shown(found, count).mean() >= _POWER:
            return round(float(correlation), 2)
    return 1.0
