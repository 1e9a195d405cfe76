"""Classifiers compared each on the split generated against it (paper Tables 1, 2, 3 and 5), row by row of one source.

Within one split, only its own classifier sees images that were generated to fool it; on their own splits, all do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations

import numpy as np
from scipy.special import ndtri

from fmrgen.metrics.intervals import CONFIDENCE, ratio_and_influence, sign_test
from fmrgen.metrics.rows import valid_rows
from fmrgen.results.rankings import Difference, difference, rank_intervals
from fmrgen.results.trainings import TrainingsComparison, compare_trainings


@dataclass(frozen=True)
class OwnRank:
    """A classifier on its own split.

    With 95 % confidence for all classifiers at once, its rank by FMR is from `best` to `worst`; None if it has no FMR.
    """

    split: str
    classifier: str
    best: int | None
    worst: int | None

    @property
    def ranks(self) -> str:
        """`2`, `2 – 4`, or n/a."""
        return ranks_in_words(self.best, self.worst)


@dataclass(frozen=True)
class OwnComparison:
    """Classifiers compared on their own splits; of several splits of one classifier the first counts.

    Attributes:
        rows: number of rows that all these splits have.
        ranking: by falling FMR.
        differences: of each pair, over the common rows.
        trainings: comparison of what the classifiers are trainings of; None if no two are trainings of the same.
    """

    rows: int
    ranking: list[OwnRank]
    differences: list[Difference]
    trainings: TrainingsComparison | None = None


def ranks_in_words(best: int | None, worst: int | None) -> str:
    """Return `2`, `2 – 4`, or n/a if the ranks are unknown."""
    if best is None:
        return "n/a"
    return f"{best}" if best == worst else f"{best} – {worst}"


def compare_own(
    own_splits: Sequence[tuple[str, str, Mapping[str, np.ndarray]]], groups: Mapping[str, Sequence[str]]
) -> OwnComparison | None:
    """Return a comparison of classifiers on their own splits; None for fewer than two, or if they share no ids.

    `own_splits` are (split, classifier, its columns as for `summarise`, and `id`); the ids are those of one source.
    `groups` are classifiers that were trained alike, by what they are trainings of.
    """
    split_of = {}
    tables = {}
    for split, classifier, columns in reversed(own_splits):  # so the first of several splits overwrites the others
        split_of[classifier], tables[classifier] = split, columns
    common = common_ids(list(tables.values())) if len(tables) > 1 else np.empty(0)
    if not len(common):
        return None
    aligned = {classifier: rows_of(tables[classifier], common) for classifier in reversed(tables)}
    fmr = {}
    for classifier, columns in aligned.items():
        if "original_prediction" in columns:
            names = ("prediction", "original_prediction")
            right, original = (columns[name] == columns["label"] for name in names)
            estimate = ratio_and_influence(right, valid_rows(columns), original)
            if estimate is not None:
                fmr[classifier] = estimate
    order = sorted(aligned, key=lambda classifier: fmr.get(classifier, (-np.inf,))[0], reverse=True)
    intervals = _rank_intervals(fmr)
    ranking = [OwnRank(split_of[name], name, *intervals.get(name, (None, None))) for name in order]
    pairs = combinations(order, 2)
    differences = [difference(first, second, aligned[first], aligned[second]) for first, second in pairs]
    return OwnComparison(len(common), ranking, differences, compare_trainings(fmr, groups))


def fooled_more_by(own: Mapping[str, np.ndarray], others: Mapping[str, Mapping[str, np.ndarray]]) -> str | None:
    """Return the split, generated against another, that fools this one most beyond its own; None if none does.

    Its own gradient is then no guide. A sign test over the rows valid in both; the tests share the chance of a false
    positive. `own` are the columns of the classifier on its own split, as for `summarise`, and `id`; `others` are its
    columns on the other splits of the same source.
    """
    chances = []
    for name, columns in others.items():
        ids = common_ids([own, columns])
        if not len(ids):
            continue
        own_rows, other_rows = rows_of(own, ids), rows_of(columns, ids)
        both = valid_rows(own_rows) & valid_rows(other_rows)
        by_own, by_other = (rows["prediction"] != rows["label"] for rows in (own_rows, other_rows))
        only_by_other = int((both & by_other & ~by_own).sum())
        only_by_own = int((both & by_own & ~by_other).sum())
        if only_by_other > only_by_own:
            chances.append((sign_test(only_by_other, only_by_own), name))
    if not chances:
        return None
    chance, split = min(chances)
    return split if chance < (1 - CONFIDENCE) / len(others) else None


def common_ids(tables: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Return the ids that all tables have, from low to high; none if one of them has no column `id`."""
    if any("id" not in columns for columns in tables):
        return np.empty(0, dtype=int)
    return reduce(np.intersect1d, [columns["id"] for columns in tables])


def rows_of(columns: Mapping[str, np.ndarray], ids: np.ndarray) -> dict[str, np.ndarray]:
    """Return the rows of `ids`, in the order of `ids`."""
    order = np.argsort(columns["id"])
    rows = order[np.searchsorted(columns["id"], ids, sorter=order)]
    return {name: values[rows] for name, values in columns.items()}


def _rank_intervals(estimates: Mapping[str, tuple[float, np.ndarray]]) -> dict[str, tuple[int, int]]:
    """Return the best and worst rank of each classifier, right for all at once with 95 % confidence (Bonferroni).

    `estimates` are FMR of each, and the influence of each row on it [N].
    """
    pairs = max(1, math.comb(len(estimates), 2))
    most_by_chance = float(ndtri(1 - (1 - CONFIDENCE) / 2 / pairs))  # standard errors
    is_above = np.zeros((len(estimates), len(estimates)), bool)
    for row, (figure, influence) in enumerate(estimates.values()):
        for column, (other, others_influence) in enumerate(estimates.values()):
            error = float(np.linalg.norm(influence - others_influence)) / len(influence)
            is_above[row, column] = figure - other > most_by_chance * error
    return rank_intervals(list(estimates), is_above)
