"""Accuracy and FMR corrected for the oracle's mistakes, by a judge who has looked at some or all of the images.

An image that the oracle accepted may no longer show its class; a classifier that then says something else is not wrong.
For the images that a judge has looked at, we know which still do. Those of a stratified sample stand for all of their
stratum (two-phase sampling). Where a machine has judged all images, its verdicts stand in for the images that nobody
has looked at (prediction-powered inference, Angelopoulos et al. 2023); the sample then only shows how wrong they are.
"""

from dataclasses import dataclass, replace

import numpy as np

from fmrgen.metrics.intervals import (
    Estimate,
    Z,
    foundation_model_robustness,
    most_unseen,
    proportion,
    ratio_of_proportions,
    wilson,
)

_ROUNDING = 1e-9  # error of sums of weights


@dataclass(frozen=True)
class Corrected:
    """Figures over the images that still show their class, in percent with 95 % intervals.

    Attributes:
        audited: the number of images that the judge has looked at.
        preserved: label-preservation rate, the share of valid images that still show their class.
        perturbed_accuracy: PA over the images that still show their class.
        fmr: that PA by SA; None if SA is zero. It assumes that the judge misses as many of the images that fool the
            classifier as of the others.
        fmr_range: FMR without that assumption. The lower end is FMR if the judge missed every image that fools the
            classifier and in which it does not see the label, the upper end if it missed every such image that does
            not fool it; each end includes its interval.
    """

    audited: int
    preserved: Estimate
    perturbed_accuracy: Estimate
    fmr: Estimate | None
    fmr_range: Estimate | None = None


