"""Classifiers compared each on the split made for it (paper Tables 1, 2, 3 and 5), row by row of the same source.

Within a split, its own classifier meets images that were made to fool it and the others do not; on own splits all do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from fmrgen.metrics.intervals import RESAMPLES, ratio_and_influence
from fmrgen.results.rankings import Difference, difference
from fmrgen.results.simultaneous import above
from fmrgen.results.trainings import TrainingsComparison, compare_trainings


@dataclass(frozen=True)
class OwnRank:
    """A classifier on its own split. With 95 % confidence for all of them at once, its rank by FMR is from `best` to
    `worst`; None where it has no FMR."""

    split: str
    classifier: str
    best: int | None
    worst: int | None


@dataclass(frozen=True)
class Spread:
    """A classifier on several splits made for it, of as many seeds: its FMR on each, in the order they were given."""

    classifier: str
    splits: list[str]
    fmr: list[float]
    mean: float
    deviation: float


@dataclass(frozen=True)
class OwnComparison:
    """Classifiers on their own splits, by falling FMR, and the difference of each pair over `rows` common rows.

    Where a classifier has several, that is on the first; `spreads` says how far they differ. `trainings` compares what
    the classifiers are trainings of; None where no two are of one.
    """

    rows: int
    ranking: list[OwnRank]
    differences: list[Difference]
    spreads: list[Spread] = field(default_factory=list)
    trainings: TrainingsComparison | None = None


def compare_own(
    own: Sequence[tuple[str, str, Mapping[str, np.ndarray]]],
    groups: Mapping[str, Sequence[str]] | None = None,
    *,
    resamples: int = RESAMPLES,
) -> OwnComparison | None:
    """Compares classifiers on their own splits.

    Args:
        own: (split, classifier, its columns as for `summarise`, and `id`); the ids are those of one source.
        groups: classifiers that were trained alike, by what they are trainings of.
        resamples: of the bootstrap of a pair's difference.

    Returns:
        None where there are no two classifiers, or their rows have no ids in common.
    """
    spreads = _spreads(own)
    firsts = {classifier: (split, classifier, columns) for split, classifier, columns in reversed(own)}
    own = list(reversed(firsts.values()))
    if len(own) < 2 or any("id" not in columns for _, _, columns in own):
        return None
    common = own[0][2]["id"]
    for _, _, columns in own[1:]:
        common = np.intersect1d(common, columns["id"])
    if not len(common):
        return None
    aligned = [rows_of(columns, common) for _, _, columns in own]
    fmr = [fmr_and_influence(columns) for columns in aligned]
    intervals = _rank_intervals(fmr)
    ranks = [
        OwnRank(split, classifier, *(interval or (None, None)))
        for (split, classifier, _), interval in zip(own, intervals, strict=True)
    ]
    values = [-np.inf if found is None else found[0] for found in fmr]
    order = sorted(range(len(own)), key=lambda place: values[place], reverse=True)
    pairs = [
        difference(own[a][1], own[b][1], aligned[a], aligned[b], resamples=resamples) for a, b in combinations(order, 2)
    ]
    known = {own[place][1]: of for place, of in enumerate(fmr) if of is not None}
    trainings = compare_trainings(known, groups or {})
    return OwnComparison(len(common), [ranks[place] for place in order], pairs, spreads, trainings)


def _spreads(own: Sequence[tuple[str, str, Mapping[str, np.ndarray]]]) -> list[Spread]:
    found: dict[str, dict[str, float]] = {}
    for split, classifier, columns in own:
        if (fmr := fmr_and_influence(columns)) is not None:
            found.setdefault(classifier, {})[split] = fmr[0]
    return [
        Spread(classifier, list(of), list(of.values()), float(np.mean(values)), float(np.std(values, ddof=1)))
        for classifier, of in found.items()
        if len(values := list(of.values())) > 1
    ]


def rows_of(columns: Mapping[str, np.ndarray], ids: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of `ids`, in their order."""
    order = np.argsort(columns["id"])
    rows = order[np.searchsorted(columns["id"], ids, sorter=order)]
    return {name: values[rows] for name, values in columns.items()}


def fmr_and_influence(columns: Mapping[str, np.ndarray]) -> tuple[float, np.ndarray] | None:
    """FMR, and the influence of each row on it [N]."""
    if "original_prediction" not in columns or "valid" not in columns:
        return None
    valid, label = columns["valid"].astype(bool), columns["label"]
    return ratio_and_influence(columns["prediction"] == label, valid, columns["original_prediction"] == label)


def _rank_intervals(estimates: Sequence[tuple[float, np.ndarray] | None]) -> list[tuple[int, int] | None]:
    """Best and worst rank of each, right for all at once with 95 % confidence (Mogstad et al. 2024)."""
    known = [place for place, estimate in enumerate(estimates) if estimate is not None]
    intervals: list[tuple[int, int] | None] = [None] * len(estimates)
    if not known:
        return intervals
    values = np.array([estimates[place][0] for place in known])  # type: ignore[index]
    influence = np.stack([estimates[place][1] for place in known])  # type: ignore[index]
    (is_above,) = above([values], [influence])
    for number, place in enumerate(known):
        intervals[place] = (1 + int(is_above[:, number].sum()), len(known) - int(is_above[number].sum()))
    return intervals
