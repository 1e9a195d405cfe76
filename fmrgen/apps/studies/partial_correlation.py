"""Partial rank correlations with their intervals, and the smallest that so many rows can show."""

from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.stats import norm, rankdata

from fmrgen.metrics.intervals import CONFIDENCE, Estimate, between_percentiles

_RESAMPLES = 4000
_POWER = 0.8
_STUDIES = 500  # that are simulated
_CORRELATION_STEP = 0.05  # of the search for the smallest visible correlation
_MOST_CORRELATION = 0.999  # Fisher's transform of 1 is infinite


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the rank correlation over the last axis; 0 if all values of one are equal."""
    x, y = _centred_ranks(x), _centred_ranks(y)
    norms = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    correlation: np.ndarray = np.divide((x * y).sum(axis=-1), norms, out=np.zeros_like(norms), where=norms > 0)
    return correlation


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    ranks: np.ndarray = rankdata(values, axis=-1)
    return ranks - ranks.mean(axis=-1, keepdims=True)


def partial_correlation(x: np.ndarray, y: np.ndarray, control: np.ndarray, reliability: float = 1.0) -> np.ndarray:
    """Return Spearman's correlation of x and y where `control` is equal, over the last axis.

    Args:
        x: values [..., n].
        y: values [..., n].
        control: readings [..., n] of what is held equal.
        reliability: of these readings; below 1 the result is corrected for their error (Cochran 1968).
    """
    xy, xz, yz = spearman(x, y), spearman(x, control), spearman(y, control)
    norms = np.sqrt((reliability - xz**2).clip(0) * (reliability - yz**2).clip(0))
    correlation: np.ndarray = np.divide(reliability * xy - xz * yz, norms, out=np.zeros_like(norms), where=norms > 1e-6)
    return correlation.clip(-1, 1)


def resampled(figure: Callable[[np.ndarray], np.ndarray], rows: int) -> Estimate:
    """Return `figure` of all rows, with an interval from resampled ones.

    The resamples are the same for every figure of so many rows. `figure` takes places of rows [..., n] and returns
    [...].
    """
    picks = np.random.default_rng(0).integers(rows, size=(_RESAMPLES, rows))
    values = np.concatenate([[figure(np.arange(rows))], figure(picks)])
    estimate = between_percentiles(values)
    assert estimate is not None  # a rank correlation is a number, 0 where there is none
    return estimate


@cache
def power_with_choice(choose: int, confirm: int, candidates: int, correlation: float, others: float = 0.1) -> float:
    """Return the share of simulated studies that show a partial correlation above 0, their choice counted.

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
    true = true[:, None]
    count = choose + confirm
    target, control = random.normal(size=(2, _STUDIES, 1, count))
    noise = random.normal(size=(_STUDIES, candidates, count))
    figures = control + true * target + np.sqrt(1 - true**2) * noise  # [studies, candidates, recipes]
    targets = np.broadcast_to(control + target, figures.shape)
    controls = np.broadcast_to(control, figures.shape)
    on_choose = partial_correlation(figures[..., :choose], targets[..., :choose], controls[..., :choose])
    on_confirm = partial_correlation(figures[..., choose:], targets[..., choose:], controls[..., choose:])
    chosen = on_choose.argmax(axis=1)
    is_above_zero = _is_above_zero(on_confirm[np.arange(_STUDIES), chosen], confirm)
    return float(is_above_zero.mean())


@cache
def smallest_visible_by_choice(choose: int, confirm: int, candidates: int) -> float:
    """Return the true partial correlation of the best candidate that 80 % of studies show, their choice counted.

    Args:
        choose: recipes of training among which is chosen.
        confirm: those on which the question is put.
        candidates: how many there are to choose from.
    """
    for correlation in np.arange(_CORRELATION_STEP, 1, _CORRELATION_STEP):
        if power_with_choice(choose, confirm, candidates, round(float(correlation), 2)) >= _POWER:
            return round(float(correlation), 2)
    return 1.0


def _is_above_zero(correlations: np.ndarray, count: int) -> np.ndarray:
    """Return whether partial correlations over so many recipes are significantly above 0."""
    height = np.arctanh(correlations.clip(-_MOST_CORRELATION, _MOST_CORRELATION))
    # The error of a rank correlation (Bonett and Wright 2000), one degree of freedom less for SA.
    error = np.sqrt((1 + np.tanh(height) ** 2 / 2) / (count - 4))
    is_above: np.ndarray = height - norm.ppf((1 + CONFIDENCE) / 2) * error > 0
    return is_above
