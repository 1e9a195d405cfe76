"""Rows of a split, as the input of metrics."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from fmrgen.metrics.intervals import (
    Estimate,
    foundation_model_robustness,
    grouped_proportion,
    mean,
    paired_difference,
    proportion,
    wilson,
)
from fmrgen.records import StopReason

OWN_COLUMNS = (  # that are about the split's own classifier alone
    *("reconstruction_prediction", "rejected_prediction", "attack", "attacks"),
    *("step_objectives", "step_predictions", "control_predictions", "control_objectives"),
)
SUMMARY_COLUMNS = (  # that figures are made of; none of them is an image
    *("label", "accepted_labels", "valid", "iterations", "stop_reason"),
    *("prediction", "original_prediction", "original_oracle_label", *OWN_COLUMNS),
)
CLASS_COLUMNS = (  # columns of classes, or of lists of them
    *("prediction", "original_prediction", "reconstruction_prediction", "rejected_prediction"),
    *("oracle_label", "original_oracle_label", "reconstruction_oracle_label", "rejected_oracle_label"),
    *("step_predictions", "control_predictions"),
)


def accepted_as_label(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of a split with every true prediction (`accepted_labels`) replaced by the label of its row.

    A prediction can then be compared with the label alone.
    """
    columns = dict(columns)
    if "accepted_labels" not in columns:
        return columns
    for name in columns.keys() & CLASS_COLUMNS:
        columns[name] = as_label(columns[name], columns["label"], columns["accepted_labels"])
    if "attacks" in columns:
        columns["attacks"] = _records_as_label(columns)
    return columns


