"""Estimates with their 95 % intervals: proportions, means, and ratios whose parts come from the same rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

CONFIDENCE = 0.95
RESAMPLES = 10_000
_BINS = 15  # of confidence
FEWER_RESAMPLES = 2_000  # of figures that come by the hundred: a split may have a thousand classes


@dataclass(frozen=True)
class Estimate:
    """A figure (a rate in percent, or steps) and its 95 % interval; a single example's has no ends, nor has that of a
    mean of equal values."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """`13.05 [11.1, 15.3]`; the value alone where it has no ends."""
        if self.low is None or self.high is None:
            return f"{self.value:z.2f}"
        return f"{self.value:z.2f} [{self.low:z.1f}, {self.high:z.1f}]"


def format_estimate(estimate: Estimate | None) -> str:
    """`13.05 [11.1, 15.3]`; n/a where there is none."""
    return "n/a" if estimate is None else str(estimate)


def format_coefficient(estimate: Estimate | None) -> str:
    """`0.79 [0.12, 1.00]`: a coefficient, which needs more digits than a rate in percent; n/a where there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return format_estimate(estimate)
    return f"{estimate.value:z.2f} [{estimate.low:z.2f}, {estimate.high:z.2f}]"


def interval_ends(estimate: Estimate) -> tuple[float, float]:
    """The ends of an interval; of one that has none its value."""
    low, high = estimate.low, estimate.high
    return estimate.value if low is None else low, estimate.value if high is None else high


def proportion(hits: np.ndarray) -> Estimate | None:
    """The share of True with Wilson's interval, None for no rows."""
    if not len(hits):
        return None
    return Estimate(100 * int(hits.sum()) / len(hits), *wilson(int(hits.sum()), len(hits)))


def _are_alike(values: np.ndarray) -> bool:
    return bool((values == values[0]).all())


def has_no_width(estimate: Estimate) -> bool:
    """Whether the ends of an interval are one, but for rounding."""
    low, high = interval_ends(estimate)
    return math.isclose(low, high, abs_tol=1e-9)


def mean(values: np.ndarray, least: float = -math.inf) -> Estimate | None:
    """The mean with Student's interval, which equal values do not tell; None for no values. None of them is below
    `least`, so neither is an end."""
    if not len(values):
        return None
    middle = float(values.mean())
    if _are_alike(values):
        return Estimate(middle, None, None)
    margin = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(middle, max(least, middle - margin), middle + margin)


def paired_difference(first: np.ndarray, second: np.ndarray, per: float = 1.0) -> Estimate:
    """The share of True in `first` less that in `second`, of the same rows [N], in percent of `per`.

    The interval is Agresti and Min's (2005): Wald's with half a row added to each combination of answers, so that it
    has a width where no row differs.
    """
    rows = len(first) + 2
    only_first, only_second = ((one & ~other).sum() + 0.5 for one, other in ((first, second), (second, first)))
    middle = (only_first - only_second) / rows
    margin = float(ndtri((1 + CONFIDENCE) / 2)) * math.sqrt((only_first + only_second) / rows - middle**2) / rows**0.5
    value = float(first.mean() - second.mean())
    return Estimate(*(100 * float(end) / per for end in (value, middle - margin, middle + margin)))


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray) -> Estimate:
    """The mean over rows [N] of how far their bin's mean confidence is from its accuracy, in points (Guo et al. 2017).

    By chance it is too high, for distances have no sign: by at most the errors of all bins together, which the
    interval's low end takes off, down to 0. It is too low by no more than the error of a mean, which makes the high
    one. Where all rows of a bin are right, their own spread is nearly 0 and does not tell its error: so that is the
    binomial one, at Wilson's middle of the bin's accuracy. How many rows fall into which bin is chance too, and adds to
    both ends. The interval is conservative: it holds the truth in 95 % of samples or more.
    """
    bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    known = counts > 0
    rows = counts[known]  # [B], as are all below
    sure = np.bincount(bins, weights=confidence, minlength=_BINS)[known] / rows
    hits = np.bincount(bins, weights=right, minlength=_BINS)[known]
    distances = np.abs(sure - hits / rows)
    share = rows / len(confidence)
    value = float(share @ distances)

    z = float(ndtri((1 + CONFIDENCE) / 2))
    middle = (hits + z**2 / 2) / (rows + z**2)
    variance = middle * (1 - middle)
    between = max(0.0, float(share @ distances**2) - value**2) / len(confidence)
    within = share**2 * variance / rows

    random = np.random.default_rng(0)
    added = np.abs(random.normal(size=(FEWER_RESAMPLES, len(rows)))) @ np.sqrt(within)
    added += random.normal(size=FEWER_RESAMPLES) * math.sqrt(between)
    most = float(np.percentile(added, 100 * (1 + CONFIDENCE) / 2))
    margin = z * math.sqrt(float(within.sum()) + between)
    low, high = max(0.0, value - most), min(1.0, value + margin)
    return Estimate(100 * value, 100 * low, 100 * high)


