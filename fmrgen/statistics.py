"""SA, PA, VR and FMR (paper §3.3 and App. J) from the columns of a split."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True)
class Summary:
    """What a split says of its own classifier; rates in percent, None where there is nothing to divide by."""

    rows: int
    standard_accuracy: float | None
    perturbed_accuracy: float | None
    validation_rate: float | None
    fmr: float | None
    mean_iterations: float | None
    reconstruction_accuracy: float | None
    oracle_accuracy: float | None


def summarise(columns: Mapping[str, np.ndarray]) -> Summary:
    """The summary of rows given as arrays [N] under the split's column names.

    SA is over all originals, PA over the valid rows, VR the share of valid rows, FMR = PA / SA × 100. Iterations are
    those of the valid rows; reconstruction and oracle accuracy are over all rows.
    """
    label, valid = columns["label"], columns["valid"].astype(bool)
    sa = percent(columns["original_prediction"] == label)
    pa = percent((columns["prediction"] == label)[valid])
    return Summary(
        rows=len(label),
        standard_accuracy=sa,
        perturbed_accuracy=pa,
        validation_rate=percent(valid),
        fmr=foundation_model_robustness(pa, sa),
        mean_iterations=float(columns["iterations"][valid].mean()) if valid.any() else None,
        reconstruction_accuracy=percent(columns["reconstruction_prediction"] == label),
        oracle_accuracy=percent(columns["original_oracle_label"] == label),
    )


def percent(hits: np.ndarray) -> float | None:
    """The share of True in percent, None for no rows."""
    return 100 * float(hits.mean()) if len(hits) else None


def foundation_model_robustness(perturbed: float | None, standard: float | None) -> float | None:
    """FMR = PA / SA × 100 %; None where there is no PA or SA is zero."""
    return 100 * perturbed / standard if perturbed is not None and standard else None