def _records_as_label(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the records of attacks with every true prediction replaced by the label of its row."""
    replaced = np.empty(len(columns["label"]), dtype=object)
    for row, (label, accepted) in enumerate(zip(columns["label"], columns["accepted_labels"], strict=True)):
        records = []
        for record in columns["attacks"][row]:
            predictions = np.array([*record["predictions"], record["rejected_prediction"]])
            *predictions, rejected = np.where(np.isin(predictions, accepted), label, predictions).tolist()
            records.append({**record, "predictions": predictions, "rejected_prediction": rejected})
        replaced[row] = records
    return replaced


def as_label(predictions: np.ndarray, labels: np.ndarray, accepted: np.ndarray | None) -> np.ndarray:
    """Return the predictions with those that are true of a row replaced by its label.

    The predictions [N] are classes, or a list of them for each row. `accepted` [N] are the classes that are true of
    each row, its label among them; None if only labels are.
    """
    replaced = predictions.copy()
    for row, accepted_labels in enumerate(() if accepted is None else accepted):
        if len(accepted_labels) > 1:
            is_true = np.isin(predictions[row], accepted_labels)
            replaced[row] = np.where(is_true, labels[row], predictions[row]).astype(np.asarray(predictions[row]).dtype)
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

    def __init__(self, values: Mapping[str, np.ndarray]) -> None:
        values = accepted_as_label(values)
        self._values = values
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
        return proportion(right[self.valid] if among_valid else right)

    def validation_rate(self) -> Estimate | None:
        """Return the share of valid rows."""
        return proportion(self.valid) if self.has_valid else None

    def mean_iterations(self) -> Estimate | None:
        """Return the mean number of steps of valid rows."""
        if "iterations" not in self._values:
            return None
        return mean(self._values["iterations"][self.valid], least=1)

    def fmr(self, invalid_right: bool | None = None) -> Estimate | None:
        """Return FMR with SA over all rows; the invalid rows may be counted as right or as wrong."""
        perturbed, original = self.right("prediction"), self.right("original_prediction")
        if perturbed is None or original is None:
            return None
        valid = self.valid
        if invalid_right is not None:
            if not self.has_valid:
                return None
            perturbed, valid = np.where(valid, perturbed, invalid_right), np.ones_like(valid)
        return foundation_model_robustness(perturbed, valid, original)

    def share_stopped_by(self, reason: StopReason) -> Estimate | None:
        """Return the share of rows that ended for a reason."""
        if "stop_reason" not in self._values:
            return None
        reasons = self._values["stop_reason"]
        are_numbers = reasons.dtype.kind in "iu"
        return proportion(reasons == (list(StopReason).index(reason) if are_numbers else reason.value))

    @cached_property
    def _first_attack(self) -> Mapping[str, np.ndarray]:
        """The columns as the first attack alone would have stored them: those of a split with one."""
        records = self._records
        if records is None:
            return self._values
        first = [attacks[0] for attacks in records]
        predictions = [record["predictions"] for record in first]
        return {
            **self._values,
            "step_predictions": _lists(predictions),
            "step_objectives": _lists([record["objectives"] for record in first]),
            "prediction": np.array([steps[-1] for steps in predictions]),
            "valid": self.valid & np.array([len(steps) > 1 for steps in predictions]),
        }

    @cached_property
    def _records(self) -> np.ndarray | None:
        """The record of each attack on each row; None for no rows, one attack, or if a record is missing or empty."""
        if "attacks" not in self._values or "attack" not in self._values or not self.has_valid or not len(self.label):
            return None
        records: np.ndarray = self._values["attacks"]
        for attacks in records:
            if not len(attacks) or any(not len(record["predictions"]) for record in attacks):
                return None
        return records

    def after_each_attack(self) -> list[Estimate | None]:
        """Return FMR after the first attack, the first two, and so on; empty for one attack."""
        original = self.right("original_prediction")
        if self._records is None or original is None:
            return []
        first_valid = np.array([_first_valid(attacks) for attacks in self._records])
        figures = []
        for number in range(self._most_attacks):
            is_right = ~(self._fooled & (self._values["attack"] <= number))
            figures.append(foundation_model_robustness(is_right, self.valid & (first_valid <= number), original))
        return figures

    @property
    def _most_attacks(self) -> int:
        """The most attacks that a row went through; 0 if there is one attack."""
        return 0 if self._records is None else max(map(len, self._records))

    @property
    def _fooled(self) -> np.ndarray:
        """Which rows are valid and fool the classifier, bool [N]."""
        fooled: np.ndarray = self.valid & (self._values["prediction"] != self.label)
        return fooled

    def first_attack_fmr(self) -> Estimate | None:
        """Return FMR of the first attack alone, by its last accepted image, as Algorithm 1 has it."""
        original = self.right("original_prediction")
        if self._records is None or original is None:
            return None
        first = self._first_attack
        is_right = first["prediction"] == self.label
        return foundation_model_robustness(is_right, first["valid"], original)

    def drop_of_last_attacks(self) -> Estimate | None:
        """Return by how many points of FMR each of the last two attacks lowered it, on average.

        None with fewer than three attacks, or if every row is fooled: only a row that no attack fools has gone through
        all of them, and shows how many there were.
        """
        original = self.right("original_prediction")
        if self._most_attacks < 3 or original is None or not original.any() or not self.valid.any():
            return None
        if self._fooled.all():
            return None
        late = self._fooled & (self._values["attack"] >= self._most_attacks - 2)
        hits, trials = int(late.sum()), 2 * int(self.valid.sum())
        low, high = wilson(hits, trials)
        accuracy = float(original.mean())
        return Estimate(100 * hits / trials / accuracy, low / accuracy, high / accuracy)

    def share_of_first_steps_up(self) -> Estimate | None:
        """Return the share of valid rows whose first step raised the objective.

        Rows in which it did not change do not count.
        """
        first = self._first_attack
        if "step_objectives" not in first:
            return None
        steps = [values[:2] for values in first["step_objectives"][valid_rows(first)] if len(values) > 1]
        before, after = np.array(steps, dtype=np.float64).reshape(-1, 2).T
        return proportion((after > before)[before != after])

    def share_of_steps_up(self) -> Estimate | None:
        """Return the share of guided steps of the first attack on valid rows that raised the objective.

        Only the way to the boundary counts: steps from images that the classifier has right. The interval is over rows,
        whose steps depend on each other.
        """
        first = self._first_attack
        if "step_objectives" not in first or "step_predictions" not in first:
            return None
        up, row_of_step = [np.zeros(0, bool)], [np.zeros(0, int)]
        for row in np.flatnonzero(valid_rows(first)).tolist():
            objectives = np.asarray(first["step_objectives"][row], dtype=np.float64)
            right = np.asarray(first["step_predictions"][row])[:-1] == self.label[row]
            before, after = objectives[:-1], objectives[1:]
            if len(right) == len(before):  # a stranger's row may not fit
                climbed = (after > before)[(before != after) & right]
                up.append(climbed)
                row_of_step.append(np.full(len(climbed), row))
        return grouped_proportion(np.concatenate(up), np.concatenate(row_of_step))

    def guided_less_random(self) -> Estimate | None:
        """Return PA after guided steps minus PA after random steps, of the same rows, in percent of SA.

        Counted are valid rows of which the oracle accepted a random step. Of several attacks, the first is compared:
        one run with another. A split may have been written by anyone: a row whose columns do not fit is skipped.
        """
        first, original = self._first_attack, self.right("original_prediction")
        if "prediction" not in first or original is None or not original.any():
            return None
        if not {"control_predictions", "control_objectives", "step_objectives"} <= first.keys():
            return None
        controls, objectives = first["control_predictions"], first["control_objectives"]
        rows = []
        for row in np.flatnonzero(self.valid).tolist():  # the first entry is of the plain reconstruction
            if 1 < len(controls[row]) == len(objectives[row]) <= len(first["step_objectives"][row]):
                rows.append(row)
        if not rows:
            return None
        guided = first["prediction"] == self.label
        random = np.array([controls[row][-1] == self.label[row] for row in rows])
        return paired_difference(guided[rows], random, float(original.mean()))


def _lists(values: list[Any]) -> np.ndarray:
    """Return lists as an array [N] of arrays."""
    lists = np.empty(len(values), dtype=object)
    lists[:] = [np.asarray(steps) for steps in values]
    return lists


def _first_valid(attacks: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of the first attack with an accepted step; the number of attacks if there is none."""
    return next((number for number, record in enumerate(attacks) if len(record["predictions"]) > 1), len(attacks))