def ratio_of_rates(hits: int, rows: int, base_hits: int, base_rows: int) -> Estimate | None:
    """How many times as often something happens in some rows as in others, with the interval of its logarithm, half a
    hit added to each; None where it never happens."""
    if not rows or not base_rows or not hits + base_hits:
        return None
    parts = [(hits + 0.5) / (rows + 1), (base_hits + 0.5) / (base_rows + 1)]
    error = math.sqrt(1 / (hits + 0.5) - 1 / (rows + 1) + 1 / (base_hits + 0.5) - 1 / (base_rows + 1))
    middle, margin = parts[0] / parts[1], math.exp(float(ndtri((1 + CONFIDENCE) / 2)) * error)
    return Estimate(middle, middle / margin, middle * margin)


def independent_mean(parts: Sequence[tuple[float, np.ndarray]]) -> Estimate:
    """The weighted sum of the means of independent samples, (weight, values [N]) each, with the normal interval, which
    samples of equal values do not tell."""
    middle = sum(weight * float(values.mean()) for weight, values in parts)
    variance = sum(weight**2 * float(values.var(ddof=1)) / len(values) for weight, values in parts if len(values) > 1)
    if variance == 0:
        return Estimate(middle, None, None)
    margin = float(ndtri((1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    return Estimate(middle, middle - margin, middle + margin)


class Resampled:
    """N examples, and the same drawn again with replacement many times, as numbers of examples of each sort.

    An example counts only through which of its answers are True. So drawing N examples anew is drawing how many there
    are of each combination of answers, whatever N is; and the answers of one example stay together: the bootstrap is
    paired. A statistic is an array over what was observed, the resamples, and what is left without one example of each
    sort.
    """

    def __init__(self, answers: Mapping[str, np.ndarray], resamples: int, seed: int = 0) -> None:
        combination = sum(answer.astype(np.int64) << bit for bit, answer in enumerate(answers.values()))
        present, self._observed = np.unique(combination, return_counts=True)
        rows = self._observed.sum()
        drawn = np.random.default_rng(seed).multinomial(rows, self._observed / rows, size=resamples)
        self._counts = np.vstack([self._observed, drawn, self._observed - np.eye(len(present), dtype=np.int64)])
        self._is = {name: (present >> bit & 1).astype(bool) for bit, name in enumerate(answers)}

    def rate(self, answer: str, among: str | None = None) -> np.ndarray:
        """Percent of the examples (those with `among`) that have `answer`; NaN where there are none."""
        base = np.ones_like(self._is[answer]) if among is None else self._is[among]
        total = self._counts[:, base].sum(1)
        hits = self._counts[:, base & self._is[answer]].sum(1)
        return np.where(total > 0, 100 * hits / np.maximum(total, 1), np.nan)

    def estimate(self, statistic: np.ndarray) -> Estimate | None:
        """What was observed with its BCa interval (Efron 1987); None where it is undefined.

        Plain percentiles of the resamples miss a rare hit's truth more often above than below; BCa corrects for it.
        """
        value, drawn, without = np.split(statistic, [1, len(statistic) - len(self._observed)])
        if np.isnan(value[0]):
            return None
        drawn = drawn[~np.isnan(drawn)]
        below = ((drawn < value).sum() + 0.5 * (drawn == value).sum()) / len(drawn)
        weights = np.where(np.isnan(without), 0, self._observed)
        without = np.nan_to_num(without)
        shift = np.average(without, weights=weights) - without if weights.any() else without
        spread = (weights * shift**2).sum() ** 1.5
        skew = (weights * shift**3).sum() / (6 * spread) if spread > 0 else 0.0
        bias = ndtri(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
        ends = bias + ndtri([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        low, high = np.percentile(drawn, 100 * ndtr(bias + ends / (1 - skew * ends)))
        return Estimate(float(value[0]), float(low), float(high))


def in_percent_of(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, 100 * part / np.where(whole > 0, whole, 1), np.nan)


def foundation_model_robustness(
    perturbed_hit: np.ndarray,
    valid: np.ndarray,
    original_hit: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Estimate | None, Estimate | None]:
    """FMR = PA / SA × 100 of N examples, bool [N] each, with SA over all of them, and with SA over the valid ones.

    PA is over the valid ones. The intervals are the paired bootstrap's, since PA and SA come from the same examples.
    Where none or all of the valid rows are hits there is nothing to resample, and the interval is Wilson's ends of PA
    divided by those of SA; where just the hits on originals are hits, as many rows may differ as Wilson's interval
    leaves where none does. No end is beyond 100 in percent of the low end of SA, since PA is at most 100. None where no
    row is valid or SA is zero.
    """
    if not valid.any() or not original_hit.any():
        return None, None
    drawn = Resampled({"valid": valid, "perturbed": perturbed_hit, "original": original_hit}, resamples, seed)
    perturbed_accuracy = drawn.rate("perturbed", among="valid")
    estimates = []
    for among, hits in ((None, original_hit), ("valid", original_hit[valid])):
        estimate = drawn.estimate(in_percent_of(perturbed_accuracy, drawn.rate("original", among)))
        if estimate is not None and _are_alike(perturbed_hit[valid]):
            estimate = ratio_of_proportions(proportion(perturbed_hit[valid]), proportion(hits))
        elif estimate is not None and has_no_width(estimate):
            estimate = apart_by(estimate.value, most_unseen(int(valid.sum())) / float(hits.mean()))
        estimates.append(None if estimate is None else _within_reach(estimate, hits))
    return estimates[0], estimates[1]


def _within_reach(ratio: Estimate, original_hit: np.ndarray) -> Estimate:
    """An accuracy in percent of that of `original_hit` [N], its interval cut where the accuracy would exceed 100."""
    low, high = interval_ends(ratio)
    least_standard = wilson(int(original_hit.sum()), len(original_hit))[0]
    return Estimate(ratio.value, low, min(high, 100 * 100 / least_standard))


def most_unseen(rows: float) -> float:
    """How many in a hundred may be of a kind that none of the rows is of: the upper end of Wilson's interval."""
    return wilson(0, rows)[1]


def apart_by(value: float, margin: float, least: float = 0.0, most: float = math.inf) -> Estimate:
    """A figure from `least` to `most`, and its interval of so much on either side."""
    return Estimate(value, max(value - margin, least), min(value + margin, most))


def ratio_of_proportions(over: Estimate | None, under: Estimate | None) -> Estimate | None:
    """A proportion in percent of another, from its low end by the other's high end to the opposite; None where there is
    nothing to divide.
    """
    if over is None or under is None or not over.high or not under.low or over.low is None or under.high is None:
        return None
    return Estimate(100 * over.value / under.value, 100 * over.low / under.high, 100 * over.high / under.low)


def mean_of_ratio(part: np.ndarray, valid: np.ndarray, original_hit: np.ndarray) -> Estimate | None:
    """The mean of `part` over valid rows in percent of the share of `original_hit` in all rows, [N] each.

    The interval is the delta method's, paired: both come from the same rows. Where it knows of no chance, it is made as
    that of FMR. None where there is nothing to divide.
    """
    found = ratio_and_influence(part, valid, original_hit)
    if found is None:
        return None
    ratio, influence = found
    if _are_alike(part[valid]):
        alike = Estimate(100 * float(part[valid][0]), None, None)
        return ratio_of_proportions(share(alike, int(valid.sum())), proportion(original_hit))
    margin = float(ndtri((1 + CONFIDENCE) / 2) * influence.std() / np.sqrt(len(valid)))
    if math.isclose(margin, 0, abs_tol=1e-9):
        margin = most_unseen(int(valid.sum())) / float(original_hit.mean())
    return _within_reach(apart_by(ratio, margin), original_hit)


def ratio_and_influence(
    part: np.ndarray, valid: np.ndarray, original_hit: np.ndarray
) -> tuple[float, np.ndarray] | None:
    """The mean of `part` over valid rows in percent of the share of `original_hit` in all rows, [N] each.

    With it the influence of every row [N]: the ratio varies as the mean of these does. None where there is nothing to
    divide.
    """
    if not valid.any() or not original_hit.any():
        return None
    over, under = float(part[valid].mean()), float(original_hit.mean())
    of_part = np.where(valid, (part - over) / valid.mean(), 0)
    return 100 * over / under, 100 * (of_part / under - over / under**2 * (original_hit - under))


def macro_robustness(
    perturbed_hit: np.ndarray,
    valid: np.ndarray,
    original_hit: np.ndarray,
    label: np.ndarray,
    *,
    resamples: int = FEWER_RESAMPLES,
    seed: int = 0,
) -> Estimate | None:
    """FMR with every class of the same weight: the mean of the classes' PA by the mean of their SA.

    Arrays [N] each. A class without a valid row has no PA and counts in neither mean. The interval is the percentile
    bootstrap's, drawn within classes. Where every class has none or all of its valid rows as hits, or just its hits on
    originals, it is made as that of FMR, of as many rows as would tell as much if they were of one class. None where no
    class has a valid row, or SA is zero.
    """
    random = np.random.default_rng(seed)
    perturbed, standard = np.zeros(resamples + 1), np.zeros(resamples + 1)
    classes, alike, scarcity = np.unique(label[valid]), True, np.zeros(2)
    for one in classes:
        rows = label == one
        alike &= _are_alike(perturbed_hit[rows & valid])
        scarcity += 1 / (rows & valid).sum(), 1 / rows.sum()
        answers = {"valid": valid[rows], "perturbed": perturbed_hit[rows], "original": original_hit[rows]}
        drawn = Resampled(answers, resamples, int(random.integers(1 << 31)))
        of_valid = drawn.rate("perturbed", among="valid")[: resamples + 1]
        perturbed += np.where(np.isnan(of_valid), of_valid[0], of_valid)  # drawn without a valid row
        standard += drawn.rate("original")[: resamples + 1]
    value, *drawn_values = in_percent_of(perturbed, standard)
    if np.isnan(value):
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(drawn_values, [tail, 100 - tail])
    found = Estimate(float(value), float(low), float(high))
    of_valid, of_all = len(classes) ** 2 / scarcity
    accuracies = [Estimate(float(drawn[0]) / len(classes), None, None) for drawn in (perturbed, standard)]
    if alike:
        return ratio_of_proportions(share(accuracies[0], of_valid), share(accuracies[1], of_all))
    if has_no_width(found):
        return apart_by(found.value, 100 * most_unseen(of_valid) / accuracies[1].value)
    return found


def share(percent: Estimate, rows: float) -> Estimate:
    """A mean of shares with Wilson's interval, whose ends are shares too, in place of one that is symmetric.

    Args:
        percent: the mean, from 0 to 100, and an interval of it that may be wider than that.
        rows: examples that it is of; they count as so many coin tosses as would have as wide an interval.
    """
    middle = min(1.0, max(0.0, percent.value / 100))
    low, high = interval_ends(percent)
    error = (high - low) / 200 / float(ndtri((1 + CONFIDENCE) / 2))
    tosses = middle * (1 - middle) / error**2 if error > 0 and 0 < middle < 1 else rows
    return Estimate(min(100.0, max(0.0, percent.value)), *wilson(middle * tosses, tosses))


def wilson(hits: float, rows: float) -> tuple[float, float]:
    """The ends of Wilson's interval for a proportion, in percent."""
    if not rows:
        return 0.0, 100.0
    z = float(ndtri((1 + CONFIDENCE) / 2))
    middle, margin = 2 * hits + z**2, z * np.sqrt(4 * hits * (rows - hits) / rows + z**2)
    low, high = ((middle + sign * margin) / (2 * (rows + z**2)) for sign in (-1, 1))
    return 100 * float(low) if hits else 0.0, 100 * float(high) if hits < rows else 100.0