@dataclass(frozen=True)
class Verdicts:
    """A judge's verdicts on some valid rows of a split.

    Attributes:
        audited: bool [N], the rows that it has looked at.
        seen: [N], from 0 to 1, whether it sees the label; the share of those who do if there are several judges.
            Ignored in rows that are not audited.
        stratum: int [N], the stratum of every valid row in the sample; all equal for a simple random sample.
        sensitivity: the share of images showing their label in which it sees the label.
        controls: the number of images that the sensitivity was measured on; 0 if it is assumed.
        false_positives: the share of images not showing their label in which it sees the label.
        chance: the share of labels that a guess gets right.
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
        """Return whether the controls show that it sees more than a guess would; True if there are none."""
        hits = self.sensitivity * self.controls
        return not self.controls or wilson(hits, self.controls)[0] > 100 * self.chance

    def can_be_counted(self, valid: np.ndarray) -> bool:
        """Return whether it has a plain yes or no for all `valid` rows, bool [N], and no false positives."""
        is_whole = (self.audited | ~valid).all() and np.isin(self.seen[valid], (0, 1)).all()
        return bool(is_whole) and not self.false_positives


class _Sample:
    """The valid rows that a judge has looked at; each stands for others of its stratum.

    Attributes:
        audited: bool [N], the rows of the sample.
        covered: bool [N], the valid rows of strata that have rows in the sample.
        weight: [N], the share of all rows that an audited row stands for; 0 elsewhere.
        shows: [N], whether the image shows its class, by the judge, less its false positives; 0 outside the sample.
        predicted: [N], the same as a machine predicts it for every covered row; 0 elsewhere.
    """

    def __init__(self, valid: np.ndarray, verdicts: Verdicts, machine: np.ndarray | None) -> None:
        self.verdicts, self.audited, self.rows = verdicts, verdicts.audited & valid, len(valid)
        stratum, strata = verdicts.stratum, int(verdicts.stratum.max()) + 1
        sizes = np.bincount(stratum[valid], minlength=strata)
        audited_sizes = np.bincount(stratum[self.audited], minlength=strata)
        self.covered = valid & (audited_sizes > 0)[stratum]  # strata that nobody looked at are left out
        self.weight = np.where(self.audited, (sizes / np.maximum(audited_sizes, 1))[stratum], 0.0) / self.rows
        self.shows = np.where(self.audited, verdicts.seen - verdicts.false_positives, 0.0)
        self.predicted = self._predicted_by(machine)

    def _predicted_by(self, machine: np.ndarray | None) -> np.ndarray:
        """Return the machine's verdicts on every covered row, scaled to how far they go with the judge's."""
        if machine is None:
            return np.zeros(self.rows)
        audited_verdicts = machine[self.audited]
        if audited_verdicts.std() == 0:
            return np.zeros(self.rows)
        slope = np.cov(audited_verdicts, self.shows[self.audited])[0, 1] / audited_verdicts.var(ddof=1)
        return np.where(self.covered, np.clip(slope, 0, 1) * machine, 0.0)

    def total(self, values: np.ndarray) -> float:
        """Return the mean over all rows of `values` where the image shows its class, else 0."""
        predicted = np.where(self.covered, values * self.predicted, 0.0)
        return float(predicted.mean() + (self.weight * values * (self.shows - self.predicted)).sum())

    def standard_error(self, factor: np.ndarray, offset: np.ndarray) -> float:
        """Return the standard error of an estimate from its influence, row by row.

        The rows are a sample of their population, and the audited rows of each stratum a sample of its rows.

        Args:
            factor: [N], the influence that a row has if its image shows its class.
            offset: [N], the influence that it has in any case.
        """
        certain = offset + np.where(self.covered, factor * self.predicted, 0.0)
        rest = np.where(self.audited, factor * (self.shows - self.predicted), 0.0)
        mean_rest, square_rest = float((self.weight * rest).sum()), float((self.weight * rest**2).sum())
        together = float((self.weight * rest * certain).sum()) - mean_rest * float(certain.mean())
        variance = (certain.var() + 2 * together + square_rest - mean_rest**2) / self.rows
        stratum = self.verdicts.stratum
        for number in np.unique(stratum[self.audited]):
            audited = self.audited & (stratum == number)
            size, audited_size = int((self.covered & (stratum == number)).sum()), int(audited.sum())
            rows = audited if audited_size > 1 else self.audited  # one row shows no variance; the whole sample may
            if rows.sum() > 1:
                variance += (size / self.rows) ** 2 * (1 / audited_size - 1 / size) * float(rest[rows].var(ddof=1))
        return float(np.sqrt(max(variance, 0.0)))

    def effective_size(self, among: np.ndarray) -> float:
        """Return the effective size of the sample in the rows `among`, bool [N], by its weights (Kish 1965)."""
        weight = self.weight[self.audited & among]
        if not len(weight):
            return 0.0
        return float(weight.sum() ** 2 / (weight**2).sum())


def label_preservation(valid: np.ndarray, verdicts: Verdicts, machine: np.ndarray | None = None) -> Estimate | None:
    """Return the share of valid images that still show their class.

    Args:
        valid: bool [N], over all rows of a split.
        verdicts: the judge's.
        machine: [N], from 0 to 1, another judge's verdict on every valid row, by which the sample is extended.

    Returns:
        The estimate; None if nothing was looked at, or the judge sees no more than a guess would.
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
    if verdicts.controls:  # a few controls that were all right are no proof that all would be
        sure = (verdicts.sensitivity * verdicts.controls + 1) / (verdicts.controls + 2)
        missed = sure * (1 - sure) / verdicts.controls
    offset = np.where(sample.covered, -preserved / share, 0.0)
    error = sample.standard_error(every / share / visible, offset)
    error = float(np.hypot(error, preserved * np.sqrt(missed) / visible))
    return _share(preserved, error, sample.effective_size(valid))


