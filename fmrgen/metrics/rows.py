"""Rows of a split, as the input of metrics."""

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
ANSWERS = (  # columns of classes, or of lists of them
    *("prediction", "original_prediction", "reconstruction_prediction", "rejected_prediction"),
    *("oracle_label", "original_oracle_label", "reconstruction_oracle_label", "rejected_oracle_label"),
    *("step_predictions", "control_predictions"),
)
_ROUNDING_OF_LOSSES = 1e-5  # of a cross-entropy in float32, where the logits are some tens


def accepted_as_label(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of a split with every true answer (`accepted_labels`) replaced by the label of its row.

    An answer can then be compared with the label alone.
    """
    columns = dict(columns)
    if "accepted_labels" in columns:
        for name in ANSWERS:
            if name in columns:
                columns[name] = as_label(columns[name], columns["label"], columns["accepted_labels"])
    return columns


def as_label(answers: np.ndarray, labels: np.ndarray, accepted: np.ndarray | None) -> np.ndarray:
    """Return the answers with those that are true of a row replaced by its label.

    Args:
        answers: [N], classes, or a list of them for each row.
        labels: [N].
        accepted: [N], the classes that are true of each row, its label among them; None if only labels are.
    """
    if accepted is None:
        return answers.copy()
    replaced = answers.copy()
    for row, accepted_labels in enumerate(accepted):
        if len(accepted_labels) > 1:
            is_true = np.isin(answers[row], accepted_labels)
            replaced[row] = np.where(is_true, labels[row], answers[row]).astype(np.asarray(answers[row]).dtype)
    return replaced


def valid_rows(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return which rows are valid, bool [N]; all of them without a column `valid`."""
    if "valid" in columns:
        return columns["valid"].astype(bool)
    return np.ones(len(columns["label"]), dtype=bool)


class Rows:
    """Some rows of a split.

    A metric is None if a column that it needs is missing, or there is nothing to divide by. Without a column `valid`
    all rows are valid. Stop reasons are words, or their numbers in a split.
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
        self.valid = valid_rows(values)

    def right(self, name: str) -> np.ndarray | None:
        """Return which answers in a column are right, bool [N]; None if there is no such column."""
        if name not in self._values:
            return None
        return self._values[name] == self.label

    def share_right(self, name: str, among_valid: bool = False) -> Estimate | None:
        """Return the share of right answers in a column."""
        right = self.right(name)
        if right is None:
            return None
        if among_valid:
            right = right[self.valid]
        return proportion(right)

    def validation_rate(self) -> Estimate | None:
        """Return the share of valid rows."""
        return proportion(self.valid) if self.has_valid else None

    def mean_iterations(self) -> Estimate | None:
        """Return the mean number of steps of valid rows."""
        if "iterations" not in self._values:
            return None
        return mean(self._values["iterations"][self.valid], least=1)

    def mean_queries(self) -> Estimate | None:
        """Return the mean number of questions to the split's own classifier."""
        if "queries" not in self._values:
            return None
        return mean(self._values["queries"])

    @cached_property
    def fmr(self) -> tuple[Estimate | None, Estimate | None]:
        """FMR with SA over all rows, and over the valid ones."""
        perturbed, original = self.right("prediction"), self.right("original_prediction")
        if perturbed is None or original is None:
            return None, None
        return foundation_model_robustness(perturbed, self.valid, original, resamples=self._resamples)

    def fmr_if(self, rows: np.ndarray | None = None, invalid_right: bool | None = None) -> Estimate | None:
        """Return FMR of `rows` (bool [N]) alone, or with the invalid rows counted as right or as wrong."""
        perturbed, original = self.right("prediction"), self.right("original_prediction")
        if perturbed is None or original is None or not self.has_valid:
            return None
        if rows is None:
            rows = np.ones_like(self.valid)
        valid = self.valid
        if invalid_right is not None:
            perturbed = np.where(valid, perturbed, invalid_right)
            valid = np.ones_like(valid)
        fmr = foundation_model_robustness(perturbed[rows], valid[rows], original[rows], resamples=self._resamples)
        return fmr[0]

    def fmr_where_oracle_is_right(self) -> Estimate | None:
        """Return FMR of the rows whose original the oracle recognises."""
        right = self.right("original_oracle_label")
        if right is None:
            return None
        return self.fmr_if(rows=right)

    def perturbed_by_reconstructed(self) -> Estimate | None:
        """Return PA in percent of the accuracy on plain reconstructions."""
        perturbed, reconstructed = self.right("prediction"), self.right("reconstruction_prediction")
        if perturbed is None or reconstructed is None:
            return None
        return foundation_model_robustness(perturbed, self.valid, reconstructed, resamples=self._resamples)[0]

    def share_stopped_by(self, reason: StopReason) -> Estimate | None:
        """Return the share of rows that ended for a reason."""
        if "stop_reason" not in self._values:
            return None
        return proportion(self._stopped_by(reason))

    def _stopped_by(self, reason: StopReason) -> np.ndarray:
        reasons = self._values["stop_reason"]
        are_numbers = reasons.dtype.kind in "iu"
        stopped: np.ndarray = reasons == (list(StopReason).index(reason) if are_numbers else reason.value)
        return stopped

    def share_of_first_steps_up(self) -> Estimate | None:
        """Return the share of valid rows whose first step raised the objective.

        Rows in which it changed by no more than rounding do not count.
        """
        has_objectives = "step_objectives" in self._values
        recorded = self._values.get("step_objectives" if has_objectives else "step_losses")
        if recorded is None:
            return None
        steps = [values[:2] for values in recorded[self.valid] if len(values) > 1]
        before, after = np.array(steps, dtype=np.float64).reshape(-1, 2).T
        moved = before != after
        if not has_objectives:  # rows before version 3 have losses alone, which mean nothing where both are near zero
            moved &= np.maximum(before, after) > _ROUNDING_OF_LOSSES
        return proportion((after > before)[moved])

    @cached_property
    def _controls(self) -> list[tuple[int, int]]:
        """Valid rows that took random steps, each with the number of these that the oracle accepted: at least one.

        A split may have been written by anyone: a row whose columns do not fit together is skipped.
        """
        predictions, objectives = self._values.get("control_predictions"), self._values.get("control_objectives")
        guided = self._values.get("step_objectives")
        if predictions is None or objectives is None or guided is None:
            return []
        controls = []
        for row in np.flatnonzero(self.valid).tolist():
            entries = len(predictions[row])  # the first is of the plain reconstruction
            if 1 < entries == len(objectives[row]) <= len(guided[row]):
                controls.append((row, entries - 1))
        return controls

    def guided_less_random(self) -> Estimate | None:
        """Return PA after guided steps minus PA after random steps, of the same rows, in percent of SA."""
        guided, original = self.right("prediction"), self.right("original_prediction")
        if guided is None or original is None or not original.any() or not self._controls:
            return None
        rows = [row for row, _ in self._controls]
        random = np.array([self._values["control_predictions"][row][-1] == self.label[row] for row in rows])
        return paired_difference(guided[rows], random, float(original.mean()))

    def share_ahead_of_random(self) -> Estimate | None:
        """Return the share of the same rows in which guided steps climbed higher than as many random ones."""
        guided, random = self._values.get("step_objectives"), self._values.get("control_objectives")
        if guided is None or random is None:
            return None
        return proportion(np.array([guided[row][step] > random[row][step] for row, step in self._controls]))

    def falls_with_oracle(self) -> Estimate | None:
        """Return how many times as often the classifier ceases to be right at the step that the oracle rejects as at
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
        """SA, PA and FMR, where an answer is right if the label is among the five likeliest classes."""
        perturbed, original = self._values.get("in_top5"), self._values.get("original_in_top5")
        standard_accuracy = perturbed_accuracy = fmr = None
        if original is not None:
            standard_accuracy = proportion(original)
        if perturbed is not None:
            perturbed_accuracy = proportion(perturbed[self.valid])
        if perturbed is not None and original is not None:
            fmr = foundation_model_robustness(perturbed, self.valid, original, resamples=self._resamples)[0]
        return standard_accuracy, perturbed_accuracy, fmr

    def calibration_error(self, prefix: str) -> Estimate | None:
        """Return the calibration error on originals (`original_`), or on valid perturbed images (no prefix)."""
        rows = self._confidence_and_right(prefix)
        if rows is None:
            return None
        return expected_calibration_error(*rows)

    def selective_accuracy(self, prefix: str) -> Estimate | None:
        """Return the accuracy on the surest of them."""
        rows = self._confidence_and_right(prefix)
        if rows is None:
            return None
        confidence, right = rows
        surest = np.argsort(-confidence, kind="stable")[: max(1, round(COVERAGE * len(confidence)))]
        return proportion(right[surest])

    def _confidence_and_right(self, prefix: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the confidence of answers and whether they are right, [n] each; None if there are none."""
        right, confidence = self.right(f"{prefix}prediction"), self._values.get(f"{prefix}confidence")
        if right is None or confidence is None:
            return None
        rows = np.isfinite(confidence)
        if not prefix:
            rows &= self.valid
        if not rows.any():
            return None
        return confidence[rows], right[rows]

    def macro_fmr(self) -> Estimate | None:
        """Return FMR with every class of the same weight."""
        perturbed, original = self.right("prediction"), self.right("original_prediction")
        if perturbed is None or original is None or len(np.unique(self.label)) < 2:
            return None
        return macro_robustness(perturbed, self.valid, original, self.label)
