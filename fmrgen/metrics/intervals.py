"""Estimates with their 95 % intervals: proportions, means, and ratios whose parts come from the same rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc, ndtri, stdtrit

CONFIDENCE = 0.95
Z = float(ndtri((1 + CONFIDENCE) / 2))  # standard errors on either side of a normal interval
_ROUNDING = 1e-15  # of a variance of shares
_SAME = 1e-9  # ends of an interval that are no further apart are equal but for rounding


@dataclass(frozen=True)
class Estimate:
    """A figure (a rate in percent, or steps) and its 95 % interval.

    There is no interval for a single example, or for the mean of equal values.
    """

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """Return `13.05 [11.1, 15.3]`, or `0.40 [0.39, 0.41]`; the value alone if it has no ends."""
        if self.low is None or self.high is None:
            return f"{self.value:z.2f}"
        digits = 1 if self.high - self.low >= 1 else 2
        return f"{self.value:z.2f} [{self.low:z.{digits}f}, {self.high:z.{digits}f}]"

    def __neg__(self) -> "Estimate":
        """Return the figure with the other sign: the difference of two, seen from the second."""
        if self.low is None or self.high is None:
            return Estimate(-self.value, None, None)
        return Estimate(-self.value, -self.high, -self.low)

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the interval; the value in place of an end that it does not have."""
        low = self.low if self.low is not None else self.value
        high = self.high if self.high is not None else self.value
        return low, high


def format_estimate(estimate: Estimate | None) -> str:
    """Return `13.05 [11.1, 15.3]`; n/a for None."""
    return "n/a" if estimate is None else str(estimate)


def as_percent(estimate: Estimate | None) -> str:
    """Return `13.1 %`, for a sentence; n/a for None."""
    return "n/a" if estimate is None else f"{estimate.value:.1f} %"


def proportion(hits: np.ndarray) -> Estimate | None:
    """Return the share of True in percent, with Wilson's 95 % interval; None for no rows."""
    if not len(hits):
        return None
    return Estimate(100 * int(hits.sum()) / len(hits), *wilson(int(hits.sum()), len(hits)))


def _are_equal(values: np.ndarray) -> bool:
    return bool((values == values[0]).all())


def grouped_proportion(hits: np.ndarray, groups: np.ndarray) -> Estimate | None:
    """Return the share of True in percent, with Wilson's interval of as many independent rows as would be as certain.

    `groups` [N] are equal for hits [N] that depend on each other, as the steps of one row. None for no hits.
    """
    if not len(hits):
        return None
    _, group_of_row, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    count, middle = len(sizes), float(hits.mean())
    rows = float(count)
    deviations = np.bincount(group_of_row, weights=hits) - middle * sizes
    variance = float((deviations**2).sum()) / len(hits) ** 2 * count / max(1, count - 1)
    if variance > _ROUNDING:
        rows = min(middle * (1 - middle) / variance, float(len(hits)))
    return Estimate(100 * middle, *wilson(middle * rows, rows))


def mean(values: np.ndarray, least: float = -math.inf) -> Estimate | None:
    """Return the mean with Student's interval, which has no ends if all values are equal; None for no values.

    `least` is the smallest value that is possible, and therefore the smallest end.
    """
    if not len(values):
        return None
    middle = float(values.mean())
    if _are_equal(values):
        return Estimate(middle, None, None)
    margin = _margin(values)
    return Estimate(middle, max(least, middle - margin), middle + margin)


def _margin(values: np.ndarray) -> float:
    """Return Student's margin of the mean of two or more values [N]."""
    return float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1)) / math.sqrt(len(values))


def paired_difference(first: np.ndarray, second: np.ndarray, per: float = 1.0) -> Estimate:
    """Return the share of True in `first` minus that in `second`, of the same rows, in percent of the share `per`.

    The interval is Agresti and Min's (2005): Wald's with half a row added to each combination, so that it has a width
    even if no row differs.
    """
    low, high = paired_ends(int((first & ~second).sum()), int((second & ~first).sum()), len(first))
    value = float(first.mean() - second.mean())
    return Estimate(100 * value / per, 100 * low / per, 100 * high / per)


