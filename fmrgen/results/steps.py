"""Figures of a split's own classifier from the recorded steps: smaller budgets, stricter oracles.

A run with a smaller budget, or with a higher `min_probability`, would have stored an image that this run went through:
so its figures are read off the record of the steps, and no other run is needed. Of several attacks, all that were made
are counted; with a smaller budget more of them would have been needed, so these figures are upper bounds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmrgen.metrics.intervals import Estimate, foundation_model_robustness, mean, mean_of_ratio, proportion

# Provenance and rows may come from a stranger; these bound the memory that they can make us use.
_MOST_STEPS = 1_000_000
_MOST_ENTRIES = 1 << 28  # rows × steps
_NEEDED = {"step_predictions", "step_oracle_probabilities", "label", "valid", "iterations", "original_prediction"}
_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99)


@dataclass(frozen=True)
class AtBudget:
    """The figures under a budget of `budget` guided steps."""

    budget: int
    perturbed_accuracy: Estimate | None
    fmr: Estimate | None


@dataclass(frozen=True)
class AtThreshold:
    """The figures under an oracle that accepts an image if the class has at least `min_probability`."""

    min_probability: float
    validation_rate: Estimate | None
    perturbed_accuracy: Estimate | None
    fmr: Estimate | None
    mean_iterations: Estimate | None


@dataclass(frozen=True)
class StepFigures:
    """The split's own classifier, step by step."""

    budgets: list[AtBudget]
    area_under_fmr: Estimate | None  # the mean of FMR over the budgets 1 to the split's own
    thresholds: list[AtThreshold]  # by the oracle's least probability


def step_figures(columns: Mapping[str, np.ndarray], budget: int, own_threshold: float = 0.0) -> StepFigures | None:
    """Return the figures of the steps; None if there are none, or not one for each iteration and the reconstruction.

    The columns are [N] each, lists of steps as arrays of lists. `own_threshold` is the `min_probability` that the split
    was generated with; only stricter ones can be computed.
    """
    paths = _paths_of(columns, budget) if columns.keys() >= _NEEDED else None
    if paths is None:
        return None
    label, valid = columns["label"], columns["valid"]
    original = columns["original_prediction"] == label

    figures_of: Iterable[int] = range(1, budget + 1)
    if budget > 60:  # evenly chosen ones have figures, the split's own is the last
        figures_of = sorted({round(chosen) for chosen in np.geomspace(1, budget, 60)})
    budgets = []
    for smaller in figures_of:
        hit = paths.right_after(np.minimum(smaller, paths.lengths))
        fmr = foundation_model_robustness(hit, valid, original)
        budgets.append(AtBudget(smaller, proportion(hit[valid]), fmr))
    share_of_budgets = np.zeros(len(label))
    longest = int(paths.lengths.max(initial=0))
    for step in range(1, longest + 1):
        share_of_budgets += paths.right_after(np.minimum(step, paths.lengths))
    whole = paths.right_after(paths.lengths)
    share_of_budgets = (share_of_budgets + whole * (budget - longest)) / budget  # budgets that no row needs

    thresholds = [threshold for threshold in sorted({own_threshold, *_THRESHOLDS}) if threshold >= own_threshold]
    return StepFigures(
        budgets,
        mean_of_ratio(share_of_budgets, valid, original),
        [_at_threshold(threshold, paths, original) for threshold in thresholds],
    )


def _as_matrix(lists: Sequence[Any], iterations: np.ndarray) -> np.ndarray | None:
    """Return lists of steps as [N, steps + 1], each list's last entry repeated.

    None if a row does not have an entry for each of its iterations and the reconstruction.
    """
    lengths = np.array([len(steps) for steps in lists])
    if not np.array_equal(lengths, iterations + 1):
        return None
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    reached = np.minimum(np.arange(iterations.max() + 1), iterations[:, None])
    return np.concatenate(list(lists))[starts[:, None] + reached]


@dataclass(frozen=True)
class _Paths:
    """The recorded steps of all rows: one path for each row, or one for each attack on it.

    Behind its end a path repeats its last entry.
    """

    row: np.ndarray  # [P], the row of each path, in order; of several attacks a row has several
    lengths: np.ndarray  # [P], accepted steps
    right: np.ndarray  # bool [P, steps + 1], whether a row is right so far if this path ends at each step
    probabilities: np.ndarray  # [P, steps + 1], the oracle's
    valid: np.ndarray  # bool [N]

    def right_after(self, step: np.ndarray) -> np.ndarray:
        """Return whether each row [N] is classified rightly if its paths end after `step` [P] steps."""
        return self.in_all_paths(self.right[np.arange(len(step)), step])

    def last_step_above(self, least: float) -> np.ndarray:
        """Return after how many steps [P] each path would have ended under the threshold `least`.

        A path stops before the first image whose probability is below the threshold; the reconstruction is not judged.
        """
        accepted = self.probabilities[:, 1:] >= np.float32(least)
        accepted_in_a_row = np.logical_and.accumulate(accepted, axis=1).sum(1)
        return np.minimum(self.lengths, accepted_in_a_row)

    def in_all_paths(self, holds: np.ndarray) -> np.ndarray:
        """Return whether something [P] holds in all paths of each row [N]."""
        return np.logical_and.reduceat(holds, np.searchsorted(self.row, np.arange(len(self.valid))))


def _paths_of(columns: Mapping[str, np.ndarray], budget: int) -> _Paths | None:
    """Return the recorded steps of a split's rows.

    None if a row does not have an entry for each of its steps and the reconstruction, or there are more than `budget`.
    """
    label, lengths = columns["label"], columns["iterations"].astype(np.int64)
    row, are_attacks = np.arange(len(label)), "attacks" in columns
    predictions, probabilities = list(columns["step_predictions"]), list(columns["step_oracle_probabilities"])
    if are_attacks:
        row = np.repeat(row, [len(attacks) for attacks in columns["attacks"]])
        predictions, probabilities = [], []
        for attacks in columns["attacks"]:
            for record in attacks:
                predictions.append(record["predictions"])
                probabilities.append(record["oracle_probabilities"])
        lengths = np.array([len(steps) - 1 for steps in predictions], dtype=np.int64)
    longest = int(lengths.max(initial=0))
    if not 1 <= max(longest, 1) <= budget <= _MOST_STEPS or longest * len(lengths) > _MOST_ENTRIES:
        return None
    if len(np.unique(row)) != len(label) or lengths.min(initial=0) < 0:
        return None
    prediction_matrix, probability_matrix = _as_matrix(predictions, lengths), _as_matrix(probabilities, lengths)
    if prediction_matrix is None or probability_matrix is None:
        return None
    right = prediction_matrix == label[row][:, None]
    if are_attacks:  # a row is wrong if any accepted image is, the reconstruction aside; otherwise the last one counts
        right[:, 0] = True
        right = np.logical_and.accumulate(right, axis=1)
    return _Paths(row, lengths, right, probability_matrix, columns["valid"])


def _at_threshold(least: float, paths: _Paths, original: np.ndarray) -> AtThreshold:
    """Return the figures under a threshold; a row is valid if one of its paths has an accepted step under it."""
    step = paths.last_step_above(least)
    hit, still_valid = paths.right_after(step), paths.valid & ~paths.in_all_paths(step == 0)
    return AtThreshold(
        min_probability=float(least),
        validation_rate=proportion(still_valid),
        perturbed_accuracy=proportion(hit[still_valid]),
        fmr=foundation_model_robustness(hit, still_valid, original),
        mean_iterations=mean(step[paths.valid[paths.row] & (step > 0)], least=1),
    )
