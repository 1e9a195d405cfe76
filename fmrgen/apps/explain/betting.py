"""Evidence by betting: e-values of pairs of answers, and which of many hypotheses they reject.

Two classifiers answer the same rows. For each row the drop is 1 where only the first is right, -1 where only the second
is, and else 0; its mean is the drop in accuracy. Two gamblers bet against what must not be true: one against "the mean
is at most the margin", one against "it is at least the margin". A gambler with a fair coin multiplies their capital by
20 with a probability of 1/20 at most, however long they play and whenever they stop (Ville's inequality). The bets are
a mixture of constant ones, as in Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting"
(2024).
"""

import math

import numpy as np

ERROR = 0.05  # probability of a wrong verdict; also the share of false ones among several discoveries

_BETS = np.geomspace(0.01, 0.9, 24)  # shares of the largest bet that can't lose everything
_GRID = np.arange(-1.0, 1.0005, 0.001)  # means among which a bound is searched
_MOST_LOG_E = 700.0  # exp of more overflows a float


def drops_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return 1 for each row where only `first` is True, -1 where only `second` is, and else 0, [N]."""
    drops: np.ndarray = first.astype(np.int8) - second.astype(np.int8)
    return drops


def log_capital(drops: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithm of both gamblers' capital after each row.

    Args:
        drops: -1, 0 or 1 for each row in turn, [N].
        margin: from -1 to 1.

    Returns:
        That of the one who bets that the mean is larger than the margin, and of the one who bets that it is smaller,
        [N] each. Either is a test martingale: if they are wrong it passes log(1 / e) with a probability of at most e.
    """
    larger, smaller = log_gains(drops, margin)
    return _log_mean_exp(larger.cumsum(axis=1)), _log_mean_exp(smaller.cumsum(axis=1))


def log_capital_of(outcomes: np.ndarray, counts: np.ndarray) -> float:
    """Return the logarithm of the capital of one who bets that the mean outcome is above 0; the order does not matter.

    Args:
        outcomes: the values that occur, [V], of any size.
        counts: how often each did, [V].
    """
    return float(_log_mean_exp(_log_gains_of(outcomes) @ counts))


def fastest_growth(outcomes: np.ndarray, counts: np.ndarray) -> float:
    """Return by how much the logarithm of the capital of the best of these bets grows with each outcome, on average.

    Args:
        outcomes: as of `log_capital_of`.
        counts: likewise; there is one at least.
    """
    return float((_log_gains_of(outcomes) @ counts).max() / counts.sum())


def _log_gains_of(outcomes: np.ndarray) -> np.ndarray:
    """Return the logarithm of the factor by which each bet multiplies its stake on each outcome, [bets, V]."""
    worst = max(1.0, -float(outcomes.min()))  # no bet can lose more than its stake
    gains: np.ndarray = np.log1p(np.outer(_BETS, outcomes / worst))
    return gains


def e_value(drops: np.ndarray, margin: float) -> float:
    """Return the evidence against "the mean drop is at most the margin", the capital after all rows; 1 for no rows.

    Args:
        drops: -1, 0 or 1 for each row in turn, [N].
        margin: from -1 to 1.
    """
    if not len(drops):
        return 1.0
    larger, _ = log_capital(drops, margin)
    return math.exp(min(float(larger[-1]), _MOST_LOG_E))


def discoveries(e_values: np.ndarray, error: float = ERROR) -> np.ndarray:
    """Return which hypotheses are rejected, bool [H], by e-BH (Wang and Ramdas 2022).

    On average at most the share `error` of these is false, however the hypotheses depend on each other and whatever
    made each test stop.

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


def log_gains(drops: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithm of the factor by which each bet multiplies its stake on each row, [bets, N], for both."""
    gain = drops - margin
    larger_bets = _BETS / (1 + margin) if margin > -1 else _BETS
    smaller_bets = -_BETS / (1 - margin) if margin < 1 else -_BETS
    return np.log1p(np.outer(larger_bets, gain)), np.log1p(np.outer(smaller_bets, gain))


def bounds(drops: np.ndarray, error: float) -> tuple[float, float]:
    """Return the lowest and highest mean that no gambler has made implausible so far.

    Args:
        drops: -1, 0 or 1 for each row in turn, [N].
        error: the probability that either bound is wrong, whenever one stops.
    """
    clear = math.log(1 / error)

    def is_implausible(place: int, gambler: int) -> bool:
        return float(log_capital(drops, _GRID[place])[gambler].max()) >= clear

    mean = int(np.searchsorted(_GRID, drops.mean()))
    # Binary searches: capital falls as the margin comes near the mean.
    low, last = 0, mean
    while low < last:
        middle = (low + last) // 2
        if is_implausible(middle, 0):
            low = middle + 1
        else:
            last = middle
    first, high = mean, len(_GRID) - 1
    while first < high:
        middle = (first + high + 1) // 2
        if is_implausible(middle, 1):
            high = middle - 1
        else:
            first = middle
    return float(_GRID[low]), float(_GRID[min(first, len(_GRID) - 1)])


def _log_mean_exp(values: np.ndarray) -> np.ndarray:
    """Return the log of the mean of exp over the first axis, ten times as fast as with SciPy's logsumexp."""
    highest = values.max(axis=0)
    mean: np.ndarray = np.log(np.exp(values - highest).mean(axis=0)) + highest
    return mean
