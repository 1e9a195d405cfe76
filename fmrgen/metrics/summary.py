"""Every metric (SA, PA, VR, FMR and others, paper §3.3 and App. J), defined once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from fmrgen.metrics.intervals import Estimate, format_estimate
from fmrgen.metrics.outputs import is_at_chance
from fmrgen.metrics.rows import Rows
from fmrgen.records import StopReason

FEWEST_VALID = 20  # rows; with fewer the interval of FMR reaches from nearly 0 to beyond 100
TOO_FEW = "too few rows"
CONVERGED = 1.0  # points of FMR: see `Summary.has_converged`
SUMMARY_COLUMNS = Rows.columns  # that `summarise` reads; none of them is an image
# Those that are about the split's own classifier alone.
_OWN_PREFIXES = ("reconstruction_", "step_", "control_", "reject", "attack")
OWN_COLUMNS = tuple(name for name in SUMMARY_COLUMNS if name.startswith(_OWN_PREFIXES))


@dataclass(frozen=True)
class Metric:
    """A figure of `Summary`, and how it is shown."""

    name: str  # in tables
    title: str  # in words, on a line of its own
    meaning: str
    of: Literal["classifier", "split"]  # whether it differs between classifiers, or is the same for all on a split
    compared: bool  # whether classifiers are compared by it, in leaderboards, transfer matrices and differences
    make: Callable[[Rows], Estimate | None]
    unit: str = " %"  # text behind a figure
    field: str = ""  # its name in `Summary`, and in files


def _metric(
    name: str,
    title: str,
    meaning: str,
    make: Callable[[Rows], Estimate | None],
    *,
    subject: Literal["classifier", "split"] = "classifier",
    compared: bool = False,
    unit: str = " %",
) -> Any:
    metric = Metric(name, title, meaning, subject, compared, make, unit)
    return field(default=None, metadata={"metric": metric, "description": meaning})


@dataclass(frozen=True)
class Summary:
    """The figures of a classifier on some rows; None if a column is missing or there is nothing to divide by.

    Attributes:
        rows: number of rows.
        valid_rows: number of valid rows.
        at_chance: whether the classifier is hardly better than guessing on the originals: its figures mean nothing.
    """

    rows: int
    valid_rows: int
    at_chance: bool = False
    fmr: Estimate | None = _metric("FMR", "FMR = PA / SA", "PA / SA × 100", Rows.fmr, compared=True)
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
        lambda rows: rows.validation_rate(),
        subject="split",
    )
    attacked_accuracy: Estimate | None = _metric(
        "attacked",
        "accuracy on originals under an attack on pixels",
        "accuracy on the originals after an attack against the classifier itself (evaluate --attack)",
        lambda rows: rows.share_right("attacked_prediction"),
    )
    lowest_fmr: Estimate | None = _metric(
        "FMR low",
        "FMR if all invalid rows were wrong",
        "FMR with every invalid row counted as wrong: it can't be lower, whichever rows were accepted",
        lambda rows: rows.fmr(invalid_right=False),
    )
    highest_fmr: Estimate | None = _metric(
        "FMR high",
        "FMR if all invalid rows were right",
        "FMR with every invalid row counted as right",
        lambda rows: rows.fmr(invalid_right=True),
    )
    mean_iterations: Estimate | None = _metric(
        "iterations",
        "mean iterations of valid rows",
        "mean guided steps of valid rows",
        Rows.mean_iterations,
        subject="split",
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
        subject="split",
    )
    first_attack_fmr: Estimate | None = _metric(
        "FMR one attack",
        "FMR of the first attack alone",
        "FMR if only the first of several attacks had been made, by its last accepted image: that of the paper's "
        "Algorithm 1",
        lambda rows: rows.first_attack_fmr(),
    )
    last_attacks_drop: Estimate | None = _metric(
        "last drop",
        "FMR lost to each of the last two attacks",
        "by how much each of the last two attacks lowered FMR, on average: FMR has converged if it is below one point",
        lambda rows: rows.drop_of_last_attacks(),
        unit=" points",
    )
    stuck: Estimate | None = _metric(
        "stuck",
        "rows without a gradient (stuck)",
        "share of rows that ended because no gradient reached the latent: no sign of robustness",
        lambda rows: rows.share_stopped_by(StopReason.STUCK),
        subject="split",
    )
    first_steps_up: Estimate | None = _metric(
        "1st step up",
        "first steps that raised the loss",
        "share of the valid rows in which the first guided step raised the loss of the split's own classifier: nearly "
        "all where its gradient shows the way, about half where it does not (gradient masking) or where there is none",
        lambda rows: rows.share_of_first_steps_up(),
    )
    steps_up: Estimate | None = _metric(
        "steps up",
        "steps that raised the loss",
        "share of the guided steps from images that the classifier still has right, of the first attack on valid rows, "
        "that raised what they climb: nearly all where the gradient shows the way to the boundary",
        Rows.share_of_steps_up,
    )
    guided_less_random: Estimate | None = _metric(
        "guided – random",
        "FMR of guided minus random steps",
        "FMR of some rows after guided steps less that after at most as many random ones: the "
        "effect of the gradient without that of any steps",
        lambda rows: rows.guided_less_random(),
        unit=" points",
    )
    oracle_accuracy: Estimate | None = _metric(
        "oracle",
        "oracle accuracy on originals",
        "the oracle's own accuracy on all originals",
        lambda rows: rows.share_right("original_oracle_label"),
        subject="split",
    )

    def __getitem__(self, metric: Metric) -> Estimate | None:
        """Return the figure of a metric."""
        return getattr(self, metric.field)

    def has_too_few_rows(self, metric: Metric) -> bool:
        """Return whether a metric is a kind of FMR, and valid rows are too few for an interval."""
        return self.valid_rows < FEWEST_VALID and metric.field.endswith("fmr") and self[metric] is not None

    @property
    def has_converged(self) -> bool | None:
        """Whether another attack would hardly lower FMR: the last two lowered it by less than `CONVERGED` points each,
        with 95 % confidence. None if there were fewer than three attacks.
        """
        if self.first_attack_fmr is not None and self.fmr is not None and not self.fmr.value:
            return True  # it can't be lower
        drop = self.last_attacks_drop
        return None if drop is None or drop.high is None else drop.high < CONVERGED

    def text_of(self, metric: Metric) -> str:
        """Return a figure with its interval, or with `too few rows` instead of it."""
        estimate = self[metric]
        if estimate is not None and self.has_too_few_rows(metric):
            return f"{estimate.value:z.2f} ({TOO_FEW})"
        return format_estimate(estimate)


METRICS = tuple(replace(f.metadata["metric"], field=f.name) for f in fields(Summary) if "metric" in f.metadata)
BY_FIELD = {metric.field: metric for metric in METRICS}
COMPARED = {metric.field: metric for metric in METRICS if metric.compared}
# Those of each class, and the columns that they need.
_NAMES_OF_CLASSES = ("fmr", "standard_accuracy", "perturbed_accuracy", "validation_rate", "mean_iterations")
OF_CLASSES = [BY_FIELD[name] for name in (*_NAMES_OF_CLASSES, "oracle_accuracy")]
_COLUMNS_OF_CLASSES = (
    "label",
    "accepted_labels",
    "valid",
    "iterations",
    "prediction",
    "original_prediction",
    "original_oracle_label",
)
# What a reader needs first: SA, PA and FMR.
MAIN_METRICS = [BY_FIELD[name] for name in ("standard_accuracy", "perturbed_accuracy", "fmr")]


def summarise(columns: Mapping[str, np.ndarray]) -> Summary:
    """Return the summary of rows.

    Args:
        columns: arrays [N] under the split's column names, lists of steps as arrays of lists; `label` and `prediction`
            are required. Without `valid` all rows count; without another column, figures that need it are None.

    Returns:
        Every metric, rates in percent.
    """
    rows = Rows(columns)
    figures = {metric.field: metric.make(rows) for metric in METRICS}
    at_chance = False
    if "original_prediction" in columns and len(rows.label):
        at_chance = is_at_chance(rows.label, columns["original_prediction"])
    return Summary(rows=len(rows.label), valid_rows=int(rows.valid.sum()), at_chance=at_chance, **figures)


def summarise_classes(columns: Mapping[str, np.ndarray], classes: int) -> list[Summary]:
    """Return a summary of the rows of each label (paper App. J, Tables 13 and 14), of `OF_CLASSES` alone."""
    names = [name for name in _COLUMNS_OF_CLASSES if name in columns]
    in_order = np.argsort(columns["label"], kind="stable")
    ends = np.searchsorted(columns["label"][in_order], np.arange(classes + 1))
    summaries = []
    for start, end in pairwise(ends.tolist()):
        places = in_order[start:end]
        rows = Rows({name: columns[name][places] for name in names})
        figures = {metric.field: metric.make(rows) for metric in OF_CLASSES}
        summaries.append(Summary(rows=len(places), valid_rows=int(rows.valid.sum()), **figures))
    return summaries
