"""Classifiers compared on the rows of one split: paired differences, and rankings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from fmrgen.metrics.intervals import RESAMPLES, Estimate, Resampled, apart_by, has_no_width, in_percent_of, most_unseen
from fmrgen.metrics.summary import Summary
from fmrgen.results.kappa import cohen_kappa

_ALL_PAIRS = 24  # classifiers


@dataclass(frozen=True)
class Difference:
    """`first` less `second` on the same examples, in points, with paired intervals.

    `error_consistency` is Cohen's kappa of their being right on the same valid images (Geirhos et al. 2020): 1 where
    they fail on the same ones, 0 where as often as by chance; None where they are not asked about the same images.
    """

    first: str
    second: str
    standard_accuracy: Estimate | None
    perturbed_accuracy: Estimate | None
    fmr: Estimate | None
    error_consistency: Estimate | None = None


@dataclass(frozen=True)
class RankedClassifier:
    """A classifier's place in a ranking.

    `tied_with_next` says that the interval of the difference to the next one contains zero; None for the last, and
    where either has no figure.
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
    """How two classifiers differ on the same rows of one split, or on their own splits' rows of the same examples.

    Args:
        first: the name of one.
        second: and of the other.
        first_columns: as for `summarise`.
        second_columns: too, their rows in the same order.
        resamples: of the bootstrap.
        seed: of its draws.

    Returns:
        `first` less `second`, in points, with paired intervals.
    """
    label = first_columns["label"]
    pair = {"first": first_columns, "second": second_columns}
    answers: dict[str, np.ndarray] = {}
    for who, columns in pair.items():
        answers[f"{who} valid"] = columns["valid"].astype(bool) if "valid" in columns else np.ones(len(label), bool)
        answers[f"{who} perturbed"] = columns["prediction"] == label
        if "original_prediction" in columns:
            answers[f"{who} original"] = columns["original_prediction"] == label
    if not len(label):
        return Difference(first, second, None, None, None)
    drawn = Resampled(answers, resamples, seed)
    perturbed = {who: drawn.rate(f"{who} perturbed", among=f"{who} valid") for who in pair}
    unseen = most_unseen(min(int(answers[f"{who} valid"].sum()) for who in pair))
    fmr = standard = None
    if all(f"{who} original" in answers for who in pair):
        originals = {who: drawn.rate(f"{who} original") for who in pair}
        standard = _apart(drawn, originals, most_unseen(len(label)), limit=100)
        ratios = {who: in_percent_of(perturbed[who], originals[who]) for who in pair}
        lowest = min(float(of_originals[0]) for of_originals in originals.values())
        fmr = _apart(drawn, ratios, 100 * unseen / lowest if lowest else np.inf)
    accuracy = _apart(drawn, perturbed, unseen, limit=100)
    return Difference(first, second, standard, accuracy, fmr)


def error_consistency(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> Estimate | None:
    """How far two classifiers fail on the same valid images of a split, of columns as for `summarise`."""
    valid = first["valid"].astype(bool) if "valid" in first else np.ones(len(first["label"]), bool)
    right = ((of["prediction"] == of["label"])[valid].astype(int) for of in (first, second))
    return cohen_kappa(*right)


def _apart(
    drawn: Resampled, statistics: Mapping[str, np.ndarray], unseen: float, limit: float = np.inf
) -> Estimate | None:
    """`first` less `second`; where all resamples agree, as far from that as by what may be `unseen`."""
    found = drawn.estimate(statistics["first"] - statistics["second"])
    return found if found is None or not has_no_width(found) else apart_by(found.value, unseen, -limit, limit)


def pairs_of(names: Sequence[str], summaries: Mapping[str, Summary], measure: str) -> list[tuple[str, str]]:
    """The classifiers that are compared with each other: all `names`, or where there are many the neighbours in the
    ranking alone, for the pairs of a thousand are half a million."""
    return list(combinations(names, 2) if len(names) <= _ALL_PAIRS else pairwise(falling(summaries, measure)))


def falling(summaries: Mapping[str, Summary], measure: str) -> list[str]:
    """The classifiers by a falling metric, those without one last."""
    figures: dict[str, Estimate | None] = {name: getattr(summary, measure) for name, summary in summaries.items()}
    return sorted(figures, key=lambda name: -np.inf if (e := figures[name]) is None else e.value, reverse=True)


def rank(summaries: Mapping[str, Summary], differences: Sequence[Difference], measure: str) -> list[RankedClassifier]:
    """Classifiers by a falling metric, those without one last.

    Args:
        summaries: by the classifiers' names.
        differences: of pairs of them.
        measure: a field of Summary and of Difference.

    Returns:
        The ranking.
    """
    figures = {name: getattr(summary, measure) for name, summary in summaries.items()}
    apart = {frozenset((pair.first, pair.second)): getattr(pair, measure) for pair in differences}
    order = falling(summaries, measure)
    ranking = []
    for number, name in enumerate(order, 1):
        gap = apart.get(frozenset(order[number - 1 : number + 1]))
        tied = None if gap is None else gap.low <= 0 <= gap.high
        ranking.append(RankedClassifier(number, name, figures[name], tied))
    return ranking
