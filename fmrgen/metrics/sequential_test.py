"""Whether a classifier is less robust than another one by more than is allowed, decided as soon as the rows allow.

Both classify the same rows, in a random order. For each row the drop is 1 where only the baseline is right, -1 where
only the candidate is, and else 0; its mean is the drop in accuracy. Two gamblers bet against what must not be true: one
against "the mean is at most the margin", one against "it is at least the margin". A gambler with a fair coin multiplies
their capital by 20 with a probability of 1/20 at most, however long they play and whenever they stop (Ville's
inequality). So either verdict is wrong in at most 5 % of cases, looked at after every row. The bets are a mixture of
constant ones, as in Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2024).
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fmrgen.metrics.intervals import Estimate

ERROR = 0.05  # of either verdict; also the share of false alarms among the classes with one

_BETS = np.geomspace(0.01, 0.9, 24)  # shares of the largest bet that can't lose everything
_GRID = np.arange(-1.0, 1.0005, 0.001)  # margins that a bound is looked for among

Verdict = Literal["pass", "fail", "undecided", "invalid"]


@dataclass(frozen=True)
class ClassDrop:
    """How a class fares: its rows, the drop in points, and whether it raises an alarm."""

    name: str
    rows: int
    drop: float
    is_alarm: bool


@dataclass(frozen=True)
class Condition:
    """How two networks fare on originals that were changed in one way. Shares are percent of these originals.

    Attributes:
        words: how the changed images look.
        attribute: that was changed.
        originals: that both networks have right as they are.
        broke: of how many some accepted image is one that the old network has right and the new one wrong.
        fixed: the reverse.
        e_value: the evidence against "no more of them broke than were fixed", or than the margin admits.
        is_worse: whether the evidence is significant among all conditions that were tried.
    """

    words: str
    attribute: str
    originals: int
    broke: Estimate
    fixed: Estimate
    e_value: float
    is_worse: bool

    @property
    def line(self) -> str:
        """What it did to the new network, as the end of a sentence."""
        return (
            f"{self.words}: {self.broke.value:.1f} % of {self.originals:,} originals broke and "
            f"{self.fixed.value:.1f} % were fixed"
        )


@dataclass(frozen=True)
class Gate:
    """What a gate found.

    Attributes:
        verdict: `fail`: the drop is larger than `max_drop`, on the rows or under a condition; `pass`: it is smaller on
            the rows, and no condition shows a larger one; `undecided`: the rows don't tell, or nothing else could be
            looked at; `invalid`: one of the two is no working network, and nothing is decided.
        max_drop: in points of accuracy on the perturbed images.
        rows: that were classified, of `valid_rows`.
        valid_rows: of the split.
        baseline, candidate: accuracy on these rows, in percent.
        drop: their difference in points.
        low, high: bounds of the drop in the long run, each of which holds with 95 %, whenever one looks.
        rows_more: about how many more rows would decide it; None where it is decided, or nothing tends either way.
        classes: the drop in each class, over the same rows.
        notes: what a reader must know of the split and of the two; why the verdict is `invalid`.
        baseline_standard, candidate_standard: accuracy on the originals of the first rows that were looked at, in
            percent; None where the split has no originals.
        rows_verdict: what the rows alone say.
        conditions: how both fare on changed originals, the strongest evidence first; none where these were not tried.
    """

    verdict: Verdict
    max_drop: float
    rows: int
    valid_rows: int
    baseline: float
    candidate: float
    drop: float
    low: float
    high: float
    rows_more: int | None
    classes: list[ClassDrop] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    baseline_standard: float | None = None
    candidate_standard: float | None = None
    rows_verdict: Verdict = "undecided"
    conditions: list[Condition] = field(default_factory=list)

    @property
    def worse(self) -> list[Condition]:
        """The conditions under which the candidate is significantly worse."""
        return [condition for condition in self.conditions if condition.is_worse]

    @property
    def alarms(self) -> list[ClassDrop]:
        """Classes whose drop is larger than `max_drop`; at most 5 % of such alarms are false, on average."""
        return [one for one in self.classes if one.is_alarm]


def log_capital(drops: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """The logarithm of both gamblers' capital after each row.

    Args:
        drops: -1, 0 or 1 for each row in turn, [N].
        margin: from -1 to 1.

    Returns:
        Of the one who bets that the mean is larger than the margin, and of the one who bets that it is smaller, [N]
        each. Either is a test martingale: it passes log(1 / e) with a probability of e at most if they are wrong.
    """
    larger, smaller = _log_gains(drops, margin)
    return _mean_of_exp(larger.cumsum(axis=1)), _mean_of_exp(smaller.cumsum(axis=1))


def _log_gains(drops: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """By how much each bet [bets] of either gambler multiplies their stake on each row, in the logarithm."""
    gain = drops - margin
    larger = np.log1p(np.outer(_BETS / (1 + margin) if margin > -1 else _BETS, gain))
    smaller = np.log1p(np.outer(-_BETS / (1 - margin) if margin < 1 else -_BETS, gain))
    return larger, smaller


def drops_of(baseline: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """-1, 0 or 1 for each row, [N], from whether each classifier is right on it, bool [N]."""
    drops: np.ndarray = baseline.astype(np.int8) - candidate.astype(np.int8)
    return drops


def decide(drops: np.ndarray, margin: float, error: float = ERROR) -> tuple[Verdict, int]:
    """The verdict on rows in their order, either one wrong with a probability of `error` at most, and after how many of
    them it was clear; else all."""
    larger, smaller = log_capital(drops, margin)
    clear = math.log(1 / error)
    fails, passes = np.flatnonzero(larger >= clear), np.flatnonzero(smaller >= clear)
    if len(fails) and not (len(passes) and passes[0] < fails[0]):
        return "fail", int(fails[0]) + 1
    if len(passes):
        return "pass", int(passes[0]) + 1
    return "undecided", len(drops)


def gate(
    baseline: np.ndarray,
    candidate: np.ndarray,
    labels: np.ndarray,
    class_names: list[str],
    max_drop: float,
    valid_rows: int,
) -> Gate:
    """The verdict on rows in a random order.

    Args:
        baseline: whether it is right on each row, bool [N].
        candidate: whether it is.
        labels: of the rows, [N].
        class_names: by label.
        max_drop: in points, from 0 to less than 100.
        valid_rows: that there are in all.

    Returns:
        What was found on the rows up to the one that decided it.
    """
    margin = max_drop / 100
    drops = drops_of(baseline, candidate)
    verdict, rows = decide(drops, margin)
    seen = drops[:rows]
    low, high = bounds(seen)
    return Gate(
        verdict,
        max_drop,
        rows,
        valid_rows,
        100 * float(baseline[:rows].mean()),
        100 * float(candidate[:rows].mean()),
        100 * float(seen.mean()),
        100 * low,
        100 * high,
        _rows_more(seen, margin) if verdict == "undecided" else None,
        _classes(seen, labels[:rows], class_names, margin),
        rows_verdict=verdict,
    )


def _mean_of_exp(values: np.ndarray) -> np.ndarray:
    """log of the mean of exp over the first axis."""
    highest = values.max(axis=0)
    mean: np.ndarray = np.log(np.exp(values - highest).mean(axis=0)) + highest
    return mean


def bounds(drops: np.ndarray) -> tuple[float, float]:
    """The lowest and highest mean that no gambler has made implausible so far, at 95 % each."""
    clear = math.log(1 / ERROR)

    def most(margin: float, side: int) -> float:
        return float(log_capital(drops, margin)[side].max())

    low, high = 0, len(_GRID) - 1
    mean = int(np.searchsorted(_GRID, drops.mean()))
    first, last = low, mean
    while first < last:  # the capital falls as the margin comes near the mean
        middle = (first + last) // 2
        first, last = (middle + 1, last) if most(_GRID[middle], 0) >= clear else (first, middle)
    below = first
    first, last = mean, high
    while first < last:
        middle = (first + last + 1) // 2
        first, last = (first, middle - 1) if most(_GRID[middle], 1) >= clear else (middle, last)
    return float(_GRID[below]), float(_GRID[min(first, high)])


def _rows_more(drops: np.ndarray, margin: float) -> int | None:
    """The logarithm of capital grows as that of the best bet so far: how many more rows until it is enough."""
    if not len(drops):
        return None
    capital = max(float(one[-1]) for one in log_capital(drops, margin))
    rate = max(float(gains.mean(axis=1).max()) for gains in _log_gains(drops, margin))
    # What little rate there is after few rows, or what chance alone makes of many, is no sign of a trend.
    return math.ceil((math.log(1 / ERROR) - capital) / rate) if rate * len(drops) > 0.5 else None


def _classes(drops: np.ndarray, labels: np.ndarray, names: list[str], margin: float) -> list[ClassDrop]:
    """The drop in each class, and alarms by e-BH: capital is an e-value, whatever made one stop (Wang, Ramdas 2022)."""
    seen = [drops[labels == label] for label in range(len(names))]
    capital = np.array([float(log_capital(own, margin)[0][-1]) if len(own) else 0.0 for own in seen])
    order = np.argsort(-capital, kind="stable")
    enough = capital[order] >= np.log(len(names) / (ERROR * np.arange(1, len(names) + 1)))
    alarms = set(order[: int(np.flatnonzero(enough)[-1]) + 1].tolist()) if enough.any() else set[int]()
    return [
        ClassDrop(name, len(own), 100 * float(own.mean()) if len(own) else 0.0, label in alarms)
        for label, (name, own) in enumerate(zip(names, seen, strict=True))
    ]
