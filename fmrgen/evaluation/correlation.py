"""Whether two measures rank classifiers alike: FMR and accuracy on fixed benchmarks, for one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from scipy.special import ndtri
from scipy.stats import kendalltau, spearmanr

from fmrgen.errors import UserError
from fmrgen.evaluation.results import EvaluationResults
from fmrgen.intervals import CONFIDENCE, Estimate

_DRAWS = 1_000
_MANY = 12  # classifiers, of which fewer samples do
_NORMAL = np.tanh(np.linspace(-3.3, 3.3, 133))  # correlations of the normal pairs behind a Gaussian copula
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
    columns: Mapping[str, Column], chosen: Sequence[str] = (), *, draws: int = _DRAWS, seed: int = 0
) -> list[Correlation]:
    """The rank correlations of each two measures over the classifiers that have both.

    An interval holds each correlation of a population of classifiers under which coefficients as high, and as low, as
    what was found are not rarer than 2.5 % each, so many classifiers taken (figures as of a Gaussian copula). What was
    found is itself drawn anew within the intervals of the figures: other images could have been taken too. The fewer
    classifiers, the wider it is: three or four tell next to nothing.

    Args:
        columns: the measures.
        chosen: names of those that are wanted; by default all pairs that enough classifiers have.
        draws: of the figures.
        seed: of these.

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
            found.append(_correlation(one, other, names, columns, draws, random))
        elif chosen:
            raise UserError(f"{one} and {other}: {len(names)} classifiers have both, and {_FEWEST} are needed")
    if not found:
        raise UserError(f"no two measures are known of {_FEWEST} classifiers; there is {', '.join(columns) or 'none'}")
    return found


def _correlation(
    one: str, other: str, names: list[str], columns: Mapping[str, Column], draws: int, random: np.random.Generator
) -> Correlation:
    figures = [[columns[name][classifier] for classifier in names] for name in (one, other)]
    x, y = (np.array([figure.value for figure in column]) for column in figures)
    spread = [np.array([_deviation(figure) for figure in column]) for column in figures]
    drawn = [
        _ranked(*(values + random.normal(size=len(names)) * sd for values, sd in zip((x, y), spread, strict=True)))
        for _ in range(draws)
    ]
    found = [
        Estimate(value, *_interval(value, np.array(of_draws), simulated))
        for value, of_draws, simulated in zip(
            _ranked(x, y), zip(*drawn, strict=True), _simulated(len(names)), strict=True
        )
    ]
    return Correlation(one, other, names, *found)


def _interval(value: float, drawn: np.ndarray, simulated: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """The ends of a coefficient's interval: the population's that do not make what was drawn too rare.

    Args:
        value: of the figures as they are.
        drawn: of figures drawn anew, [draws].
        simulated: the population's coefficients, rising [G], and those of samples of each, [G, S] sorted.
    """
    populations, samples = simulated
    size = samples.shape[1]
    # Coefficients of so few classifiers are fractions with small denominators, equal but for rounding.
    as_high = np.array([1 - np.searchsorted(own, drawn - 1e-9, side="left").mean() / size for own in samples])
    as_low = np.array([np.searchsorted(own, drawn + 1e-9, side="right").mean() / size for own in samples])
    tail = (1 - CONFIDENCE) / 2
    likely = np.flatnonzero((as_high > tail) & (as_low > tail))
    if not len(likely):
        return value, value
    low = -1.0 if likely[0] == 0 else float(populations[likely[0]])
    high = 1.0 if likely[-1] == len(populations) - 1 else float(populations[likely[-1]])
    return min(low, value), max(high, value)


@cache
def _simulated(count: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """For Spearman's and for Kendall's coefficient: those of populations, and of samples of `count` from each, sorted.

    A population is a Gaussian copula, whose coefficients are known (Kruskal 1958).
    """
    random = np.random.default_rng(count)
    size = 4000 if count <= _MANY else 1000
    normal, other = random.normal(size=(2, size, count))
    first = normal.argsort(axis=1).argsort(axis=1)
    upper = np.triu_indices(count, 1)
    signs = np.sign(first[:, upper[0]] - first[:, upper[1]])
    spearman, kendall = [], []
    for r in _NORMAL:
        second = (r * normal + math.sqrt(1 - r**2) * other).argsort(axis=1).argsort(axis=1)
        spearman.append(1 - 6 * ((first - second) ** 2).sum(axis=1) / (count * (count**2 - 1)))
        kendall.append((signs * np.sign(second[:, upper[0]] - second[:, upper[1]])).mean(axis=1))
    populations = (6 / math.pi * np.arcsin(_NORMAL / 2), 2 / math.pi * np.arcsin(_NORMAL))
    of_spearman, of_kendall = (np.sort(np.array(found), axis=1) for found in (spearman, kendall))
    return (populations[0], of_spearman), (populations[1], of_kendall)


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
