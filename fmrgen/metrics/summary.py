"""Every metric (SA, PA, VR, FMR and their like, paper §3.3 and App. J), said once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from fmrgen.metrics.intervals import (
    FEWER_RESAMPLES,
    RESAMPLES,
    Estimate,
    foundation_model_robustness,
    macro_robustness,
    mean,
    paired_difference,
    proportion,
    ratio_of_rates,
)
from fmrgen.records import StopReason

_ROUNDING_OF_LOSSES = 1e-5  # of a cross-entropy in float32, where the logits are some tens


class _Rows:
    """Some rows of a split, as what metrics are made of.

    `valid` [N] is all True where there is no such column; `right(name)` [N] says which predictions in a column are the
    label, None where there is no such column. Stop reasons are words, or their numbers in a split.
    """

    columns = (
        "label",
        "valid",
        "iterations",
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

    def macro_fmr(self) -> Estimate | None:
        perturbed, original = self.right("prediction"), self.right("original_prediction")
        if perturbed is None or original is None or len(np.unique(self.label)) < 2:
            return None
        return macro_robustness(perturbed, self.valid, original, self.label)


# What `summarise` reads; none of it is an image.
SUMMARY_COLUMNS = _Rows.columns
# Those that are about the split's own classifier alone.
OWN_COLUMNS = tuple(
    name for name in SUMMARY_COLUMNS if name.startswith(("reconstruction_", "step_", "control_", "reject"))
)


@dataclass(frozen=True)
class Metric:
    """A figure of `Summary`, and how it is shown.

    Attributes:
        name: in tables.
        title: in words, on a line of its own.
        meaning: what exactly it is.
        of: whether it differs from classifier to classifier, or is the split's whoever looks at it.
        compared: whether classifiers are compared by it, in leaderboards, transfer matrices and differences.
        secondary: whether it says what FMR would be by another way of counting, and stands in a table of its own.
        make: makes it of rows.
        unit: what stands behind a figure.
        field: its name in `Summary`, and in files.
    """

    name: str
    title: str
    meaning: str
    of: Literal["classifier", "split"]
    compared: bool
    secondary: bool
    make: Callable[[_Rows], Estimate | None]
    unit: str = " %"
    field: str = ""


def _metric(
    name: str,
    title: str,
    meaning: str,
    make: Callable[[_Rows], Estimate | None],
    *,
    of: Literal["classifier", "split"] = "classifier",
    compared: bool = False,
    secondary: bool = False,
    unit: str = " %",
) -> Any:
    metric = Metric(name, title, meaning, of, compared, secondary, make, unit)
    return field(default=None, metadata={"metric": metric, "description": meaning})


@dataclass(frozen=True)
class Summary:
    """What is known of a classifier on some rows; None where a column is not there or there is nothing to divide by.

    Attributes:
        rows, valid_rows: how many there are.
    """

    rows: int
    valid_rows: int
    fmr: Estimate | None = _metric("FMR", "FMR = PA / SA", "PA / SA × 100", lambda rows: rows.fmr[0], compared=True)
    standard_accuracy: Estimate | None = _metric(
        "SA",
        "SA, standard accuracy",
        "accuracy on all originals",
        lambda rows: rows.share_right("original_prediction"),
        compared=True,
    )
    perturbed_accuracy: Estimate | None = _metric(
        "PA",
        "PA, perturbed accuracy over valid rows",
        "accuracy on the perturbed images of valid rows",
        lambda rows: rows.share_right("prediction", among_valid=True),
        compared=True,
    )
    validation_rate: Estimate | None = _metric(
        "VR",
        "VR, validation rate",
        "share of rows whose first step the oracle accepted",
        lambda rows: proportion(rows.valid) if rows.has_valid else None,
        of="split",
    )
    valid_standard_accuracy: Estimate | None = _metric(
        "SA valid",
        "SA over valid rows alone",
        "accuracy on the originals of valid rows alone",
        lambda rows: rows.share_right("original_prediction", among_valid=True),
    )
    native_accuracy: Estimate | None = _metric(
        "SA native",
        "SA on the source's own pixels",
        "accuracy on the source's images before resizing to the split's size: if SA is lower, resizing is the cause",
        lambda rows: rows.share_right("native_prediction"),
    )
    attacked_accuracy: Estimate | None = _metric(
        "attacked",
        "accuracy on originals under an attack on pixels",
        "accuracy on the originals after an attack against the classifier itself (evaluate --attack)",
        lambda rows: rows.share_right("attacked_prediction"),
    )
    valid_fmr: Estimate | None = _metric(
        "FMR valid",
        "FMR over valid rows alone",
        "PA / SA valid × 100: FMR without the effect of which rows the oracle let through",
        lambda rows: rows.fmr[1],
        secondary=True,
    )
    oracle_right_fmr: Estimate | None = _metric(
        "FMR known",
        "FMR where the oracle is right on the original",
        "FMR over the rows whose original the oracle recognises: without its own mistakes",
        lambda rows: rows.fmr_where_oracle_is_right(),
        secondary=True,
    )
    reconstruction_fmr: Estimate | None = _metric(
        "PA / recon.",
        "PA / accuracy on plain reconstructions",
        "PA / accuracy on plain reconstructions × 100: the effect of the steps without that of the generator",
        lambda rows: rows.perturbed_by_reconstructed(),
        secondary=True,
    )
    macro_fmr: Estimate | None = _metric(
        "FMR macro",
        "FMR, classes weighted equally",
        "mean of the classes' PA / mean of their SA × 100",
        lambda rows: rows.macro_fmr(),
        secondary=True,
    )
    lowest_fmr: Estimate | None = _metric(
        "FMR low",
        "FMR if all invalid rows were wrong",
        "FMR with every invalid row counted as wrong: it can't be lower, whichever rows were accepted",
        lambda rows: rows.fmr_if(invalid_right=False),
        secondary=True,
    )
    highest_fmr: Estimate | None = _metric(
        "FMR high",
        "FMR if all invalid rows were right",
        "FMR with every invalid row counted as right",
        lambda rows: rows.fmr_if(invalid_right=True),
        secondary=True,
    )
    mean_iterations: Estimate | None = _metric(
        "iterations",
        "mean iterations of valid rows",
        "mean guided steps of valid rows",
        _Rows.mean_iterations,
        of="split",
        unit="",
    )
    reconstruction_accuracy: Estimate | None = _metric(
        "recon.",
        "accuracy on plain reconstructions",
        "accuracy of the split's own classifier on images that only went through the generator: losses here are not "
        "caused by the steps",
        lambda rows: rows.share_right("reconstruction_prediction"),
    )
    by_budget: Estimate | None = _metric(
        "by budget",
        "rows that used the whole budget",
        "share of rows that the budget stopped, not the oracle",
        lambda rows: rows.share_stopped_by(StopReason.BUDGET),
        of="split",
    )
    stuck: Estimate | None = _metric(
        "stuck",
        "rows without a gradient (stuck)",
        "share of rows that ended because no gradient reached the latent: no sign of robustness",
        lambda rows: rows.share_stopped_by(StopReason.STUCK),
        of="split",
    )
    first_steps_up: Estimate | None = _metric(
        "1st step up",
        "first steps that raised the loss",
        "share of the valid rows in which the first guided step raised the loss of the split's own classifier: nearly "
        "all where its gradient shows the way, about half where it does not (gradient masking) or where there is none",
        lambda rows: rows.share_of_first_steps_up(),
    )
    guided_less_random: Estimate | None = _metric(
        "guided – random",
        "FMR of guided minus random steps",
        "FMR of some rows after guided steps less that after at most as many random ones: the "
        "effect of the gradient without that of any steps",
        lambda rows: rows.guided_less_random(),
        unit=" points",
    )
    ahead_of_random: Estimate | None = _metric(
        "ahead",
        "rows whose guided steps climbed higher than random ones",
        "share of these rows in which guided steps raised the loss further than as many random ones",
        lambda rows: rows.share_ahead_of_random(),
    )
    falls_with_oracle: Estimate | None = _metric(
        "co-fall",
        "failures at the step that the oracle rejects, relative to another",
        "how many times as often the split's own classifier first fails at the step that the oracle rejects as "
        "at another one: a large number if the two are related",
        lambda rows: rows.falls_with_oracle(),
        unit=" times",
    )
    oracle_accuracy: Estimate | None = _metric(
        "oracle",
        "oracle accuracy on originals",
        "the oracle's own accuracy on all originals",
        lambda rows: rows.share_right("original_oracle_label"),
        of="split",
    )

    def __getitem__(self, metric: Metric) -> Estimate | None:
        """The figure of a metric."""
        return getattr(self, metric.field)


METRICS = tuple(replace(f.metadata["metric"], field=f.name) for f in fields(Summary) if "metric" in f.metadata)
COMPARED = {metric.field: metric for metric in METRICS if metric.compared}


def summarise(columns: Mapping[str, np.ndarray], *, resamples: int = RESAMPLES) -> Summary:
    """The summary of rows.

    Args:
        columns: arrays [N] under the split's column names, lists of steps as arrays of lists; `label` and `prediction`
            must be there. Without `valid` all rows count; without another column, what needs it is None.
        resamples: of the bootstrap.

    Returns:
        Every metric, rates in percent.
    """
    rows = _Rows(columns, resamples)
    figures = {metric.field: metric.make(rows) for metric in METRICS}
    return Summary(rows=len(rows.label), valid_rows=int(rows.valid.sum()), **figures)


def summarise_classes(columns: Mapping[str, np.ndarray], classes: int) -> list[Summary]:
    """A summary for the rows of each label (paper App. J, Tables 13 and 14); the intervals are of fewer resamples."""
    members = [columns["label"] == label for label in range(classes)]
    return [
        summarise({name: values[rows] for name, values in columns.items()}, resamples=FEWER_RESAMPLES)
        for rows in members
    ]
