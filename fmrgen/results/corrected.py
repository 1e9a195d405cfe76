"""Accuracy and FMR corrected for the oracle's mistakes, by a judge who has looked at some or all of the images.

What an oracle lets through may show its class no more: a classifier that then says something else is not wrong. Of the
images that a judge has looked at it is known which do. Those of a stratified sample stand for all of their stratum
(two-phase sampling), and a machine's verdicts on all images, where there are such, make up for images that nobody has
looked at (prediction-powered inference, Angelopoulos et al. 2023): the sample then only has to say how wrong they are.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from fmrgen.metrics.intervals import (
    CONFIDENCE,
    Estimate,
    foundation_model_robustness,
    most_unseen,
    proportion,
    ratio_of_proportions,
    wilson,
)

_Z = float(ndtri((1 + CONFIDENCE) / 2))
_ROUNDING = 1e-9  # of sums of weights


@dataclass(frozen=True)
class Corrected:
    """What is true of the images that still show their class, in percent with 95 % intervals.

    Attributes:
        audited: how many images the judge has looked at.
        preserved: label-preservation rate, the share of valid images that still show their class.
        perturbed_accuracy: PA over those.
        fmr: that by SA; None where SA is zero. It takes the judge to miss as many of the images that fool the
            classifier as of the others.
        fmr_range: the same without that: from FMR had the judge missed every image that fools the classifier and in
            which it does not see the label, to FMR had it missed all such others, each end with its interval.
    """

    audited: int
    preserved: Estimate
    perturbed_accuracy: Estimate
    fmr: Estimate | None
    fmr_range: Estimate | None = None


@dataclass(frozen=True)
class Verdicts:
    """What a judge said of some valid rows of a split.

    Attributes:
        audited: bool [N], which rows it has looked at.
        seen: [N], whether it sees the label there, from 0 to 1: of several judges the share. Elsewhere it counts not.
        stratum: int [N], of the sample, of every valid row; all alike for a simple random sample.
        sensitivity: how often it sees the label of an image that shows it, of `controls` such images.
        controls: how many images that is known from; 0 where it is taken for granted.
        false_positives: how often it sees the label of an image that does not show it.
        chance: how often whoever guesses says the label.
    """

    audited: np.ndarray
    seen: np.ndarray
    stratum: np.ndarray
    sensitivity: float = 1.0
    controls: int = 0
    false_positives: float = 0.0
    chance: float = 0.0

    @property
    def is_better_than_chance(self) -> bool:
        """Whether the controls show that it sees more than whoever guesses; where there are none it is taken to."""
        hits = self.sensitivity * self.controls
        return not self.controls or wilson(hits, self.controls)[0] > 100 * self.chance

    def can_be_counted(self, valid: np.ndarray) -> bool:
        """Whether it has looked at all valid rows, bool [N], and sees nothing where there is nothing, or says so."""
        is_whole = (self.audited | ~valid).all() and np.isin(self.seen[valid], (0, 1)).all()
        return bool(is_whole) and not self.false_positives


class _Sample:
    """The valid rows that a judge has looked at; each stands for others of its stratum."""

    def __init__(self, valid: np.ndarray, verdicts: Verdicts, machine: np.ndarray | None) -> None:
        self.verdicts, self.audited, self.rows = verdicts, verdicts.audited & valid, len(valid)
        stratum, strata = verdicts.stratum, int(verdicts.stratum.max()) + 1
        sizes, looked = (np.bincount(stratum[of], minlength=strata) for of in (valid, self.audited))
        self.covered = valid & (looked > 0)[stratum]  # strata without a look are left out, as if they were not there
        self.weight = np.where(self.audited, (sizes / np.maximum(looked, 1))[stratum], 0.0) / self.rows
        self.shows = np.where(self.audited, verdicts.seen - verdicts.false_positives, 0.0)
        self.predicted = self._tuned(machine)

    def _tuned(self, machine: np.ndarray | None) -> np.ndarray:
        """What is predicted of every covered row: the machine's verdicts, as far as they go with the judge's."""
        if machine is None or (said := machine[self.audited]).std() == 0:
            return np.zeros(self.rows)
        slope = np.clip(np.cov(said, self.shows[self.audited])[0, 1] / said.var(ddof=1), 0, 1)
        return np.where(self.covered, slope * machine, 0.0)

    def total(self, values: np.ndarray) -> float:
        """The mean over all rows of `values` where the image shows its class, else 0."""
        known = np.where(self.covered, values * self.predicted, 0.0)
        return float(known.mean() + (self.weight * values * (self.shows - self.predicted)).sum())

    def standard_error(self, factor: np.ndarray, known: np.ndarray) -> float:
        """Of an estimate whose influence, row by row, is `known` + `factor` × whether the image shows its class [N].

        Rows are drawn from where others like them come from, and in each stratum the judge's from the rows.
        """
        certain = known + np.where(self.covered, factor * self.predicted, 0.0)
        rest = np.where(self.audited, factor * (self.shows - self.predicted), 0.0)
        mean_rest, square_rest = float((self.weight * rest).sum()), float((self.weight * rest**2).sum())
        together = float((self.weight * rest * certain).sum()) - mean_rest * float(certain.mean())
        variance = (certain.var() + 2 * together + square_rest - mean_rest**2) / self.rows
        stratum, several = self.verdicts.stratum, self.audited.sum() > 1
        for one in np.unique(stratum[self.audited]):
            inside = self.audited & (stratum == one)
            size, looked = int((self.covered & (stratum == one)).sum()), int(inside.sum())
            within = rest[inside].var(ddof=1) if looked > 1 else rest[self.audited].var(ddof=1) if several else 0.0
            variance += (size / self.rows) ** 2 * (1 / looked - 1 / size) * float(within)
        return float(np.sqrt(max(variance, 0.0)))

    def tosses(self, among: np.ndarray) -> float:
        """For how many coin tosses those count that were looked at, each by its weight (Kish 1965)."""
        weight = self.weight[self.audited & among]
        return float(weight.sum() ** 2 / (weight**2).sum()) if len(weight) else 0.0


def label_preservation(valid: np.ndarray, verdicts: Verdicts, machine: np.ndarray | None = None) -> Estimate | None:
    """The share of valid images that still show their class; arguments as for `corrected`.

    None where nothing was looked at, or by a judge who sees no more than whoever guesses.
    """
    if not (verdicts.audited & valid).any() or not verdicts.is_better_than_chance:
        return None
    if not verdicts.controls and verdicts.can_be_counted(valid):
        return proportion(verdicts.seen[valid] == 1)
    sample = _Sample(valid, verdicts, machine)
    every = np.ones(len(valid))
    share, visible = float(sample.covered.mean()), verdicts.sensitivity - verdicts.false_positives
    preserved = sample.total(every) / share / visible
    missed = 0.0
    if verdicts.controls:  # a few that were all right are no proof that all would be
        sure = (verdicts.sensitivity * verdicts.controls + 1) / (verdicts.controls + 2)
        missed = sure * (1 - sure) / verdicts.controls
    known = np.where(sample.covered, -preserved / share, 0.0)
    error = sample.standard_error(every / share / visible, known)
    return _share(preserved, float(np.hypot(error, preserved * np.sqrt(missed) / visible)), sample.tosses(valid))


def corrected(
    valid: np.ndarray,
    right: np.ndarray,
    original_right: np.ndarray,
    verdicts: Verdicts,
    machine: np.ndarray | None = None,
) -> Corrected | None:
    """PA and FMR over the images that still show their class.

    A judge who misses as many images that fool the classifier as others is right about both figures: the misses cancel
    out of PA, as they are missing above and below; what it sees where there is nothing is taken off (Rogan and Gladen
    1978). `fmr_range` does without that. The intervals are the delta method's over rows, sample and controls; where all
    of the images looked at are alike that knows of no chance, and they are Wilson's. What can be counted is counted,
    and has the intervals of PA and FMR.

    Args:
        valid: bool [N], of all rows of a split.
        right: bool [N], whether the classifier is right on the perturbed image.
        original_right: bool [N], whether it is right on the original.
        verdicts: of the judge.
        machine: [N], from 0 to 1, what another judge said of every valid row, by which the sample is extended.

    Returns:
        The estimates; None where nothing was looked at, nothing of it shows its class, or the judge sees no more than
        whoever guesses.
    """
    found = _corrected(valid, right, original_right, verdicts, machine)
    if found is None or found.fmr is None:
        return found
    ends = [
        _corrected(valid, right, original_right, replace(verdicts, seen=np.where(missed, 1.0, verdicts.seen)), machine)
        for missed in (~right, right)
    ]
    low, high = (None if end is None else end.fmr for end in ends)
    fmr_range = None if low is None or high is None else Estimate(found.fmr.value, low.low, high.high)
    return replace(found, fmr_range=fmr_range)


def _corrected(
    valid: np.ndarray,
    right: np.ndarray,
    original_right: np.ndarray,
    verdicts: Verdicts,
    machine: np.ndarray | None,
) -> Corrected | None:
    preserved = label_preservation(valid, verdicts, machine)
    if preserved is None:
        return None
    if verdicts.can_be_counted(valid):
        kept = valid & (verdicts.seen == 1)
        of_kept, fmr = proportion(right[kept]), foundation_model_robustness(right, kept, original_right)[0]
        return None if of_kept is None else Corrected(int(valid.sum()), preserved, of_kept, fmr)
    sample = _Sample(valid, verdicts, machine)
    rows = len(valid)
    of_all, of_right = sample.total(np.ones(rows)), sample.total(right.astype(float))
    if of_all <= 0:
        return None
    accuracy, standard = of_right / of_all, float(original_right.mean())
    deviation = (right - accuracy) / of_all
    error = sample.standard_error(deviation, np.zeros(rows))
    found = _share(accuracy, error, sample.tosses(verdicts.seen > 0))
    fmr = None
    if _ROUNDING < accuracy < 1 - _ROUNDING and standard > 0:
        known = -accuracy / standard**2 * (original_right - standard)
        low, high = _ends(accuracy / standard, sample.standard_error(deviation / standard, known))
        fmr = Estimate(100 * accuracy / standard, 100 * low, 100 * high)
    elif standard > 0:
        fmr = ratio_of_proportions(found, proportion(original_right))
    return Corrected(int(sample.audited.sum()), preserved, found, fmr)


def _share(value: float, error: float, tosses: float) -> Estimate:
    """In percent, from 0 to 100. At an end of these, where an error of 0 may be luck, the interval is at least that of
    so many coin tosses (Wilson).
    """
    none, every = most_unseen(tosses) / 100, wilson(tosses, tosses)[0] / 100
    if value <= _ROUNDING:
        return Estimate(0.0, 0.0, 100 * min(1.0, float(np.hypot(_Z * error, none))))
    low, high = _ends(value, error)
    if value >= 1 - _ROUNDING:
        low = min(every, value * float(np.exp(-np.hypot(_Z * error / value, np.log(every)))))
    return Estimate(100 * min(value, 1.0), 100 * low, 100 * min(high, 1.0))


def _ends(value: float, error: float) -> tuple[float, float]:
    """The ends of an interval that is symmetric on the scale of logarithms: ratios are skewed."""
    factor = float(np.exp(_Z * error / value))
    return value / factor, value * factor
