"""Whether two measures rank classifiers alike: FMR and accuracy on fixed benchmarks, for one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from scipy.special import ndtri
from scipy.stats import kendalltau, spearmanr

from fmrgen.errors import UserError
from fmrgen.metrics.intervals import CONFIDENCE, Estimate
from fmrgen.results.evaluation import Evaluation

_SAMPLES = ((12, 4000), (60, 1000), (math.inf, 200))  # up to so many classifiers, so many samples of them
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


def measures(evaluations: Sequence[Evaluation]) -> dict[str, Column]:
    """Every measure in evaluations, by its name, of every classifier that has it.

    `own FMR` is each classifier's on the split made for it; `SA` its standard accuracy there; `FMR on SPLIT` that of
    the classifiers on one split; then the accuracy on each fixed set, and its mCE. Classifiers at chance are left out.

    Raises:
        UserError: two evaluations tell different things of one classifier.
    """
    found: dict[str, Column] = {}
    weights: dict[str, str | None] = {}
    left_out = at_chance(evaluations)

    def add(name: str, classifier: str, figure: Estimate | None) -> None:
        if classifier in left_out:
            return
        known = found.setdefault(name, {})
        if figure is None or known.get(classifier, figure) == figure:
            known.update({} if figure is None else {classifier: figure})
            return
        raise UserError(f"{classifier}: has two figures for {name}; give evaluations that have it once")

    for evaluation in evaluations:
        for one in evaluation.classifiers:
            if weights.setdefault(one.name, one.weights_sha256) != one.weights_sha256:
                raise UserError(f"{one.name}: names different networks in two evaluations; give each a name, NAME=…")
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


def at_chance(evaluations: Sequence[Evaluation]) -> list[str]:
    """The classifiers that are hardly better than guessing on the originals of any split."""
    return sorted({one.classifier for found in evaluations for one in found.results if one.at_chance})


def correlations(columns: Mapping[str, Column], chosen: Sequence[str] = ()) -> list[Correlation]:
    """The rank correlations of each two measures over the classifiers that have both.

    An interval is of the classifiers' true figures. It holds each correlation of a population (a Gaussian copula) of
    which so many classifiers, their figures as uncertain as these, have coefficients as high, and as low, as what was
    found in more than 2.5 % of cases each. The fewer classifiers, and the less they differ for the uncertainty of their
    figures, the wider it is: three or four tell next to nothing.

    Args:
        columns: the measures.
        chosen: names of those that are wanted; by default all pairs that enough classifiers have.

    Returns:
        A correlation for each pair.

    Raises:
        UserError: a measure is not there, or too few classifiers have two of them.
    """
    for name in chosen:
        if name not in columns:
            raise UserError(f"no evaluation has {name}; choose from {', '.join(columns)}")
    found = []
    for one, other in combinations(chosen or columns, 2):
        names = [name for name in columns[one] if name in columns[other]]
        if len(names) >= _FEWEST:
            found.append(_correlation(one, other, names, columns))
        elif chosen:
            raise UserError(f"{one} and {other}: {len(names)} classifiers have both, and {_FEWEST} are needed")
    if not found:
        raise UserError(f"no two measures cover {_FEWEST} classifiers; found {', '.join(columns) or 'none'}")
    return found


def _correlation(one: str, other: str, names: list[str], columns: Mapping[str, Column]) -> Correlation:
    figures = [[columns[name][classifier] for classifier in names] for name in (one, other)]
    x, y = (np.array([figure.value for figure in column]) for column in figures)
    reliability = math.prod(_reliability(column) for column in figures)
    found = [
        Estimate(value, *_interval(value, math.sqrt(reliability), *simulated))
        for value, simulated in zip(_ranked(x, y), _simulated(len(names)), strict=True)
    ]
    return Correlation(one, other, names, *found)


def _reliability(column: Sequence[Estimate]) -> float:
    """The share of the variance of measured figures that is the classifiers' own; the rest is of the images."""
    values = np.array([figure.value for figure in column])
    if len(set(values.tolist())) < _FEWEST:
        return 0.0
    errors = np.array([_deviation(figure) for figure in column])
    return max(0.0, 1 - float((errors**2).mean()) / float(values.var(ddof=1)))


def _interval(
    value: float, attenuation: float, coefficient: Callable[[float], float], samples: np.ndarray
) -> tuple[float, float]:
    """The ends of a coefficient's interval: of true figures whose population does not make what was found too rare.

    Args:
        value: of the measured figures.
        attenuation: what their errors make of the correlation of true ones, a factor.
        coefficient: of a population, by the correlation of the normal pairs behind it.
        samples: coefficients of samples from populations of `_NORMAL`, [G, S] sorted.
    """
    if not attenuation:
        return -1.0, 1.0
    size = samples.shape[1]
    # Coefficients of so few classifiers are fractions with small denominators, equal but for rounding.
    as_high = np.array([1 - np.searchsorted(own, value - 1e-9, side="left") / size for own in samples])
    as_low = np.array([np.searchsorted(own, value + 1e-9, side="right") / size for own in samples])
    tail = (1 - CONFIDENCE) / 2
    likely = np.flatnonzero((as_high > tail) & (as_low > tail))
    if not len(likely):  # an order so alike that no population of the grid has it
        likely = np.array([len(_NORMAL) - 1 if value > 0 else 0])
    # The ends lie between these and their neighbours; beyond the last ones there is nothing but 1.
    first, last = int(likely[0]) - 1, int(likely[-1]) + 1
    ends = (-1.0 if first <= 0 else _NORMAL[first], 1.0 if last >= len(_NORMAL) - 1 else _NORMAL[last])
    low, high = (coefficient(max(-1.0, min(1.0, float(end) / attenuation))) for end in ends)
    return min(low, value), max(high, value)  # what was found is that of figures with errors


@cache
def _simulated(count: int) -> list[tuple[Callable[[float], float], np.ndarray]]:
    """For Spearman's and for Kendall's coefficient: that of a Gaussian copula (Kruskal 1958), and those of samples of
    `count` from each population of `_NORMAL`, sorted.
    """
    random = np.random.default_rng(count)
    size = next(samples for most, samples in _SAMPLES if count <= most)
    normal, other = random.normal(size=(2, size, count))
    first = _ranks(normal)
    upper = np.triu_indices(count, 1)
    signs = _signs(first, upper)
    spearman, kendall = [], []
    for r in _NORMAL:
        second = _ranks(r * normal + math.sqrt(1 - r**2) * other)
        spearman.append(1 - 6 * ((first - second) ** 2).sum(axis=1) / (count * (count**2 - 1)))
        kendall.append((signs * _signs(second, upper)).mean(axis=1))
    return [
        (lambda r: 6 / math.pi * math.asin(r / 2), np.sort(np.array(spearman), axis=1)),
        (lambda r: 2 / math.pi * math.asin(r), np.sort(np.array(kendall), axis=1)),
    ]


def _ranks(values: np.ndarray) -> np.ndarray:
    ranks: np.ndarray = values.argsort(axis=1).argsort(axis=1)
    return ranks


def _signs(ranks: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """1 where the first of a pair ranks higher, else -1; small, as there are many pairs."""
    return np.where(ranks[:, pairs[0]] > ranks[:, pairs[1]], 1, -1).astype(np.int8)


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
