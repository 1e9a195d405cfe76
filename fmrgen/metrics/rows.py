"""Rows of a split, as what metrics are made of."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from fmrgen.metrics.intervals import (
    Estimate,
    expected_calibration_error,
    foundation_model_robustness,
    macro_robustness,
    mean,
    paired_difference,
    proportion,
    ratio_of_rates,
)
from fmrgen.records import StopReason

COVERAGE = 0.8  # of a selective accuracy
ANSWERS = (
    *(f"{of}{answer}" for answer in ("prediction", "oracle_label") for of in ("", "original_", "reconstruction_")),
    *("rejected_prediction", "rejected_oracle_label", "step_predictions", "control_predictions"),
)  # columns of classes, or of lists of them
_ROUNDING_OF_LOSSES = 1e-5  # of a cross-entropy in float32, where the logits are some tens


def accepted_as_label(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns of a split, in which answers that are true of a row (`accepted_labels`) are its label: whatever compares
    an answer with the label is then right."""
    found = dict(columns)
    if "accepted_labels" in columns:
        for name in set(ANSWERS) & set(columns):
            found[name] = as_label(columns[name], columns["label"], columns["accepted_labels"])
    return found


def as_label(answers: np.ndarray, labels: np.ndarray, accepted: np.ndarray | None) -> np.ndarray:
    """`answers` [N], or a list of them for each row, those that are true of a row put as its label."""
    found = answers.copy()
    for row, of_row in enumerate(() if accepted is None else accepted):
        if len(of_row) > 1:
            is_true = np.isin(answers[row], of_row)
            found[row] = np.where(is_true, labels[row], answers[row]).astype(np.asarray(answers[row]).dtype)
    return found


