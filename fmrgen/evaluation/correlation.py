"""Whether two measures rank classifiers alike: FMR and accuracy on fixed benchmarks, for one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import ndtri
from scipy.stats import kendalltau, spearmanr

from fmrgen.errors import UserError
from fmrgen.evaluation.results import EvaluationResults
from fmrgen.intervals import CONFIDENCE, Estimate

_RESAMPLES = 2_000
_FEWEST = 3  # classifiers: two have but one order and the other
_OWN = "own FMR"

Column = dict[str, Estimate]  # by classifier


@dataclass(frozen=True)
class Correlation:
    """How far two measures rank the same classifiers alike, from -1 to 1 (1: the same order).

    Attributes:
        first, second: the measures.
        classifiers: that have both.
        spearman, kendall: with intervals over classifiers and images.
    """

    first: str
    second: str
    classifiers: list[str]
    spearman: Estimate
    kendall: Estimate


def measures(evaluations: Sequence[EvaluationResults]) -> dict[str, Column]:
    """Every measure in evaluations, by its name, of every classifier that has it.

    `own FMR` is each classifier's on the split made for it; `SA` its standard accuracy there; `FMR on SPLIT` that of
    the classifiers on one split; then the accuracy on each fixed set, and its mCE.

    Raises:
        UserError: two evaluations tell different things of one classifier.
    """
    found: dict[str, Column] = {}
    weights: dict[str, str | None] = {}

    def add(name: str, classifier: str, figure: Estimate | None) -> None:
        known = found.setdefault(name, {})
        if figure is None or known.get(classifier, figure) == figure:
            known.update({} if figure is None else {classifier: figure})
            return
        raise UserError(f"{classifier}: has two figures for {name}; give evaluations that tell it once")

    for evaluation in evaluations:
        for one in evaluation.classifiers:
            if weights.setdefault(one.name, one.weights_sha256) != one.weights_sha256:
                raise UserError(f"{one.name}: is another network in another evaluation; give each its own name, NAME=…")
        for result in evaluation.results:
            if result.conditioned:
                add(_OWN, result.classifier, result.total.fmr)
                add("SA", result.classifier, result.total.standard_accuracy)
            else:
                add(f"FMR on {result.split}", result.classifier, result.total.fmr)
        for fixed in evaluation.fixed:
            add(fixed.name, fixed.classifier, fixed.accuracy)
            add(f"{fixed.name} mCE", fixed.classifier, fixed.mean_corruption_error)
    return {name: column for name, column in found.items() if column}


def correlations(
    columns: Mapping[str, Column], chosen: Sequence[str] = (), *, resamples: int = _RESAMPLES, seed: int = 0
) -> list[Correlation]:
    """The rank correlations of each two measures over the classifiers that have both.

    The intervals are percentiles of a bootstrap of classifiers, whose figures are drawn anew within their own
    intervals each time: both other classifiers and other images could have been taken.

    Args:
        columns: the measures.
        chosen: names of those that are wanted; by default all pairs that enough classifiers have.
        resamples: of the bootstrap.
        seed: of its draws.

    Returns:
        A correlation for each pair.

    Raises:
        UserError: a measure is not there, or too few classifiers have two of them.
    """
    for name in chosen:
        if name not in columns:
            raise UserError(f"no evaluation has {name}; there is {', '.join(columns)}")
    random = np.random.default_rng(seed)
    found = []
    for one, other in combinations(chosen or columns, 2):
        names = [name for name in columns[one] if name in columns[other]]
        if len(names) >= _FEWEST:
            found.append(_correlation(one, other, names, columns, resamples, random))
        elif chosen:
            raise UserError(f"{one} and {other}: {len(names)} classifiers have both, and {_FEWEST} are needed")
    if not found:
        raise UserError(f"no two measures are known of {_FEWEST} classifiers; there is {', '.join(columns) or 'none'}")
    return found


def _correlation(
    one: str, other: str, names: list[str], columns: Mapping[str, Column], resamples: int, random: np.random.Generator
) -> Correlation:
    figures = [[columns[name][classifier] for classifier in names] for name in (one, other)]
    x, y = (np.array([figure.value for figure in column]) for column in figures)
    spread = [np.array([_deviation(figure) for figure in column]) for column in figures]
    drawn: list[tuple[float, float]] = []
    for _ in range(resamples):
        taken = random.integers(len(names), size=len(names))
        # A classifier that is drawn twice is one classifier: the same figures, and a tie.
        u, v = (
            (values + random.normal(size=len(names)) * deviations)[taken]
            for values, deviations in zip((x, y), spread, strict=True)
        )
        if len(set(taken.tolist())) >= _FEWEST:
            drawn.append(_ranked(u, v))
    ends = (100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2)
    rho, tau = _ranked(x, y)
    (rho_low, tau_low), (rho_high, tau_high) = np.percentile(np.array(drawn), ends, axis=0).tolist()
    return Correlation(one, other, names, Estimate(rho, rho_low, rho_high), Estimate(tau, tau_low, tau_high))


def _ranked(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Spearman's and Kendall's correlation; 0 where all of one are the same."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0, 0.0
    return float(spearmanr(x, y).statistic), float(kendalltau(x, y).statistic)


def _deviation(figure: Estimate) -> float:
    """The standard error that an interval stands for."""
    if figure.low is None or figure.high is None:
        return 0.0
    return (figure.high - figure.low) / (2 * float(ndtri((1 + CONFIDENCE) / 2)))
