"""Every metric (SA, PA, VR, FMR and others, paper §3.3 and App. J), defined once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from fmrgen.metrics.intervals import Estimate, format_estimate
from fmrgen.metrics.outputs import is_at_chance
from fmrgen.metrics.rows import OWN_COLUMNS, SUMMARY_COLUMNS, Rows
from fmrgen.records import StopReason

TOO_FEW = "too few rows"


@dataclass(frozen=True)
class Metric:
    """A figure of `Summary`, and how it is shown."""

    name: str  # in tables
    title: str  # in words, on a line of its own
    meaning: str
    make: Callable[[Rows], Estimate | None]
    of: Literal["classifier", "split"] = "classifier"  # whether it differs between classifiers, or is a split's
    compared: bool = False  # whether classifiers are compared by it, in leaderboards, matrices and differences
    unit: str = " %"  # text behind a figure
    field: str = ""  # its name in `Summary`, and in files


def _metric(*values: Any, **options: Any) -> Any:
    """Return the field of a metric, made of the values of `Metric`."""
    return field(default=None, metadata={"metric": Metric(*values, **options)})


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
        Rows.validation_rate,
        of="split",
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
    first_attack_fmr: Estimate | None = _metric(
        "FMR one attack",
        "FMR of the first attack alone",
        "FMR if only the first of several attacks had been made, by its last accepted image: that of the paper's "
        "Algorithm 1",
        Rows.first_attack_fmr,
    )
    last_attacks_drop: Estimate | None = _metric(
        "last drop",
        "FMR lost to each of the last two attacks",
        "by how much each of the last two attacks lowered FMR, on average: FMR has converged if it is below one point",
        Rows.drop_of_last_attacks,
        unit=" points",
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
        Rows.share_of_first_steps_up,
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
        Rows.guided_less_random,
        unit=" points",
    )
    oracle_accuracy: Estimate | None = _metric(
        "oracle",
        "oracle accuracy on originals",
        "the oracle's own accuracy on all originals",
        lambda rows: rows.share_right("original_oracle_label"),
        of="split",
    )

    def __getitem__(self, metric: Metric) -> Estimate | None:
        """Return the figure of a metric."""
        return getattr(self, metric.field)

    def has_too_few_rows(self, metric: Metric) -> bool:
        """Return whether a metric is a kind of FMR, and valid rows are too few for an interval of use."""
        return self.valid_rows < 20 and metric.field.endswith("fmr") and self[metric] is not None

    @property
    def has_converged(self) -> bool | None:
        """Whether another attack would hardly lower FMR: the last two lowered it by less than one point each,
        with 95 % confidence. None if there were fewer than three attacks.
        """
        if self.first_attack_fmr is not None and self.fmr is not None and not self.fmr.value:
            return True  # it can't be lower
        drop = self.last_attacks_drop
        return None if drop is None or drop.high is None else drop.high < 1

    def text_of(self, metric: Metric) -> str:
        """Return a figure with its interval, or with `too few rows` instead of it."""
        estimate = self[metric]
        if estimate is not None and self.has_too_few_rows(metric):
            return f"{estimate.value:z.2f} ({TOO_FEW})"
        return format_estimate(estimate)


METRICS = tuple(replace(f.metadata["metric"], field=f.name) for f in fields(Summary) if "metric" in f.metadata)
BY_FIELD = {metric.field: metric for metric in METRICS}
COMPARED = {metric.field: metric for metric in METRICS if metric.compared}
MAIN_METRICS = [BY_FIELD[name] for name in ("standard_accuracy", "perturbed_accuracy", "fmr")]  # what one needs first
_OTHERS_OF_CLASSES = ("validation_rate", "mean_iterations", "oracle_accuracy")
OF_CLASSES = [*COMPARED.values(), *(BY_FIELD[name] for name in _OTHERS_OF_CLASSES)]


def summarise(columns: Mapping[str, np.ndarray]) -> Summary:
    """Return the summary of rows.

    Args:
        columns: arrays [N] under the split's column names, lists of steps as arrays of lists; `label` and `prediction`
            are required. Without `valid` all rows count; without another column, figures that need it are None.

    Returns:
        Every metric, rates in percent.
    """
    at_chance = False
    if "original_prediction" in columns and len(columns["label"]):
        at_chance = is_at_chance(columns["label"], columns["original_prediction"])
    return replace(_figures_of(columns, METRICS), at_chance=at_chance)


def _figures_of(columns: Mapping[str, np.ndarray], metrics: Sequence[Metric]) -> Summary:
    rows = Rows(columns)
    figures: dict[str, Any] = {metric.field: metric.make(rows) for metric in metrics}
    return Summary(rows=len(rows.label), valid_rows=int(rows.valid.sum()), **figures)


def summarise_classes(columns: Mapping[str, np.ndarray], classes: int) -> list[Summary]:
    """Return a summary of the rows of each label (paper App. J, Tables 13 and 14), of `OF_CLASSES` alone."""
    names = [name for name in SUMMARY_COLUMNS if name in columns and name not in OWN_COLUMNS]
    in_order = np.argsort(columns["label"], kind="stable")
    ends = np.searchsorted(columns["label"][in_order], np.arange(classes + 1))
    summaries = []
    for start, end in pairwise(ends.tolist()):
        rows = in_order[start:end]
        summaries.append(_figures_of({name: columns[name][rows] for name in names}, OF_CLASSES))
    return summaries
