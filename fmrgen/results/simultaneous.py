"""Which classifiers differ beyond chance, with 95 % confidence for all of their pairs at once, and so their ranks."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from fmrgen.metrics.intervals import CONFIDENCE

_DRAWS = 20_000  # of the joint normal distribution of all figures


def above(values: Sequence[np.ndarray], influences: Sequence[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """Return for each set of classifiers whether the first is above the second beyond chance, bool [C, C].

    Two of a set are told apart if their difference exceeds the largest that chance makes of any pair of any set (the
    maximum of the studentised differences, by their joint normal distribution): so in 95 % of cases no pair is wrongly
    told apart.

    Args:
        values: a figure of each classifier [C], for each set.
        influences: the influence of every row on each figure [C, N], for each set, with the same rows in all.
        seed: seed of the draws.
    """
    together = np.concatenate([*influences])
    covariance = together @ together.T / together.shape[1] ** 2
    zeros = np.zeros(len(together))
    draws = np.random.default_rng(seed).multivariate_normal(zeros, covariance, _DRAWS, check_valid="ignore")
    variance = np.diag(covariance)
    largest = np.zeros(_DRAWS)  # studentised difference in each draw
    errors = []  # standard error of each difference [C, C], for each set
    start = 0
    for influence in influences:
        members = slice(start, start + len(influence))
        start += len(influence)
        pair_variance = variance[members, None] + variance[members] - 2 * covariance[members, members]
        error = np.sqrt(np.maximum(pair_variance, 0))
        errors.append(error)
        drawn = draws[:, members]
        for a, b in combinations(range(len(influence)), 2):
            if error[a, b] > 0:
                largest = np.maximum(largest, np.abs(drawn[:, a] - drawn[:, b]) / error[a, b])
    critical = float(np.quantile(largest, CONFIDENCE))
    is_above = []
    for figures, error in zip(values, errors, strict=True):
        is_above.append(figures[:, None] - figures > critical * error)
    return is_above


def rank_intervals(is_above: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the best and the worst rank of each, [C], right for all at once where all pairs are (Mogstad et al. 2024).

    Args:
        is_above: whether the first is above the second beyond chance, bool [C, C].
    """
    best = 1 + is_above.sum(0)
    worst = len(is_above) - is_above.sum(1)
    return best.tolist(), worst.tolist()
