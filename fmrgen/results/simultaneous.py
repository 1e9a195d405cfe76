"""Which classifiers differ beyond chance, with 95 % confidence for all of their pairs at once."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from fmrgen.metrics.intervals import CONFIDENCE

_DRAWS = 20_000


def above(values: Sequence[np.ndarray], influences: Sequence[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """Of each set of classifiers [C, C]: whether the first is above the second beyond chance, each set by itself.

    Two are apart where their difference is beyond the largest that chance makes of any pair of any set (the maximum of
    the studentised differences, by their joint normal distribution): so no pair is wrongly told apart in 95 % of cases.

    Args:
        values: a figure of each classifier [C], in each set.
        influences: of the rows on it [C, N], the same rows for all.
        seed: of the draws.
    """
    together = np.concatenate([*influences])
    covariance = together @ together.T / together.shape[1] ** 2
    zeros = np.zeros(len(together))
    draws = np.random.default_rng(seed).multivariate_normal(zeros, covariance, _DRAWS, check_valid="ignore")
    variance, largest, start, errors = np.diag(covariance), np.zeros(_DRAWS), 0, []
    for own in influences:
        members = slice(start, start + len(own))
        start += len(own)
        of_pairs = variance[members, None] + variance[members] - 2 * covariance[members, members]
        errors.append(np.sqrt(np.maximum(of_pairs, 0)))
        drawn = draws[:, members]
        for a, b in combinations(range(len(own)), 2):
            if errors[-1][a, b] > 0:
                largest = np.maximum(largest, np.abs(drawn[:, a] - drawn[:, b]) / errors[-1][a, b])
    beyond = float(np.quantile(largest, CONFIDENCE))
    return [own[:, None] - own > beyond * error for own, error in zip(values, errors, strict=True)]