class Rows:
    """Some rows of a split.

    `valid` [N] is all True where there is no such column; `right(name)` [N] says which predictions in a column are the
    label, None where there is no such column. Stop reasons are words, or their numbers in a split.
    """

    columns = (
        "label",
        "accepted_labels",
        "valid",
        "iterations",
        "queries",
        "prediction",
        "original_prediction",
        "reconstruction_prediction",
        "original_oracle_label",
        "stop_reason",
        "step_losses",
        "step_objectives",
        "step_predictions",
        "control_predictions",
        "control_objectives",
        "rejected_prediction",
    )

    def __init__(self, values: Mapping[str, np.ndarray], resamples: int) -> None:
        values = accepted_as_label(values)
        self._values, self._resamples = values, resamples
        self.label, self.has_valid = values["label"], "valid" in values
        self.valid = values["valid"].astype(bool) if self.has_valid else np.ones(len(self.label), dtype=bool)

    def right(self, name: str) -> np.ndarray | None:
        return self._values[name] == self.label if name in self._values else None

    def share_right(self, name: str, among_valid: bool = False) -> Estimate | None:
        right = self.right(name)
        return None if right is None else proportion(right[self.valid] if among_valid else right)

    def mean_iterations(self) -> Estimate | None:
        return mean(self._values["iterations"][self.valid], least=1) if "iterations" in self._values else None

    def mean_queries(self) -> Estimate | None:
        return mean(self._values["queries"]) if "queries" in self._values else None

    @cached_property
    def fmr(self) -> tuple[Estimate | None, Estimate | None]:
        """With SA over all rows, and over the valid ones."""
        perturbed, original = self.right("prediction"), self.right("original_prediction")
        if perturbed is None or original is None:
            return None, None
        return foundation_model_robustness(perturbed, self.valid, original, resamples=self._resamples)

    def fmr_if(self, rows: np.ndarray | None = None, invalid_right: bool | None = None) -> Estimate | None:
        """FMR of some rows alone, or with the invalid ones counted as right or as wrong."""
        perturbed, original = self.right("prediction"), self.right("original_prediction")
        if perturbed is None or original is None or not self.has_valid:
            return None
        rows = np.ones_like(self.valid) if rows is None else rows
        valid = self.valid
        if invalid_right is not None:
            perturbed = np.where(valid, perturbed, invalid_right)
            valid = np.ones_like(valid)
        fmr = foundation_model_robustness(perturbed[rows], valid[rows], original[rows], resamples=self._resamples)
        return fmr[0]

    def fmr_where_oracle_is_right(self) -> Estimate | None:
        right = self.right("original_oracle_label")
        return None if right is None else self.fmr_if(rows=right)

    def perturbed_by_reconstructed(self) -> Estimate | None:
        perturbed, reconstructed = self.right("prediction"), self.right("reconstruction_prediction")
        if perturbed is None or reconstructed is None:
            return None
        return foundation_model_robustness(perturbed, self.valid, reconstructed, resamples=self._resamples)[0]

    def share_stopped_by(self, reason: StopReason) -> Estimate | None:
        return proportion(self._stopped_by(reason)) if "stop_reason" in self._values else None

    def _stopped_by(self, reason: StopReason) -> np.ndarray:
        reasons = self._values["stop_reason"]
        stopped: np.ndarray = reasons == (
            list(StopReason).index(reason) if reasons.dtype.kind in "iu" else reason.value
        )
        return stopped

    def share_of_first_steps_up(self) -> Estimate | None:
        """Of the valid rows whose first step changed what it climbs by more than rounding does, those where it rose."""
        has_objectives = "step_objectives" in self._values
        recorded = self._values.get("step_objectives" if has_objectives else "step_losses")
        if recorded is None:
            return None
        steps = [values[:2] for values in recorded[self.valid] if len(values) > 1]
        before, after = np.array(steps, dtype=np.float64).reshape(-1, 2).T
        moved = before != after
        if not has_objectives:  # of fmrgen before rows of version 3: where both are next to zero they say nothing
            moved &= np.maximum(before, after) > _ROUNDING_OF_LOSSES
        return proportion((after > before)[moved])

    @cached_property
    def _controls(self) -> list[tuple[int, int]]:
        """The valid rows of which random steps were taken, and how many of them the oracle accepted: one at least.

        Anyone may have written them: what does not fit together is passed over.
        """
        needed = ("control_predictions", "control_objectives", "step_objectives")
        if any(name not in self._values for name in needed):
            return []
        lengths = (tuple(map(len, of_row)) for of_row in zip(*(self._values[name] for name in needed), strict=True))
        return [
            (row, taken - 1)
            for row, (taken, climbed, guided) in enumerate(lengths)
            if self.valid[row] and 1 < taken == climbed <= guided
        ]

    def guided_less_random(self) -> Estimate | None:
        """PA after guided steps less that after random steps, of the same rows, in percent of SA."""
        guided, original = self.right("prediction"), self.right("original_prediction")
        if guided is None or original is None or not original.any() or not self._controls:
            return None
        rows = [row for row, _ in self._controls]
        by_chance = np.array([self._values["control_predictions"][row][-1] == self.label[row] for row in rows])
        return paired_difference(guided[rows], by_chance, float(original.mean()))

    def share_ahead_of_random(self) -> Estimate | None:
        """Of the same rows, those where as many guided steps climbed higher than the random steps."""
        guided, by_chance = self._values.get("step_objectives"), self._values.get("control_objectives")
        if guided is None or by_chance is None:
            return None
        return proportion(np.array([guided[row][step] > by_chance[row][step] for row, step in self._controls]))

    def falls_with_oracle(self) -> Estimate | None:
        """How often the classifier ceases to be right at the very step that the oracle rejects, to how often at
        another one."""
        needed = ("step_predictions", "rejected_prediction", "stop_reason")
        if any(name not in self._values for name in needed):
            return None
        at_risk, falls = 0, 0
        for label, steps in zip(self.label[self.valid], self._values["step_predictions"][self.valid], strict=True):
            right = np.asarray(steps) == label
            at_risk += int(right[:-1].sum())
            falls += int((right[:-1] & ~right[1:]).sum())
        stood = self.valid & self._stopped_by(StopReason.ORACLE) & (self._values["prediction"] == self.label)
        fell = self._values["rejected_prediction"][stood] != self.label[stood]
        return ratio_of_rates(int(fell.sum()), int(stood.sum()), falls, at_risk)

    @cached_property
    def top5(self) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
        """SA, PA and FMR, an answer counted as right where the label is among the five likeliest classes."""
        perturbed, original = self._values.get("in_top5"), self._values.get("original_in_top5")
        standard = None if original is None else proportion(original)
        accuracy = None if perturbed is None else proportion(perturbed[self.valid])
        if perturbed is None or original is None:
            return standard, accuracy, None
        fmr = foundation_model_robustness(perturbed, self.valid, original, resamples=self._resamples)[0]
        return standard, accuracy, fmr

    def calibration_error(self, prefix: str) -> Estimate | None:
        """ECE of originals (`original_`), or of valid perturbed images."""
        rows = self._sure(prefix)
        return None if rows is None else expected_calibration_error(*rows)

    def selective_accuracy(self, prefix: str) -> Estimate | None:
        """Accuracy on the surest of them."""
        if (rows := self._sure(prefix)) is None:
            return None
        confidence, right = rows
        surest = np.argsort(-confidence, kind="stable")[: max(1, round(COVERAGE * len(confidence)))]
        return proportion(right[surest])

    def _sure(self, prefix: str) -> tuple[np.ndarray, np.ndarray] | None:
        right, confidence = self.right(f"{prefix}prediction"), self._values.get(f"{prefix}confidence")
        if right is None or confidence is None:
            return None
        wanted = np.isfinite(confidence) & (True if prefix else self.valid)
        return (confidence[wanted], right[wanted]) if wanted.any() else None

    def macro_fmr(self) -> Estimate | None:
        perturbed, original = self.right("prediction"), self.right("original_prediction")
        if perturbed is None or original is None or len(np.unique(self.label)) < 2:
            return None
        return macro_robustness(perturbed, self.valid, original, self.label)
