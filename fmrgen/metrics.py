"""Every metric (SA, PA, VR, FMR and their like, paper §3.3 and App. J), said once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from fmrgen.intervals import (
    RESAMPLES,
    RESAMPLES_OF_A_CLASS,
    Estimate,
    foundation_model_robustness,
    macro_robustness,
    mean,
    proportion,
    wilson,
)
from fmrgen.records import StopReason

_ROUNDING_OF_LOSSES = 1e-5  # of a cross-entropy in float32, where the logits are some tens
_FEWEST_STEPS_UP = 80.0  # percent: see `has_masked_gradient`


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
        told = foundation_model_robustness(perturbed[rows], valid[rows], original[rows], resamples=self._resamples)
        return told[0]

    def fmr_where_oracle_is_right(self) -> Estimate | None:
        right = self.right("original_oracle_label")
        return None if right is None else self.fmr_if(rows=right)

    def perturbed_by_reconstructed(self) -> Estimate | None:
        perturbed, reconstructed = self.right("prediction"), self.right("reconstruction_prediction")
        if perturbed is None or reconstructed is None:
            return None
        return foundation_model_robustness(perturbed, self.valid, reconstructed, resamples=self._resamples)[0]

    def share_stopped_by(self, reason: StopReason) -> Estimate | None:
        reasons = self._values.get("stop_reason")
        if reasons is None:
            return None
        return proportion(reasons == (list(StopReason).index(reason) if reasons.dtype.kind in "iu" else reason.value))

    def share_of_first_steps_up(self) -> Estimate | None:
        """Of the valid rows whose first step changed the loss by more than rounding does, those where it rose."""
        if "step_losses" not in self._values:
            return None
        steps = [losses[:2] for losses in self._values["step_losses"][self.valid] if len(losses) > 1]
        before, after = np.array(steps, dtype=np.float64).reshape(-1, 2).T
        told = (before != after) & (np.maximum(before, after) > _ROUNDING_OF_LOSSES)
        return proportion((after > before)[told])

    def macro_fmr(self) -> Estimate | None:
        perturbed, original = self.right("prediction"), self.right("original_prediction")
        if perturbed is None or original is None or len(np.unique(self.label)) < 2:
            return None
        return macro_robustness(perturbed, self.valid, original, self.label)


# What `summarise` reads; none of it is an image.
SUMMARY_COLUMNS = _Rows.columns


@dataclass(frozen=True)
class Metric:
    """A figure of `Summary`, and how it is told wherever it is shown.

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
        "accuracy on the source's images before they come to the split's size: where SA is lower, resizing takes it",
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
        "PA by the accuracy on plain reconstructions, × 100: what the steps do, without what the generator does",
        lambda rows: rows.perturbed_by_reconstructed(),
        secondary=True,
    )
    macro_fmr: Estimate | None = _metric(
        "FMR macro",
        "FMR, classes weighted equally",
        "the mean of the classes' PA by the mean of their SA",
        lambda rows: rows.macro_fmr(),
        secondary=True,
    )
    lowest_fmr: Estimate | None = _metric(
        "FMR low",
        "FMR if all invalid rows were wrong",
        "FMR with every invalid row counted as wrong: it can't be lower, whatever was let through",
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
        "classifier accuracy on plain reconstructions",
        "accuracy of the split's own classifier on images that only went through the generator: losses here are not "
        "caused by the steps",
        lambda rows: rows.share_right("reconstruction_prediction"),
    )
    by_budget: Estimate | None = _metric(
        "by budget",
        "rows that used the whole budget",
        "share of rows that the oracle would have let go on",
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


def is_at_chance(label: np.ndarray, prediction: np.ndarray, classes: int) -> bool:
    """Whether predictions match labels hardly better than guesses do, so that every figure made of them says nothing.

    Guesses name each class equally often, or as often as the predictions do: a network that always gives the
    commonest class is at chance too. Untrained networks are right a little more often than guesses (of 30 LeNets with
    random weights, on up to 17 % of ten digits), so twice as often is still chance, as far as that is at most a tenth
    of the way to being always right.

    Args:
        label: [N].
        prediction: [N], -1 for none.
        classes: that there are.

    Returns:
        Whether the lower end of the accuracy's 95 % interval is not above that; False where all labels are one, which
        no guess can miss.
    """
    labels = np.bincount(label, minlength=classes) / len(label)
    if (labels > 0).sum() < 2:
        return False
    predictions = np.bincount(prediction[prediction >= 0], minlength=classes) / len(label)
    guessing = max(1 / classes, float(labels @ predictions[:classes]))
    return wilson(float((label == prediction).sum()), len(label))[0] <= _most_by_chance(guessing)


def has_masked_gradient(summary: Summary) -> bool:
    """Whether first steps raised the loss so seldom that the gradient can't have shown the way.

    A step along a gradient raises the loss of nearly every image, one in a direction of chance of about half: where it
    falls as often as it rises, neither direction is the gradient's. Between the two lies the bound, at 80 %: honest
    networks have 91 to 100 %, also quantised and rippled ones, and networks that hand over another gradient than their
    own 45 to 63 %. It holds for guided steps alone, and for splits that start from the plain reconstruction.
    """
    share = summary.first_steps_up
    return share is not None and share.high is not None and share.high < _FEWEST_STEPS_UP


def _most_by_chance(guessing: float) -> float:
    """The accuracy, in percent, up to which one that guesses right so often, from 0 to 1, is at chance."""
    return 100 * (guessing + min(guessing, 0.1 * (1 - guessing)))


def summarise_classes(columns: Mapping[str, np.ndarray], classes: int) -> list[Summary]:
    """A summary for the rows of each label (paper App. J, Tables 13 and 14); the intervals are of fewer resamples."""
    members = [columns["label"] == label for label in range(classes)]
    return [
        summarise({name: values[rows] for name, values in columns.items()}, resamples=RESAMPLES_OF_A_CLASS)
        for rows in members
    ]


def has_accuracy_of_chance(summary: Summary, classes: int) -> bool:
    """The same of figures whose rows are not at hand: against guesses that name each class equally often."""
    accuracy = summary.standard_accuracy
    return accuracy is not None and accuracy.low is not None and accuracy.low <= _most_by_chance(1 / classes)
