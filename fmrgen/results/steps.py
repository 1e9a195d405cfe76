"""What the steps of a split say of its own classifier: every smaller budget, every stricter oracle, the first failure.

A run with a smaller budget, or with a higher `min_probability`, would have stored an image that this one passed: so its
figures are read off the record of the steps, and no other run is needed.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fmrgen.metrics.intervals import (
    FEWER_RESAMPLES,
    RESAMPLES,
    Estimate,
    foundation_model_robustness,
    mean,
    mean_of_ratio,
    proportion,
)

_NEEDED = ("step_predictions", "step_oracle_probabilities")
_MOST_BUDGETS = 60  # that have figures of their own; of more, evenly chosen ones
_MOST_STEPS, _MOST_ENTRIES = 1_000_000, 1 << 28
SHIFTS = {"latent_shift": "of the latent", "pixel_shift": "of the pixels (0 to 1)"}
_DISTANCES = 20
_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99)


@dataclass(frozen=True)
class AtBudget:
    """The figures that a budget of so many guided steps gives."""

    budget: int
    perturbed_accuracy: Estimate | None
    fmr: Estimate | None


@dataclass(frozen=True)
class AtThreshold:
    """The figures under an oracle that gives the class at least so much probability."""

    min_probability: float
    validation_rate: Estimate | None
    perturbed_accuracy: Estimate | None
    fmr: Estimate | None
    mean_iterations: Estimate | None


@dataclass(frozen=True)
class AtDistance:
    """The figures where an image counts as fooled only if it has moved by no more than that."""

    most: float
    perturbed_accuracy: Estimate | None
    fmr: Estimate | None


@dataclass(frozen=True)
class StepsOfClass:
    """One class: FMR at each of the budgets, and `first_failures` as of all classes."""

    fmr: list[float | None]
    first_failures: dict[int, int]
    never_failed: int


@dataclass(frozen=True)
class StepFigures:
    """The split's own classifier, step by step.

    `area_under_fmr` is the mean of FMR over the budgets 1 to the split's own. `first_failures` maps a step to the valid
    rows whose prediction is wrong there for the first time, 0 being the plain reconstruction; `never_failed`
    counts the others. `classes` are in the order of the split's class names. `distances` are of a split that keeps the
    first image that fools, whose shift is then the least, by the columns of `SHIFTS`; of another there are none.
    """

    budgets: list[AtBudget]
    area_under_fmr: Estimate | None
    thresholds: list[AtThreshold]
    first_failures: dict[int, int]
    never_failed: int
    classes: list[StepsOfClass]
    distances: dict[str, list[AtDistance]] = field(default_factory=dict)


def step_figures(
    columns: Mapping[str, np.ndarray],
    budget: int,
    classes: int,
    own_threshold: float = 0.0,
    keeps_first: bool = False,
) -> StepFigures | None:
    """The figures of the steps.

    Args:
        columns: of a split, [N] each, under its columns' names; lists of steps as arrays of lists.
        budget: of the split.
        classes: how many labels there are.
        own_threshold: the `min_probability` that the split was made with; only stricter ones are known.
        keeps_first: whether rows end at the first image that fools.

    Returns:
        None where the split keeps no steps, or not one for each iteration and the reconstruction.
    """
    needed = (*_NEEDED, "label", "valid", "iterations", "original_prediction")
    if any(name not in columns for name in needed):
        return None
    iterations, label = columns["iterations"].astype(np.int64), columns["label"]
    longest = int(iterations.max(initial=0))
    # Anyone's provenance and rows: they do not say how much memory is taken.
    if not 1 <= max(longest, 1) <= budget <= _MOST_STEPS or longest * len(label) > _MOST_ENTRIES:
        return None
    predictions, probabilities = (_as_matrix(columns[name], iterations) for name in _NEEDED)
    if predictions is None or probabilities is None:
        return None
    right = predictions == label[:, None]
    valid, original = columns["valid"], columns["original_prediction"] == label
    budgets = _spread(budget)
    at_budget = {b: right[np.arange(len(label)), np.minimum(b, iterations)] for b in budgets}
    failed_first = np.where((~right).any(1), (~right).argmax(1), -1)
    members = [label == one for one in range(classes)]
    beyond = right[:, -1] * (budget - longest)  # budgets that no row needs
    share_of_budgets = (right[:, 1:].sum(1) + beyond) / budget
    return StepFigures(
        budgets=[
            AtBudget(b, proportion(hit[valid]), _fmr(hit, valid, original, is_own=b == budget))
            for b, hit in at_budget.items()
        ],
        area_under_fmr=mean_of_ratio(share_of_budgets, valid, original),
        thresholds=[
            _at_threshold(least, right, probabilities, iterations, valid, original, is_own=least == own_threshold)
            for least in sorted({own_threshold, *(t for t in _THRESHOLDS if t > own_threshold)})
        ],
        first_failures=_counted(failed_first[valid]),
        never_failed=int((failed_first[valid] < 0).sum()),
        classes=[
            StepsOfClass(
                [_ratio(hit[rows & valid], original[rows]) for hit in at_budget.values()],
                _counted(failed_first[rows & valid]),
                int((failed_first[rows & valid] < 0).sum()),
            )
            for rows in members
        ],
        distances={
            name: _by_distance(right[:, -1], valid, original, columns[name])
            for name in SHIFTS
            if keeps_first and name in columns
        },
    )


def _by_distance(right: np.ndarray, valid: np.ndarray, original: np.ndarray, shift: np.ndarray) -> list[AtDistance]:
    """At shifts that as many of the fooled lie between."""
    fooled = ~right & valid
    if not np.isfinite(shift[valid]).all() or not fooled.any():
        return []
    places = np.unique(np.quantile(shift[fooled], np.linspace(0, 1, _DISTANCES), method="inverted_cdf"))
    hits = {float(most): right | (shift > most) for most in places}
    return [
        AtDistance(most, proportion(hit[valid]), _fmr(hit, valid, original, is_own=False)) for most, hit in hits.items()
    ]


def _as_matrix(lists: np.ndarray, iterations: np.ndarray) -> np.ndarray | None:
    """[N, steps + 1], the last one repeated; None where a row has not an entry for each of its steps."""
    lengths = np.array([len(steps) for steps in lists])
    if not np.array_equal(lengths, iterations + 1):
        return None
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    reached = np.minimum(np.arange(iterations.max() + 1), iterations[:, None])
    return np.concatenate(list(lists))[starts[:, None] + reached]


def _at_threshold(
    least: float,
    right: np.ndarray,
    probabilities: np.ndarray,
    iterations: np.ndarray,
    valid: np.ndarray,
    original: np.ndarray,
    is_own: bool,
) -> AtThreshold:
    """A row stops before the first image whose probability is below `least`; the reconstruction is not judged."""
    kept = _kept(least, probabilities, iterations, valid)
    still_valid = kept > 0
    hit = right[np.arange(len(kept)), kept]
    return AtThreshold(
        min_probability=float(least),
        validation_rate=proportion(still_valid),
        perturbed_accuracy=proportion(hit[still_valid]),
        fmr=_fmr(hit, still_valid, original, is_own=is_own),
        mean_iterations=mean(kept[still_valid], least=1),
    )


def _kept(least: float, probabilities: np.ndarray, iterations: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The step [N] whose image a run with that threshold would have kept, 0 where its first was rejected."""
    accepted = probabilities[:, 1:] >= np.float32(least)
    accepted_in_a_row = np.logical_and.accumulate(accepted, axis=1).sum(1)
    kept: np.ndarray = np.minimum(np.where(valid, iterations, 0), accepted_in_a_row)
    return kept


