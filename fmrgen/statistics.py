"""SA, PA, VR and FMR (paper §3.3 and App. J) from the columns of a split, each with its 95 % interval."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

# What `summarise` reads; none of it is an image.
SUMMARY_COLUMNS = (
    "label",
    "valid",
    "iterations",
    "prediction",
    "original_prediction",
    "reconstruction_prediction",
    "original_oracle_label",
)

_CONFIDENCE = 0.95
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A rate in percent and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """What a split says of its own classifier; None where there is nothing to divide by."""

    rows: int
    standard_accuracy: Estimate | None
    perturbed_accuracy: Estimate | None
    validation_rate: Estimate | None
    fmr: Estimate | None
    mean_iterations: float | None
    reconstruction_accuracy: Estimate | None
    oracle_accuracy: Estimate | None


def summarise(columns: Mapping[str, np.ndarray]) -> Summary:
    """The summary of rows given as arrays [N] under the split's column names.

    SA is over all originals, PA over the valid rows, VR the share of valid rows, FMR = PA / SA × 100. Iterations are
    those of the valid rows; reconstruction and oracle accuracy are over all rows.
    """
    label, valid = columns["label"], columns["valid"].astype(bool)
    perturbed_hit, original_hit = columns["prediction"] == label, columns["original_prediction"] == label
    return Summary(
        rows=len(label),
        standard_accuracy=proportion(original_hit),
        perturbed_accuracy=proportion(perturbed_hit[valid]),
        validation_rate=proportion(valid),
        fmr=foundation_model_robustness(perturbed_hit, valid, original_hit),
        mean_iterations=float(columns["iterations"][valid].mean()) if valid.any() else None,
        reconstruction_accuracy=proportion(columns["reconstruction_prediction"] == label),
        oracle_accuracy=proportion(columns["original_oracle_label"] == label),
    )


def proportion(hits: np.ndarray) -> Estimate | None:
    """The share of True with Wilson's interval, None for no rows."""
    if not len(hits):
        return None
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(_CONFIDENCE, method="wilson")
    return Estimate(100 * float(hits.mean()), 100 * float(interval.low), 100 * float(interval.high))


def foundation_model_robustness(
    perturbed_hit: np.ndarray,
    valid: np.ndarray,
    original_hit: np.ndarray,
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Estimate | None:
    """FMR = PA / SA × 100 of N examples, bool [N] each: PA over the valid ones, SA over all.

    The interval is the paired bootstrap's: PA and SA come from the same examples, so whole examples are drawn again.
    An example counts only through which of its three answers are True, so drawing N examples is drawing how many fall
    in each of the eight cases, whatever N. None where no row is valid or SA is zero.
    """
    case = 4 * valid.astype(int) + 2 * perturbed_hit.astype(int) + original_hit.astype(int)
    counts = np.bincount(case, minlength=8)
    value = _fmr(counts[None])[0]
    if np.isnan(value):
        return None
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=resamples)
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.nanpercentile(_fmr(drawn), [tail, 100 - tail])
    return Estimate(float(value), float(low), float(high))


def _fmr(counts: np.ndarray) -> np.ndarray:
    """FMR of counts [R, 8] of examples by case (valid, perturbed hit, original hit as bits); NaN where undefined."""
    perturbed_hits, valid = counts[:, 6:].sum(1), counts[:, 4:].sum(1)
    original_hits, rows = counts[:, 1::2].sum(1), counts.sum(1)
    defined = (valid > 0) & (original_hits > 0)
    divisor = np.where(defined, valid * original_hits, 1)
    return np.where(defined, 100 * perturbed_hits * rows / divisor, np.nan)
