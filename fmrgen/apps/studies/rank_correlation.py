"""Rank correlations of measures over classifiers: of FMR and accuracy on fixed benchmarks, for example."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
_ROUNDING = 1e-9  # coefficients of few classifiers are fractions with small denominators, equal but for rounding
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
    """Return every measure in evaluations, by its name, of every classifier that has it.

    `own FMR` is each classifier's on the split made for it; `SA` its standard accuracy there; `FMR on SPLIT` that of
    the classifiers on one split; then the accuracy on each fixed set, and its mCE. Classifiers at chance are left out.

    Raises:
        UserError: two evaluations have different figures of one classifier.
    """
    columns: dict[str, Column] = {}
    weights: dict[str, str | None] = {}
    left_out = at_chance(evaluations)
    for evaluation in evaluations:
        for classifier in evaluation.classifiers:
            digest = weights.setdefault(classifier.name, classifier.weights_sha256)
            if digest != classifier.weights_sha256:
                raise UserError(
                    f"{classifier.name}: names different networks in two evaluations; give each a name, NAME=…"
                )
        for name, classifier_name, figure in _figures(evaluation):
            if classifier_name not in left_out:
                _add(columns.setdefault(name, {}), name, classifier_name, figure)
    return {name: column for name, column in columns.items() if column}


def _figures(evaluation: Evaluation) -> Iterator[tuple[str, str, Estimate | None]]:
    """Yield the measure, the classifier and the value of every figure of an evaluation."""
    for result in evaluation.results:
        if result.conditioned:
            yield _OWN, result.classifier, result.total.fmr
            yield "SA", result.classifier, result.total.standard_accuracy
        else:
            yield f"FMR on {result.split}", result.classifier, result.total.fmr
    for fixed in evaluation.fixed:
        yield fixed.name, fixed.classifier, fixed.accuracy
        yield f"{fixed.name} mCE", fixed.classifier, fixed.mean_corruption_error


def _add(column: Column, name: str, classifier: str, figure: Estimate | None) -> None:
    """Add a classifier's figure to the column of a measure. Raises UserError if it has another there."""
    if figure is None:
        return
    if column.setdefault(classifier, figure) != figure:
        raise UserError(f"{classifier}: has two figures for {name}; give evaluations that have it once")


