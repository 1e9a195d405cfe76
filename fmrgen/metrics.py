"""Every metric (SA, PA, VR, FMR and their like, paper §3.3 and App. J), said once, with its 95 % interval."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

_CONFIDENCE = 0.95
RESAMPLES = 10_000
_RESAMPLES_OF_A_CLASS = 2_000  # a split may have a thousand classes


@dataclass(frozen=True)
class Estimate:
    """A figure (a rate in percent, or steps) and its 95 % interval; a single example's has no ends."""

    value: float
    low: float | None
    high: float | None


def proportion(hits: np.ndarray) -> Estimate | None:
    """The share of True with Wilson's interval, None for no rows."""
    if not len(hits):
        return None
    return Estimate(100 * int(hits.sum()) / len(hits), *wilson(int(hits.sum()), len(hits)))


def mean(values: np.ndarray) -> Estimate | None:
    """The mean with Student's interval, None for no values."""
    if not len(values):
        return None
    middle = float(values.mean())
    if len(values) == 1:
        return Estimate(middle, None, None)
    margin = float(stdtrit(len(values) - 1, (1 + _CONFIDENCE) / 2) * values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(middle, middle - margin, middle + margin)


class Resampled:
    """N examples, and the same drawn again with replacement many times, as numbers of examples of each sort.

    An example counts only through which of its answers are True. So drawing N examples anew is drawing how many there
    are of each combination of answers, whatever N is; and the answers of one example stay together: the bootstrap is
    paired. A statistic is an array over what was observed, the resamples, and what is left without one example of each
    sort.
    """

    def __init__(self, answers: Mapping[str, np.ndarray], resamples: int, seed: int = 0) -> None:
        combination = sum(answer.astype(np.int64) << bit for bit, answer in enumerate(answers.values()))
        present, self._observed = np.unique(combination, return_counts=True)
        rows = self._observed.sum()
        drawn = np.random.default_rng(seed).multinomial(rows, self._observed / rows, size=resamples)
        self._counts = np.vstack([self._observed, drawn, self._observed - np.eye(len(present), dtype=np.int64)])
        self._is = {name: (present >> bit & 1).astype(bool) for bit, name in enumerate(answers)}

    def rate(self, answer: str, among: str | None = None) -> np.ndarray:
        """Percent of the examples (those with `among`) that have `answer`; NaN where there are none."""
        base = np.ones_like(self._is[answer]) if among is None else self._is[among]
        total = self._counts[:, base].sum(1)
        hits = self._counts[:, base & self._is[answer]].sum(1)
        return np.where(total > 0, 100 * hits / np.maximum(total, 1), np.nan)

    def estimate(self, statistic: np.ndarray) -> Estimate | None:
        """What was observed with its BCa interval (Efron 1987); None where it is undefined.

        Plain percentiles of the resamples miss a rare hit's truth more often above than below; BCa corrects for it.
        """
        value, drawn, without = np.split(statistic, [1, len(statistic) - len(self._observed)])
        if np.isnan(value[0]):
            return None
        drawn = drawn[~np.isnan(drawn)]
        below = ((drawn < value).sum() + 0.5 * (drawn == value).sum()) / len(drawn)
        weights = np.where(np.isnan(without), 0, self._observed)
        without = np.nan_to_num(without)
        shift = np.average(without, weights=weights) - without if weights.any() else without
        spread = (weights * shift**2).sum() ** 1.5
        skew = (weights * shift**3).sum() / (6 * spread) if spread > 0 else 0.0
        bias = ndtri(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
        ends = bias + ndtri([(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
        low, high = np.percentile(drawn, 100 * ndtr(bias + ends / (1 - skew * ends)))
        return Estimate(float(value[0]), float(low), float(high))


def in_percent_of(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, 100 * part / np.where(whole > 0, whole, 1), np.nan)


def foundation_model_robustness(
    perturbed_hit: np.ndarray,
    valid: np.ndarray,
    original_hit: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Estimate | None, Estimate | None]:
    """FMR = PA / SA × 100 of N examples, bool [N] each, with SA over all of them, and with SA over the valid ones.

    PA is over the valid ones. The intervals are the paired bootstrap's, since PA and SA come from the same examples.
    Where none or all of the valid rows are hits there is nothing to resample, and the interval is Wilson's ends of PA
    divided by those of SA. None where no row is valid or SA is zero.
    """
    if not valid.any() or not original_hit.any():
        return None, None
    drawn = Resampled({"valid": valid, "perturbed": perturbed_hit, "original": original_hit}, resamples, seed)
    perturbed_accuracy = drawn.rate("perturbed", among="valid")
    estimates = []
    for among, hits in ((None, original_hit), ("valid", original_hit[valid])):
        estimate = drawn.estimate(in_percent_of(perturbed_accuracy, drawn.rate("original", among)))
        if estimate is not None and len(np.unique(perturbed_hit[valid])) == 1:
            estimate = _ratio_of_proportions(perturbed_hit[valid], hits)
        estimates.append(estimate)
    return estimates[0], estimates[1]


def _ratio_of_proportions(part: np.ndarray, whole: np.ndarray) -> Estimate | None:
    over, under = proportion(part), proportion(whole)
    if over is None or under is None or not over.high or not under.low or over.low is None or under.high is None:
        return None
    return Estimate(100 * over.value / under.value, 100 * over.low / under.high, 100 * over.high / under.low)


def mean_of_ratio(part: np.ndarray, valid: np.ndarray, original_hit: np.ndarray) -> Estimate | None:
    """The mean of `part` over valid rows in percent of the share of `original_hit` in all rows, [N] each.

    The interval is the delta method's, paired: both come from the same rows. None where there is nothing to divide.
    """
    if not valid.any() or not original_hit.any():
        return None
    over, under = float(part[valid].mean()), float(original_hit.mean())
    ratio = over / under
    # What one row more of its kind would change, times the rows.
    influence = np.where(valid, (part - over) / valid.mean(), 0) / under - ratio / under * (original_hit - under)
    margin = float(ndtri((1 + _CONFIDENCE) / 2) * influence.std() / np.sqrt(len(valid)))
    return Estimate(100 * ratio, 100 * max(ratio - margin, 0), 100 * (ratio + margin))


def macro_robustness(
    perturbed_hit: np.ndarray,
    valid: np.ndarray,
    original_hit: np.ndarray,
    label: np.ndarray,
    *,
    resamples: int = _RESAMPLES_OF_A_CLASS,
    seed: int = 0,
) -> Estimate | None:
    """FMR with every class of the same weight: the mean of the classes' PA by the mean of their SA.

    Arrays [N] each. A class without a valid row has no PA and counts in neither mean. The interval is the percentile
    bootstrap's, drawn within classes. None where no class has a valid row, or SA is zero.
    """
    random = np.random.default_rng(seed)
    perturbed, standard = np.zeros(resamples + 1), np.zeros(resamples + 1)
    for one in np.unique(label[valid]):
        rows = label == one
        answers = {"valid": valid[rows], "perturbed": perturbed_hit[rows], "original": original_hit[rows]}
        drawn = Resampled(answers, resamples, int(random.integers(1 << 31)))
        of_valid = drawn.rate("perturbed", among="valid")[: resamples + 1]
        perturbed += np.where(np.isnan(of_valid), of_valid[0], of_valid)  # drawn without a valid row
        standard += drawn.rate("original")[: resamples + 1]
    value, *drawn_values = in_percent_of(perturbed, standard)
    if np.isnan(value):
        return None
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.nanpercentile(drawn_values, [tail, 100 - tail])
    return Estimate(float(value), float(low), float(high))


class _Rows:
    """Some rows of a split, as what metrics are made of.

    `valid` [N] is all True where there is no such column; `right(name)` [N] says which predictions in a column are the
    label, None where there is no such column.
    """

    columns = (
        "label",
        "valid",
        "iterations",
        "prediction",
        "original_prediction",
        "reconstruction_prediction",
        "original_oracle_label",
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

    def mean_of_valid(self, name: str) -> Estimate | None:
        return mean(self._values[name][self.valid]) if name in self._values else None

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
    fmr: Estimate | None = _metric("FMR", "FMR = PA / SA", "PA / SA × 100", lambda rows: rows.fmr[0], compared=True)
    valid_standard_accuracy: Estimate | None = _metric(
        "SA valid",
        "SA over valid rows alone",
        "accuracy on the originals of valid rows alone",
        lambda rows: rows.share_right("original_prediction", among_valid=True),
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
    macro_fmr: Estimate | None = _metric(
        "FMR macro",
        "FMR, all classes of the same weight",
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
        lambda rows: rows.mean_of_valid("iterations"),
        of="split",
        unit="",
    )
    reconstruction_accuracy: Estimate | None = _metric(
        "recon.",
        "classifier accuracy on plain reconstructions",
        "accuracy of the split's own classifier on images that only went through the generator: what is lost here, no "
        "step has done",
        lambda rows: rows.share_right("reconstruction_prediction"),
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
        columns: arrays [N] under the split's column names; `label` and `prediction` must be there. Without `valid` all
            rows count; without another column, what needs it is None.
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
        summarise({name: values[rows] for name, values in columns.items()}, resamples=_RESAMPLES_OF_A_CLASS)
        for rows in members
    ]


def wilson(hits: int, rows: int) -> tuple[float, float]:
    """The ends of Wilson's interval for a proportion, in percent."""
    z = float(ndtri((1 + _CONFIDENCE) / 2))
    middle, margin = 2 * hits + z**2, z * np.sqrt(4 * hits * (rows - hits) / rows + z**2)
    low, high = ((middle + sign * margin) / (2 * (rows + z**2)) for sign in (-1, 1))
    return 100 * float(low) if hits else 0.0, 100 * float(high) if hits < rows else 100.0
