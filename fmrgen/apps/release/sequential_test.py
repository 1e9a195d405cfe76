"""A sequential test of whether a classifier is less robust than another one by more than a margin.

Both classify the same rows, in a random order, and two gamblers bet on the drop (`fmrgen.apps.explain.betting`). Either
verdict is wrong in at most 5 % of cases, looked at after every row.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fmrgen.apps.explain.betting import ERROR, discoveries, drops_of, e_value, log_capital, log_gains
from fmrgen.metrics.intervals import Estimate

_GRID = np.arange(-1.0, 1.0005, 0.001)  # margins among which a bound is searched
_LEAST_LOG_GAIN = 0.5  # of the best bet over all rows; after few rows, or by chance alone, there is less

Verdict = Literal["pass", "fail", "undecided", "invalid"]


@dataclass(frozen=True)
class ClassDrop:
    """The comparison on a class: its rows, the drop in points, and whether it raises an alarm."""

    name: str
    rows: int
    drop: float
    is_alarm: bool


@dataclass(frozen=True)
class Condition:
    """The comparison of two networks on originals that were changed in one way. Shares are percent of these originals.

    Attributes:
        words: how the changed images look.
        attribute: the attribute that was changed.
        originals: number of originals that both networks have right.
        broke: share of originals with an accepted image that the old network has right and the new one wrong.
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
        """Its effect on the new network, as the end of a sentence."""
        return (
            f"{self.words}: {self.broke.value:.1f} % of {self.originals:,} originals broke and "
            f"{self.fixed.value:.1f} % were fixed"
        )


@dataclass(frozen=True)
class Gate:
    """The result of a gate.

    Attributes:
        verdict: `fail`: the drop is larger than `max_drop`, on the rows or under a condition; `pass`: it is smaller on
            the rows, and no condition shows a larger one; `undecided`: there are too few rows, or no originals to
            change; `invalid`: one of the two networks does not work.
        max_drop: the largest drop allowed, in points of accuracy on the perturbed images.
        rows: number of rows that were classified, of `valid_rows`.
        valid_rows: number of valid rows in the split.
        baseline, candidate: accuracy on these rows, in percent.
        drop: their difference in points.
        low, high: bounds of the true drop; each holds with 95 % confidence whenever you stop.
        rows_more: about how many more rows would decide; None if decided, or without a trend.
        classes: the drop in each class, over the same rows.
        notes: cautions about the split and both classifiers; the reason if the verdict is `invalid`.
        baseline_standard, candidate_standard: accuracy on the originals of the first rows that were looked at, in
            percent; None if the split has no originals.
        rows_verdict: the verdict of the rows alone.
        conditions: the comparison on changed originals, the strongest evidence first; empty if none were tried.
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
        return [class_drop for class_drop in self.classes if class_drop.is_alarm]


def decide(drops: np.ndarray, margin: float, error: float = ERROR) -> tuple[Verdict, int]:
    """Return the verdict on rows in their order, and the number of rows that it took: all if it is undecided.

    Args:
        drops: -1, 0 or 1 for each row in turn, [N].
        margin: the largest mean drop allowed, from -1 to 1.
        error: the largest probability of either wrong verdict.
    """
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
    """Return the verdict on rows in a random order, with figures of the rows up to the one that decided it.

    Args:
        baseline: whether the baseline is right on each row, bool [N].
        candidate: whether the candidate is right on each row, bool [N].
        labels: of the rows, [N].
        class_names: by label.
        max_drop: in points, from 0 to less than 100.
        valid_rows: number of valid rows in the split.
    """
    margin = max_drop / 100
    drops = drops_of(baseline, candidate)
    verdict, rows = decide(drops, margin)
    drops = drops[:rows]
    low, high = bounds(drops)
    return Gate(
        verdict,
        max_drop,
        rows,
        valid_rows,
        100 * float(baseline[:rows].mean()),
        100 * float(candidate[:rows].mean()),
        100 * float(drops.mean()),
        100 * low,
        100 * high,
        _rows_more(drops, margin) if verdict == "undecided" else None,
        _classes(drops, labels[:rows], class_names, margin),
        rows_verdict=verdict,
    )


def bounds(drops: np.ndarray) -> tuple[float, float]:
    """Return the lowest and highest mean that no gambler has made implausible so far, at 95 % each."""
    clear = math.log(1 / ERROR)

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


def _rows_more(drops: np.ndarray, margin: float) -> int | None:
    """Return about how many more rows are needed if capital goes on growing at the rate of the best bet so far.

    None if it does not grow.
    """
    if not len(drops):
        return None
    capital = max(float(path[-1]) for path in log_capital(drops, margin))
    rate = max(float(gains.mean(axis=1).max()) for gains in log_gains(drops, margin))
    if rate * len(drops) <= _LEAST_LOG_GAIN:
        return None
    return math.ceil((math.log(1 / ERROR) - capital) / rate)


def _classes(drops: np.ndarray, labels: np.ndarray, names: list[str], margin: float) -> list[ClassDrop]:
    """Return the drop in each class, and which of the classes are discoveries."""
    drops_by_class = [drops[labels == label] for label in range(len(names))]
    is_alarm = discoveries(np.array([e_value(class_drops, margin) for class_drops in drops_by_class]))
    classes = []
    for name, class_drops, alarm in zip(names, drops_by_class, is_alarm, strict=True):
        drop = 0.0
        if len(class_drops):
            drop = 100 * float(class_drops.mean())
        classes.append(ClassDrop(name, len(class_drops), drop, bool(alarm)))
    return classes
