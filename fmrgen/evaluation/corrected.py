"""Accuracy and FMR corrected for the oracle's mistakes, by a judge who has looked at some or all of the images.

What an oracle lets through may show its class no more: a classifier that then says something else is not wrong. Of the
images that a judge has looked at it is known which do. Those of a stratified sample stand for all of their stratum
(two-phase sampling), and a machine's verdicts on all images, where there are such, make up for images that nobody has
looked at (prediction-powered inference, Angelopoulos et al. 2023): the sample then only has to say how wrong they are.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from fmrgen.intervals import CONFIDENCE, Estimate

_Z = float(ndtri((1 + CONFIDENCE) / 2))


@dataclass(frozen=True)
class Corrected:
    """What is true of the images that still show their class, in percent with 95 % intervals.

    Attributes:
        audited: how many images the judge has looked at.
        preserved: label-preservation rate, the share of valid images that still show their class.
        perturbed_accuracy: PA over those.
        fmr: that by SA; None where SA is zero.
    """

    audited: int
    preserved: Estimate
    perturbed_accuracy: Estimate
    fmr: Estimate | None


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
    """

    audited: np.ndarray
    seen: np.ndarray
    stratum: np.ndarray
    sensitivity: float = 1.0
    controls: int = 0
    false_positives: float = 0.0


def corrected(
    valid: np.ndarray,
    right: np.ndarray,
    original_right: np.ndarray,
    verdicts: Verdicts,
    machine: np.ndarray | None = None,
) -> Corrected | None:
    """PA and FMR over the images that still show their class.

    A judge's misses cancel out of PA, as they are missing above and below; what it sees where there is nothing is taken
    off (Rogan and Gladen 1978). The intervals are the delta method's over rows, sample and controls.

    Args:
        valid: bool [N], of all rows of a split.
        right: bool [N], whether the classifier is right on the perturbed image.
        original_right: bool [N], whether it is right on the original.
        verdicts: of the judge.
        machine: [N], from 0 to 1, what another judge said of every valid row, by which the sample is extended.

    Returns:
        The estimates; None where nothing was looked at, or nothing of it shows its class.
    """
    audited = verdicts.audited & valid
    if not audited.any():
        return None
    rows, strata = len(valid), int(verdicts.stratum.max()) + 1
    sizes, looked = (np.bincount(verdicts.stratum[of], minlength=strata) for of in (valid, audited))
    covered = valid & (looked > 0)[verdicts.stratum]  # strata without a look are left out, as if they were not there
    weight = np.where(audited, (sizes / np.maximum(looked, 1))[verdicts.stratum], 0.0) / rows
    shows = np.where(audited, verdicts.seen - verdicts.false_positives, 0.0)
    predicted = _tuned(machine, shows, audited, covered)

    def total(values: np.ndarray) -> float:
        """The mean over all rows of `values` where the image shows its class, else 0."""
        known = np.where(covered, values * predicted, 0.0)
        return float(known.mean() + (weight * values * (shows - predicted)).sum())

    of_all, of_right = total(np.ones(rows)), total(right.astype(float))
    if of_all <= 0:
        return None
    accuracy, standard = of_right / of_all, float(original_right.mean())
    deviation = (right - accuracy) / of_all
    spread = _standard_error(deviation, np.zeros(rows), verdicts, audited, covered, weight, shows, predicted)
    result = _estimate(accuracy, spread, ceiling=1.0)
    share = float(covered.mean())
    visible = verdicts.sensitivity - verdicts.false_positives
    preserved = of_all / share / visible
    missed = 0.0
    if verdicts.controls:  # a few that were all right are no proof that all would be
        sure = (verdicts.sensitivity * verdicts.controls + 1) / (verdicts.controls + 2)
        missed = sure * (1 - sure) / verdicts.controls
    known = np.where(covered, -preserved / share, 0.0)
    of_preserved = _standard_error(
        np.full(rows, 1 / share / visible), known, verdicts, audited, covered, weight, shows, predicted
    )
    of_preserved = float(np.hypot(of_preserved, preserved * np.sqrt(missed) / visible))
    fmr = None
    if standard > 0:
        known = -accuracy / standard**2 * (original_right - standard)
        spread = _standard_error(deviation / standard, known, verdicts, audited, covered, weight, shows, predicted)
        fmr = _estimate(accuracy / standard, spread)
    return Corrected(int(audited.sum()), _estimate(preserved, of_preserved, ceiling=1.0), result, fmr)


def _tuned(machine: np.ndarray | None, shows: np.ndarray, audited: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """What is predicted of every covered row: the machine's verdicts, as far as they go with the judge's."""
    if machine is None:
        return np.zeros(len(shows))
    said = machine[audited]
    if said.std() == 0:
        return np.zeros(len(shows))
    slope = np.clip(np.cov(said, shows[audited])[0, 1] / said.var(ddof=1), 0, 1)
    return np.where(covered, slope * machine, 0.0)


def _standard_error(
    factor: np.ndarray,
    known: np.ndarray,
    verdicts: Verdicts,
    audited: np.ndarray,
    covered: np.ndarray,
    weight: np.ndarray,
    shows: np.ndarray,
    predicted: np.ndarray,
) -> float:
    """Of an estimate whose influence, row by row, is `known` + `factor` × whether the image shows its class [N].

    Rows are drawn from where others like them come from, and in each stratum the judge's from the rows.
    """
    certain = known + np.where(covered, factor * predicted, 0.0)
    rest = np.where(audited, factor * (shows - predicted), 0.0)
    mean_rest, square_rest = float((weight * rest).sum()), float((weight * rest**2).sum())
    together = float((weight * rest * certain).sum()) - mean_rest * float(certain.mean())
    rows = len(certain)
    variance = (certain.var() + 2 * together + square_rest - mean_rest**2) / rows
    for stratum in np.unique(verdicts.stratum[audited]):
        inside = audited & (verdicts.stratum == stratum)
        size, looked = int((covered & (verdicts.stratum == stratum)).sum()), int(inside.sum())
        within = rest[inside].var(ddof=1) if looked > 1 else rest[audited].var(ddof=1) if audited.sum() > 1 else 0.0
        variance += (size / rows) ** 2 * (1 / looked - 1 / size) * float(within)
    return float(np.sqrt(max(variance, 0.0)))


def _estimate(value: float, error: float, ceiling: float | None = None) -> Estimate:
    """In percent, with its interval, which is symmetric on the scale of logarithms: ratios are skewed."""
    factor = float(np.exp(_Z * error / value)) if value > 0 else 1.0
    low, high = value / factor, value * factor
    if ceiling is not None:
        value, high = min(value, ceiling), min(high, ceiling)
    return Estimate(100 * value, 100 * low, 100 * high)
