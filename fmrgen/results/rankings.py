"""Classifiers compared on the rows of one split: paired differences, and rankings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from fmrgen.metrics.intervals import (
    RESAMPLES,
    Estimate,
    Resampled,
    in_percent_of,
    most_unseen,
    with_width,
)
from fmrgen.metrics.rows import valid_rows
from fmrgen.metrics.summary import Summary

_ALL_PAIRS = 24  # classifiers


@dataclass(frozen=True)
class Difference:
    """The figures of `first` less those of `second` on the same examples, in points, with paired intervals."""

    first: str
    second: str
    standard_accuracy: Estimate | None
    perturbed_accuracy: Estimate | None
    fmr: Estimate | None


@dataclass(frozen=True)
class RankedClassifier:
    """A classifier's place in a ranking.

    `tied_with_next` says that the interval of the difference to the next one contains zero; None for the last, and
    if either has no figure.
    """

    rank: int
    classifier: str
    value: Estimate | None
    tied_with_next: bool | None


def difference(
    first: str,
    second: str,
    first_columns: Mapping[str, np.ndarray],
    second_columns: Mapping[str, np.ndarray],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Return how two classifiers differ on the same rows of one split, or on own splits' rows of the same examples.

    Args:
        first: name of the first classifier.
        second: name of the second classifier.
        first_columns: its columns, as for `summarise`.
        second_columns: those of the second, with rows in the same order.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        `first` less `second`, in points, with paired intervals.
    """
    label = first_columns["label"]
    answers: dict[str, np.ndarray] = {}
    for who, columns in (("first", first_columns), ("second", second_columns)):
        answers[f"{who} valid"] = valid_rows(columns)
        answers[f"{who} perturbed"] = columns["prediction"] == label
        if "original_prediction" in columns:
            answers[f"{who} original"] = columns["original_prediction"] == label
    if not len(label):
        return Difference(first, second, None, None, None)
    drawn = Resampled(answers, resamples, seed)
    first_rate = drawn.rate("first perturbed", among="first valid")
    second_rate = drawn.rate("second perturbed", among="second valid")
    fewest_valid = min(int(answers[f"{who} valid"].sum()) for who in ("first", "second"))
    unseen = most_unseen(fewest_valid)
    accuracy = _difference(drawn, first_rate, second_rate, unseen, limit=100)
    fmr = standard = None
    if "first original" in answers and "second original" in answers:
        first_standard, second_standard = drawn.rate("first original"), drawn.rate("second original")
        standard = _difference(drawn, first_standard, second_standard, most_unseen(len(label)), limit=100)
        lowest = min(float(first_standard[0]), float(second_standard[0]))
        unseen_fmr = 100 * unseen / lowest if lowest else np.inf
        first_fmr = in_percent_of(first_rate, first_standard)
        fmr = _difference(drawn, first_fmr, in_percent_of(second_rate, second_standard), unseen_fmr)
    return Difference(first, second, standard, accuracy, fmr)


def _difference(
    drawn: Resampled, first: np.ndarray, second: np.ndarray, unseen: float, limit: float = np.inf
) -> Estimate | None:
    """Return `first` less `second`; if all resamples are equal, the interval is what may be `unseen` to either side."""
    estimate = drawn.estimate(first - second)
    return None if estimate is None else with_width(estimate, unseen, -limit, limit)


def pairs_of(names: Sequence[str], summaries: Mapping[str, Summary], measure: str) -> list[tuple[str, str]]:
    """Return the pairs of classifiers that are compared: all, or if there are many the neighbours in the ranking.

    Args:
        names: the classifiers that are compared if they are few; a thousand have half a million pairs.
        summaries: by the name of each classifier that is ranked.
        measure: the field of Summary that ranks them.
    """
    if len(names) <= _ALL_PAIRS:
        return list(combinations(names, 2))
    return list(pairwise(falling(summaries, measure)))


def falling(summaries: Mapping[str, Summary], measure: str) -> list[str]:
    """Return the classifiers by a falling metric, those without a figure last."""

    def figure(name: str) -> float:
        estimate: Estimate | None = getattr(summaries[name], measure)
        return -np.inf if estimate is None else estimate.value

    return sorted(summaries, key=figure, reverse=True)


def rank(summaries: Mapping[str, Summary], differences: Sequence[Difference], measure: str) -> list[RankedClassifier]:
    """Return the ranking of classifiers by a falling metric, those without a figure last.

    Args:
        summaries: by the classifiers' names.
        differences: of pairs of them.
        measure: a field of Summary and of Difference.
    """
    gaps = {frozenset((pair.first, pair.second)): getattr(pair, measure) for pair in differences}
    order = falling(summaries, measure)
    ranking = []
    for number, name in enumerate(order, 1):
        gap = gaps.get(frozenset(order[number - 1 : number + 1]))
        tied = None if gap is None else gap.low <= 0 <= gap.high
        ranking.append(RankedClassifier(number, name, getattr(summaries[name], measure), tied))
    return ranking


def rank_intervals(names: Sequence[str], is_above: np.ndarray) -> dict[str, tuple[int, int]]:
    """Return the best and the worst rank of each, right for all at once where all pairs are (Mogstad et al. 2024).

    Args:
        names: of what is ranked, [C].
        is_above: whether the first is above the second beyond chance, bool [C, C].
    """
    best, worst = 1 + is_above.sum(0), len(names) - is_above.sum(1)
    return dict(zip(names, zip(best.tolist(), worst.tolist(), strict=True), strict=True))