def at_chance(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the classifiers that are hardly better than guessing on the originals of any split."""
    names = set()
    for evaluation in evaluations:
        for result in evaluation.results:
            if result.at_chance:
                names.add(result.classifier)
    return sorted(names)


def correlations(columns: Mapping[str, Column], chosen: Sequence[str] = ()) -> list[Correlation]:
    """Return the rank correlations of each two measures over the classifiers that have both.

    An interval is of the classifiers' true figures. It holds each correlation of a population (a Gaussian copula) of
    which so many classifiers, their figures as uncertain as these, have coefficients as high, and as low, as the
    measured ones in more than 2.5 % of cases each. The fewer classifiers, and the less they differ for the uncertainty
    of their figures, the wider it is: three or four are rarely conclusive.

    Args:
        columns: the measures.
        chosen: names of those that are wanted; by default all pairs that enough classifiers have.

    Returns:
        A correlation for each pair.

    Raises:
        UserError: there is no such measure, or too few classifiers have two of them.
    """
    for name in chosen:
        if name not in columns:
            raise UserError(f"no evaluation has {name}; choose from {', '.join(columns)}")
    pairs = []
    for first, second in combinations(chosen or columns, 2):
        names = [name for name in columns[first] if name in columns[second]]
        if len(names) >= _FEWEST:
            pairs.append(_correlation(first, second, names, columns))
        elif chosen:
            raise UserError(f"{first} and {second}: {len(names)} classifiers have both, and {_FEWEST} are needed")
    if not pairs:
        raise UserError(f"no two measures cover {_FEWEST} classifiers; found {', '.join(columns) or 'none'}")
    return pairs


def _correlation(first: str, second: str, names: list[str], columns: Mapping[str, Column]) -> Correlation:
    x = [columns[first][name] for name in names]
    y = [columns[second][name] for name in names]
    coefficients = _coefficients(_values(x), _values(y))
    attenuation = math.sqrt(_reliability(x) * _reliability(y))
    estimates = []
    for value, (coefficient, samples) in zip(coefficients, _simulated(len(names)), strict=True):
        estimates.append(Estimate(value, *_interval(value, attenuation, coefficient, samples)))
    return Correlation(first, second, names, *estimates)


def _values(column: Sequence[Estimate]) -> np.ndarray:
    return np.array([figure.value for figure in column])


def _reliability(column: Sequence[Estimate]) -> float:
    """Return the share of the variance of measured figures that is the classifiers' own; the rest is of the images."""
    values = _values(column)
    if len(set(values.tolist())) < _FEWEST:
        return 0.0
    errors = np.array([_deviation(figure) for figure in column])
    return max(0.0, 1 - float((errors**2).mean()) / float(values.var(ddof=1)))


def _interval(
    value: float, attenuation: float, coefficient: Callable[[float], float], samples: np.ndarray
) -> tuple[float, float]:
    """Return the ends of a coefficient's interval: of true figures that make the measured value not too rare.

    Args:
        value: of the measured figures.
        attenuation: the factor by which their errors lower the correlation of the true ones.
        coefficient: of a population, by the correlation of the normal pairs behind it.
        samples: coefficients of samples from populations of `_NORMAL`, [G, S] sorted.
    """
    if not attenuation:
        return -1.0, 1.0
    size = samples.shape[1]
    tail = (1 - CONFIDENCE) / 2
    likely = []  # populations of which such a value is not rare
    for population, sample in enumerate(samples):
        as_high = 1 - np.searchsorted(sample, value - _ROUNDING, side="left") / size
        as_low = np.searchsorted(sample, value + _ROUNDING, side="right") / size
        if as_high > tail and as_low > tail:
            likely.append(population)
    last = len(_NORMAL) - 1
    if not likely:  # an order so alike that no population of the grid has it
        likely = [last if value > 0 else 0]
    # The ends lie between these and their neighbours; beyond the last ones there is nothing but 1.
    low_end, high_end = -1.0, 1.0
    if likely[0] > 1:
        low_end = float(_NORMAL[likely[0] - 1])
    if likely[-1] + 1 < last:
        high_end = float(_NORMAL[likely[-1] + 1])
    low = coefficient(_clipped(low_end / attenuation))
    high = coefficient(_clipped(high_end / attenuation))
    return min(low, value), max(high, value)  # the value is of figures with errors


def _clipped(correlation: float) -> float:
    return max(-1.0, min(1.0, correlation))


@cache
def _simulated(count: int) -> list[tuple[Callable[[float], float], np.ndarray]]:
    """Return the coefficients of populations and of their samples, for Spearman's and for Kendall's coefficient.

    Of each, first a function: the coefficient of a Gaussian copula, by its correlation; then the coefficients of
    samples of `count` from each population of `_NORMAL`, [G, S] sorted.
    """
    random = np.random.default_rng(count)
    size = next(samples for most_classifiers, samples in _SAMPLES if count <= most_classifiers)
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
        (_spearman_of_copula, np.sort(np.array(spearman), axis=1)),
        (_kendall_of_copula, np.sort(np.array(kendall), axis=1)),
    ]


def _spearman_of_copula(r: float) -> float:
    """Return Spearman's coefficient of a Gaussian copula (Kruskal 1958)."""
    return 6 / math.pi * math.asin(r / 2)


def _kendall_of_copula(r: float) -> float:
    """Return Kendall's coefficient of a Gaussian copula (Kruskal 1958)."""
    return 2 / math.pi * math.asin(r)


def _ranks(values: np.ndarray) -> np.ndarray:
    ranks: np.ndarray = values.argsort(axis=1).argsort(axis=1)
    return ranks


def _signs(ranks: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return 1 where the first of a pair ranks higher, else -1; as int8, since there are many pairs."""
    return np.where(ranks[:, pairs[0]] > ranks[:, pairs[1]], 1, -1).astype(np.int8)


def _coefficients(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return Spearman's and Kendall's correlation; 0 if all values of one are the same."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0, 0.0
    return float(spearmanr(x, y).statistic), float(kendalltau(x, y).statistic)


def _deviation(figure: Estimate) -> float:
    """Return the standard error that an interval stands for."""
    if figure.low is None or figure.high is None:
        return 0.0
    return (figure.high - figure.low) / (2 * float(ndtri((1 + CONFIDENCE) / 2)))