def paired_ends(only_first: int, only_second: int, rows: int) -> tuple[float, float]:
    """Return the ends of `paired_difference` as shares, from numbers of rows."""
    middle = (only_first - only_second) / (rows + 2)
    margin = Z * math.sqrt((only_first + only_second + 1) / (rows + 2) - middle**2) / math.sqrt(rows + 2)
    return max(-1.0, middle - margin), min(1.0, middle + margin)


def sign_test(more: int, fewer: int) -> float:
    """Return the one-sided p-value of the exact sign test, McNemar's: so many `more` than `fewer`, or more, by chance.

    `more` are the rows of which only the first of two paired outcomes holds, `fewer` those of which only the second
    does.
    """
    return float(bdtrc(more - 1, more + fewer, 0.5)) if more else 1.0


def independent_mean(parts: Sequence[tuple[float, np.ndarray]]) -> Estimate:
    """Return the weighted sum of the means of independent samples, (weight, values [N]) each, with the normal interval.

    The interval has no ends if the values of each sample are equal.
    """
    middle = sum(weight * float(values.mean()) for weight, values in parts)
    variance = sum(weight**2 * float(values.var(ddof=1)) / len(values) for weight, values in parts if len(values) > 1)
    if variance == 0:
        return Estimate(middle, None, None)
    margin = Z * math.sqrt(variance)
    return Estimate(middle, middle - margin, middle + margin)


def foundation_model_robustness(hit: np.ndarray, valid: np.ndarray, original_hit: np.ndarray) -> Estimate | None:
    """Return FMR = PA / SA × 100, with SA over all examples (paper §3.3).

    PA is over the valid ones. The interval joins Wilson's intervals of PA and SA, which come from the same examples and
    so depend on each other (MOVER: Donner and Zou 2012). No end is beyond 100 in percent of the low end of SA, since PA
    is at most 100. None if no row is valid or SA is zero.

    All are bool [N]: `hit` is whether the classifier is right on a perturbed image, `original_hit` on its original.
    """
    if not valid.any() or not original_hit.any():
        return None
    over, under = float(hit[valid].mean()), float(original_hit.mean())
    over_low, over_high = (end / 100 for end in wilson(int(hit[valid].sum()), int(valid.sum())))
    under_low, under_high = (end / 100 for end in wilson(int(original_hit.sum()), len(valid)))
    over_influence, under_influence = np.where(valid, hit - over, 0), original_hit - under
    scale = math.sqrt(float((over_influence**2).sum() * (under_influence**2).sum()))
    correlation = float(over_influence @ under_influence) / scale if scale else 0.0

    def end(of_over: float, of_under: float, side: int) -> float | None:
        middle = over * under - correlation * abs((of_over - over) * (of_under - under))
        square = of_under * (2 * under - of_under)
        root = max(0.0, middle**2 - of_over * (2 * over - of_over) * square)
        return (middle + side * math.sqrt(root)) / square if square > 0 else None

    low, high = end(over_low, under_high, -1), end(over_high, under_low, 1)
    if low is None:  # SA is small, and may be twice as high
        low = over_low / under_high
    ends = 100 * max(0.0, low), 100 * high if high is not None else math.inf
    return _cut_estimate(100 * over / under, *ends, valid, original_hit)


def _cut_estimate(ratio: float, low: float, high: float, valid: np.ndarray, original_hit: np.ndarray) -> Estimate:
    """Return an accuracy on valid rows [N] in percent of that of `original_hit` [N], with its interval.

    It is cut where the accuracy would exceed 100 %. If its ends are equal but for rounding, they are as far from the
    ratio as it may lie from what was observed, although no row shows it.
    """
    if math.isclose(low, high, abs_tol=_SAME):
        unseen = most_unseen(int(valid.sum())) / float(original_hit.mean())
        low, high = max(ratio - unseen, 0.0), ratio + unseen
    least_standard = wilson(int(original_hit.sum()), len(original_hit))[0]
    return Estimate(ratio, low, min(high, 100 * 100 / least_standard))