class RunFigures(NamedTuple):
    """What a run would have had: FMR in percent (None where no row would have been valid), and its valid rows."""

    fmr: float | None
    valid: int


def figures_of_run(columns: Mapping[str, np.ndarray], budget: int, min_probability: float) -> RunFigures | None:
    """Of a run with a smaller budget and a stricter oracle; `columns` as for `step_figures`. None where the split does
    not keep all steps."""
    iterations, label = columns["iterations"].astype(np.int64), columns["label"]
    predictions, probabilities = (_as_matrix(columns[name], iterations) for name in _NEEDED)
    if predictions is None or probabilities is None:
        return None
    kept = np.minimum(_kept(min_probability, probabilities, iterations, columns["valid"]), budget)
    hit = predictions[np.arange(len(kept)), kept] == label
    fmr = _ratio(hit[kept > 0], columns["original_prediction"] == label)
    return RunFigures(fmr, int((kept > 0).sum()))


def _fmr(hit: np.ndarray, valid: np.ndarray, original: np.ndarray, *, is_own: bool) -> Estimate | None:
    """FMR, of the split as it is with the interval that it has elsewhere."""
    resamples = RESAMPLES if is_own else FEWER_RESAMPLES
    return foundation_model_robustness(hit, valid, original, resamples=resamples)[0]


def _spread(budget: int) -> list[int]:
    """The budgets to tell of, the split's own among them."""
    if budget <= _MOST_BUDGETS:
        return list(range(1, budget + 1))
    return sorted({round(b) for b in np.geomspace(1, budget, _MOST_BUDGETS)})


def _counted(steps: np.ndarray) -> dict[int, int]:
    return dict(sorted(Counter(steps[steps >= 0].tolist()).items()))


def _ratio(hit: np.ndarray, original: np.ndarray) -> float | None:
    return 100 * float(hit.mean() / original.mean()) if len(hit) and original.any() else None
