"""Classifiers compared on the rows of one split: paired differences, and rankings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from fmrgen.metrics.intervals import Estimate, difference_of_ratios, most_unseen, ratio_and_influence
from fmrgen.metrics.rows import valid_rows
from fmrgen.metrics.summary import Summary


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
    first: str, second: str, first_columns: Mapping[str, np.ndarray], second_columns: Mapping[str, np.ndarray]
) -> Difference:
    """Return how two classifiers differ on the same rows of one split, or on own splits' rows of the same examples.

    The columns of both are as for `summarise`, with rows in the same order.
    """
    label = first_columns["label"]
    all_rows = np.ones(len(label), dtype=bool)
    tables = (first_columns, second_columns)
    valid = [valid_rows(columns) for columns in tables]
    right = [columns["prediction"] == label for columns in tables]
    unseen = [most_unseen(int(rows.sum())) for rows in valid]
    accuracies = [ratio_and_influence(hit, rows, all_rows) for hit, rows in zip(right, valid, strict=True)]
    accuracy = difference_of_ratios(accuracies, unseen, most=100)
    if any("original_prediction" not in columns for columns in tables):
        return Difference(first, second, None, accuracy, None)
    originals = [columns["original_prediction"] == label for columns in tables]
    standards = [ratio_and_influence(hit, all_rows, all_rows) for hit in originals]
    standard = difference_of_ratios(standards, [most_unseen(len(label))] * 2, most=100)
    ratios = [ratio_and_influence(*columns) for columns in zip(right, valid, originals, strict=True)]
    lowest = min((float(hit.mean()) for hit in originals if hit.any()), default=1.0)
    fmr = difference_of_ratios(ratios, [points / lowest for points in unseen])
    return Difference(first, second, standard, accuracy, fmr)


def pairs_of(names: Sequence[str], summaries: Mapping[str, Summary], measure: str) -> list[tuple[str, str]]:
    """Return the pairs of classifiers that are compared: all of up to 24, else the neighbours in the ranking.

    A thousand `names` have half a million pairs. The summaries are those of the classifiers that are ranked, by the
    field `measure`.
    """
    if len(names) <= 24:
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

    `differences` are of pairs of them; `measure` is a field of Summary and of Difference.
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

    `is_above` [C, C] says whether the first is above the second beyond chance.
    """
    best, worst = 1 + is_above.sum(0), len(names) - is_above.sum(1)
    return dict(zip(names, zip(best.tolist(), worst.tolist(), strict=True), strict=True))