def most_unseen(rows: float) -> float:
    """Return the percent of a kind that may exist although none of the rows is of it: Wilson's upper end."""
    return wilson(0, rows)[1]


def mean_of_ratio(part: np.ndarray, valid: np.ndarray, original_hit: np.ndarray) -> Estimate | None:
    """Return the mean of `part` over valid rows in percent of the share of `original_hit` in all rows.

    The parts are from 0 to 1. The interval is the delta method's, paired: both come from the same rows. If all parts
    are equal, or the interval has no width, it is made as that of FMR. None if there is nothing to divide.
    """
    ratio_with_influence = ratio_and_influence(part, valid, original_hit)
    if ratio_with_influence is None:
        return None
    ratio, influence = ratio_with_influence
    if _are_equal(part[valid]):
        over = share(Estimate(100 * float(part[valid][0]), None, None), int(valid.sum()))
        low, high = wilson(int(original_hit.sum()), len(original_hit))
        under = 100 * int(original_hit.sum()) / len(original_hit)
        return Estimate(100 * over.value / under, 100 * over.ends[0] / high, 100 * over.ends[1] / low)
    margin = _margin(influence)
    return _cut_estimate(ratio, max(ratio - margin, 0.0), ratio + margin, valid, original_hit)


def ratio_and_influence(
    part: np.ndarray, valid: np.ndarray, original_hit: np.ndarray
) -> tuple[float, np.ndarray] | None:
    """Return the mean of `part` over valid rows in percent of the share of `original_hit` in all rows.

    With it comes the influence of every row [N]: the ratio varies as the mean of these does. None if there is nothing
    to divide.
    """
    if not valid.any() or not original_hit.any():
        return None
    over, under = float(part[valid].mean()), float(original_hit.mean())
    part_influence = np.where(valid, (part - over) / valid.mean(), 0)
    return 100 * over / under, 100 * (part_influence / under - over / under**2 * (original_hit - under))


def difference_of_ratios(
    figures: Sequence[tuple[float, np.ndarray] | None], unseen: Sequence[float], most: float = math.inf
) -> Estimate | None:
    """Return the first of two figures of the same rows less the second, None where one is undefined.

    The interval is Student's of the rows' influences, so it is paired. Both figures have the influence of every row on
    them [N], as of `ratio_and_influence`. `unseen` is how far each may lie from what was observed, where all of its
    rows are alike; `most` is how far apart they can be.
    """
    first, second = figures
    if first is None or second is None:
        return None
    value, influence = first[0] - second[0], first[1] - second[1]
    squares = [_margin(influence) ** 2] if len(influence) > 1 else []
    for (_, own), allowance in zip((first, second), unseen, strict=True):
        if _are_equal(own):
            squares.append(allowance**2)
    margin = math.sqrt(sum(squares)) or max(unseen)  # where no row tells the two apart
    return Estimate(value, max(-most, value - margin), min(most, value + margin))


def share(percent: Estimate, rows: float) -> Estimate:
    """Return a mean of shares with Wilson's interval, whose ends are shares too, instead of a symmetric one.

    The mean is from 0 to 100, but its interval may exceed that range. The new one is that of as many coin tosses as
    would have an interval of the same width; of `rows`, the number of examples, if it has no width.
    """
    middle = min(1.0, max(0.0, percent.value / 100))
    low, high = percent.ends
    error = (high - low) / 200 / Z
    tosses = rows
    if error > 0 and 0 < middle < 1:
        tosses = middle * (1 - middle) / error**2
    return Estimate(min(100.0, max(0.0, percent.value)), *wilson(middle * tosses, tosses))


def wilson(hits: float, rows: float) -> tuple[float, float]:
    """Return the ends of Wilson's interval for a proportion, in percent."""
    if not rows:
        return 0.0, 100.0
    middle, margin = 2 * hits + Z**2, Z * np.sqrt(4 * hits * (rows - hits) / rows + Z**2)
    low, high = 0.0, 100.0
    if hits:
        low = 100 * float((middle - margin) / (2 * (rows + Z**2)))
    if hits < rows:
        high = 100 * float((middle + margin) / (2 * (rows + Z**2)))
    return low, high