def corrected(
    valid: np.ndarray,
    right: np.ndarray,
    original_right: np.ndarray,
    verdicts: Verdicts,
    machine: np.ndarray | None = None,
) -> Corrected | None:
    """Return PA and FMR over the images that still show their class.

    If the judge misses as many of the images that fool the classifier as of the others, both figures are right: the
    misses cancel out of PA, as they are missing in numerator and denominator, and its false positives are subtracted
    (Rogan and Gladen 1978). `fmr_range` does without that assumption. The intervals are the delta method's over rows,
    sample and controls, and Wilson's if all images looked at are alike, where the delta method sees no chance. A judge
    who has looked at all valid rows is simply counted, with the intervals of PA and FMR.

    Args:
        valid: bool [N], over all rows of a split.
        right: bool [N], whether the classifier is right on the perturbed image.
        original_right: bool [N], whether it is right on the original.
        verdicts: the judge's.
        machine: [N], from 0 to 1, another judge's verdict on every valid row, by which the sample is extended.

    Returns:
        The estimates; None if nothing was looked at, nothing of it shows its class, or the judge sees no more than a
        guess would.
    """
    estimates = _corrected(valid, right, original_right, verdicts, machine)
    if estimates is None or estimates.fmr is None:
        return estimates

    def fmr_if_missed(rows: np.ndarray) -> Estimate | None:
        seen = np.where(rows, 1.0, verdicts.seen)
        end = _corrected(valid, right, original_right, replace(verdicts, seen=seen), machine)
        return None if end is None else end.fmr

    low, high = fmr_if_missed(~right), fmr_if_missed(right)
    if low is None or high is None:
        return estimates
    return replace(estimates, fmr_range=Estimate(estimates.fmr.value, low.low, high.high))


def _corrected(
    valid: np.ndarray,
    right: np.ndarray,
    original_right: np.ndarray,
    verdicts: Verdicts,
    machine: np.ndarray | None,
) -> Corrected | None:
    """Return the estimates of `corrected`, without `fmr_range`."""
    preserved = label_preservation(valid, verdicts, machine)
    if preserved is None:
        return None
    if verdicts.can_be_counted(valid):
        showing = valid & (verdicts.seen == 1)
        counted_accuracy = proportion(right[showing])
        if counted_accuracy is None:
            return None
        counted_fmr = foundation_model_robustness(right, showing, original_right)
        return Corrected(int(valid.sum()), preserved, counted_accuracy, counted_fmr)
    sample = _Sample(valid, verdicts, machine)
    rows = len(valid)
    showing_share, right_share = sample.total(np.ones(rows)), sample.total(right.astype(float))
    if showing_share <= 0:
        return None
    accuracy, standard = right_share / showing_share, float(original_right.mean())
    deviation = (right - accuracy) / showing_share
    error = sample.standard_error(deviation, np.zeros(rows))
    perturbed_accuracy = _share(accuracy, error, sample.effective_size(verdicts.seen > 0))
    fmr = None
    if _ROUNDING < accuracy < 1 - _ROUNDING and standard > 0:
        offset = -accuracy / standard**2 * (original_right - standard)
        low, high = _ends(accuracy / standard, sample.standard_error(deviation / standard, offset))
        fmr = Estimate(100 * accuracy / standard, 100 * low, 100 * high)
    elif standard > 0:
        fmr = ratio_of_proportions(perturbed_accuracy, proportion(original_right))
    return Corrected(int(sample.audited.sum()), preserved, perturbed_accuracy, fmr)


def _share(value: float, error: float, size: float) -> Estimate:
    """Return a share in percent, from 0 to 100.

    At 0 and 100, where an error of 0 may be luck, the interval is at least Wilson's for `size` independent images.
    """
    most_of_none, least_of_all = most_unseen(size) / 100, wilson(size, size)[0] / 100
    if value <= _ROUNDING:
        return Estimate(0.0, 0.0, 100 * min(1.0, float(np.hypot(Z * error, most_of_none))))
    low, high = _ends(value, error)
    if value >= 1 - _ROUNDING:
        low = min(least_of_all, value * float(np.exp(-np.hypot(Z * error / value, np.log(least_of_all)))))
    return Estimate(100 * min(value, 1.0), 100 * low, 100 * min(high, 1.0))


def _ends(value: float, error: float) -> tuple[float, float]:
    """Return the ends of an interval that is symmetric on a logarithmic scale, because ratios are skewed."""
    factor = float(np.exp(Z * error / value))
    return value / factor, value * factor
