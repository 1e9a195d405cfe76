"""Evidence by betting: e-values of pairs of predictions, and which of many hypotheses they reject.

For each row the drop is 1 where only the first of two conditions holds, -1 where only the second does, and else 0. A
gambler bets that its mean is larger than a margin. With a fair coin they multiply their capital by 20 with a
probability of 1/20 at most (Ville's inequality). The bets are a mixture of constant ones, as in Waudby-Smith and
Ramdas, "Estimating means of bounded random variables by betting" (2024).
"""

import math

import numpy as np

ERROR = 0.05  # probability of a wrong verdict; also the share of false ones among several discoveries

_BETS = np.geomspace(0.01, 0.9, 24)  # shares of the largest bet that can't lose everything
_MOST_LOG_E = 700.0  # exp of more overflows a float


def drops_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return 1 for each row where only `first` is True, -1 where only `second` is, and else 0, [N]."""
    drops: np.ndarray = first.astype(np.int8) - second.astype(np.int8)
    return drops


def e_value(drops: np.ndarray, margin: float) -> float:
    """Return the evidence against "the mean drop is at most the margin", the capital after all rows; 1 for no rows.

    Args:
        drops: -1, 0 or 1 for each row, [N].
        margin: more than -1, to 1.
    """
    gains = np.log1p(np.outer(_BETS / (1 + margin), drops - margin)).sum(axis=1)
    highest = float(gains.max())
    return math.exp(min(highest + math.log(np.exp(gains - highest).mean()), _MOST_LOG_E))


def discoveries(e_values: np.ndarray, error: float = ERROR) -> np.ndarray:
    """Return which hypotheses are rejected, bool [H], by e-BH (Wang and Ramdas 2022).

    On average at most the share `error` of these is false, however the hypotheses depend on each other.

    Args:
        e_values: the evidence against each hypothesis, [H].
        error: the share of false discoveries.
    """
    order = np.argsort(-e_values, kind="stable")
    places = np.arange(1, len(e_values) + 1)
    is_enough = e_values[order] >= len(e_values) / (error * places)
    is_discovery = np.zeros(len(e_values), dtype=bool)
    if is_enough.any():
        last = int(np.flatnonzero(is_enough)[-1])
        is_discovery[order[: last + 1]] = True
    return is_discovery
