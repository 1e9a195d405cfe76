"""Predictors of accuracy on real shifts, over recipes of training, where standard accuracy (SA) is equal.

The unit is a recipe of training: its figures are means over its trainings, and intervals resample recipes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fmrgen.apps.studies.partial_correlation import partial_correlation, resampled, spearman
from fmrgen.metrics.intervals import Estimate

SHIFT, EFFECTIVE, STANDARD, ATTACKED = "real shift", "effective robustness", "SA", "attacked"
HALVES = ("SA on every other digit", "SA on the others")
_LOGIT_SA = "logit of SA"
_LEAST_SHARE = 0.001  # of accuracies: the logits of 0 and 1 are infinite

Figures = Mapping[str, Mapping[str, float]]
"""Network → figure → value in percent."""


@dataclass(frozen=True)
class Prediction:
    """The correlation of a predictor with a target over the recipes of training.

    Attributes:
        predictor, target: the names of both figures.
        recipes: how many recipes of training there are.
        spearman: the rank correlation.
        partial: the same where SA is equal; None for SA itself.
        less: the partial correlation of the chosen FMR minus this one; None for itself, and for SA.
    """

    predictor: str
    target: str
    recipes: int
    spearman: Estimate
    partial: Estimate | None
    less: Estimate | None = None


@dataclass(frozen=True)
class Spread:
    """A figure over all networks.

    Attributes:
        figure: its name.
        least, median, most: of its values.
        between_recipes: the standard deviation between the means of recipes of training.
        between_trainings: the standard deviation between trainings of one recipe; None if none has several.
    """

    figure: str
    least: float
    median: float
    most: float
    between_recipes: float
    between_trainings: float | None


def means_by_recipe(figures: Figures, recipes: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return the figures of each recipe of training, by name: means over its trainings, and the logit of SA."""
    trainings: dict[str, list[Mapping[str, float]]] = {}
    for network, values in figures.items():
        trainings.setdefault(recipes[network], []).append(values)
    points: dict[str, dict[str, float]] = {}
    for recipe in sorted(trainings):
        points[recipe] = {}
        for name in trainings[recipe][0]:
            points[recipe][name] = float(np.mean([values[name] for values in trainings[recipe]]))
        points[recipe][_LOGIT_SA] = _logit(points[recipe][STANDARD])
    return points


def add_shifts(targets: Sequence[str], points: Mapping[str, dict[str, float]], choose: Sequence[str]) -> None:
    """Add the mean logit of accuracy on real shifts to each point, and its distance to a line over SA.

    Args:
        targets: names of the accuracies on real shifts.
        points: figures of each recipe of training; changed in place.
        choose: recipes of training on which the line is fitted.
    """
    for values in points.values():
        values[SHIFT] = float(np.mean([_logit(values[target]) for target in targets]))
    choosing = table_of(points, choose)
    line = np.polyfit(choosing[_LOGIT_SA], choosing[SHIFT], 1)
    for values in points.values():
        values[EFFECTIVE] = values[SHIFT] - float(np.polyval(line, values[_LOGIT_SA]))


def table_of(points: Mapping[str, Mapping[str, float]], recipes: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the figures of these recipes of training as columns [R], by name."""
    columns = {}
    for name in points[recipes[0]]:
        columns[name] = np.array([points[recipe][name] for recipe in recipes])
    return columns


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Return the figures without those that are NaN or infinite."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _logit(percent: float) -> float:
    share = min(max(percent / 100, _LEAST_SHARE), 1 - _LEAST_SHARE)
    return float(np.log(share / (1 - share)))


def reliability_of_sa(table: Mapping[str, np.ndarray]) -> float:
    """Return the reliability of SA on all digits, from its correlation between halves (Spearman and Brown)."""
    halves = float(spearman(table[HALVES[0]], table[HALVES[1]]))
    return 2 * halves / (1 + halves)


def prediction_of(
    table: Mapping[str, np.ndarray], predictor: str, target: str = SHIFT, against: str | None = None
) -> Prediction:
    """Return the correlations of a predictor with a target.

    Args:
        table: figures by name, [R] each.
        predictor: name of a figure.
        target: name of a figure.
        against: name of a predictor; its partial correlation less this one's is reported too.
    """
    count = len(table[predictor])
    x, y, sa = table[predictor], table[target], table[STANDARD]

    def rank_correlation(rows: np.ndarray) -> np.ndarray:
        return spearman(x[rows], y[rows])

    correlation = resampled(rank_correlation, count)
    if predictor == STANDARD or target == EFFECTIVE:  # from which SA is taken out already
        return Prediction(predictor, target, count, correlation, None)
    less = None
    if against is not None:
        other = table[against]

        def difference(rows: np.ndarray) -> np.ndarray:
            partial = partial_correlation(x[rows], y[rows], sa[rows])
            return partial_correlation(other[rows], y[rows], sa[rows]) - partial

        less = resampled(difference, count)
    return Prediction(predictor, target, count, correlation, partial_given_sa(table, predictor, target), less)


def partial_given_sa(
    table: Mapping[str, np.ndarray], predictor: str, target: str, reliability: float = 1.0
) -> Estimate:
    """Return the correlation of a predictor with a target where SA is equal.

    Args:
        table: figures by name, [R] each.
        predictor: name of a figure.
        target: name of a figure.
        reliability: of SA; below 1 the result is as if SA were exact.
    """
    x, y, sa = table[predictor], table[target], table[STANDARD]

    def partial(rows: np.ndarray) -> np.ndarray:
        return partial_correlation(x[rows], y[rows], sa[rows], reliability)

    return resampled(partial, len(x))


def is_above_zero(estimate: Estimate) -> bool:
    """Return whether the whole interval is above 0."""
    return estimate.low is not None and estimate.low > 0


def spread_of(figure: str, figures: Figures, recipes: Mapping[str, str]) -> Spread:
    """Return the spread of a figure over networks of these recipes of training; NaN is left out."""
    by_recipe: dict[str, list[float]] = {}
    finite = []
    for network, values in figures.items():
        if math.isfinite(values[figure]):
            by_recipe.setdefault(recipes[network], []).append(values[figure])
            finite.append(values[figure])
    means, variances = [], []
    for recipe in sorted(by_recipe):
        trainings = np.array(by_recipe[recipe])
        means.append(trainings.mean())
        if len(trainings) > 1:
            variances.append(trainings.var(ddof=1))
    return Spread(
        figure,
        float(min(finite)),
        float(np.median(finite)),
        float(max(finite)),
        float(np.std(means, ddof=1)),
        float(np.sqrt(np.mean(variances))) if variances else None,
    )


def accuracy_on_halves(predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the accuracy on each half of the originals, in percent."""
    labels = predictions["label"]
    right = predictions["prediction"] == labels
    # Classes take turns: neighbouring pairs of turns are dealt.
    halves = predictions["id"] // len(np.unique(labels)) % 2
    accuracies = {}
    for half, name in enumerate(HALVES):
        accuracies[name] = 100 * float(right[halves == half].mean())
    return accuracies
