"""Ways to train compared over several trainings each.

An interval over images says what other images would give for the same network. Another training of the same recipe
gives another network, whose FMR may lie far outside it. Here a claim is about what is trained and how, so the trainings
are a sample too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import stdtrit

from fmrgen.metrics.intervals import CONFIDENCE, Estimate
from fmrgen.results.rankings import rank_intervals

_MOST_FREEDOM = 1e9  # degrees at which Student's distribution is as good as normal


@dataclass(frozen=True)
class TrainedAlike:
    """A group of networks that were trained alike.

    Its rank among groups of several trainings is from `best` to `worst`, with 95 % confidence for all at once; None for
    one training, and if no other group has several.
    """

    name: str
    classifiers: list[str]
    fmr: list[float]  # of each on its own split
    mean: Estimate  # over images and trainings; no interval for one training
    deviation: float | None  # standard deviation in points; None for one training
    best: int | None
    worst: int | None


@dataclass(frozen=True)
class MeanDifference:
    """The mean FMR of `first` less that of `second`, over images and trainings; no interval if one of them has a single
    training."""

    first: str
    second: str
    fmr: Estimate


@dataclass(frozen=True)
class TrainingsComparison:
    """Ways to train by falling mean FMR, and the difference of each pair, over `rows` images that all have."""

    rows: int
    groups: list[TrainedAlike]
    differences: list[MeanDifference]


_Trainings = tuple[np.ndarray, np.ndarray]  # FMR of each network [K], and influence of every row on it [K, N]


def compare_trainings(
    fmr: Mapping[str, tuple[float, np.ndarray]], groups: Mapping[str, Sequence[str]]
) -> TrainingsComparison | None:
    """Return a comparison of groups of networks that were trained alike.

    None if no group has two networks, or there are fewer than two groups. The variance of a mean is that of trainings
    over their number, as each group has it (Welch), plus what images add beyond their part of that, which follows from
    each row's influence. The intervals are Student's, with the degrees of freedom that Welch and Satterthwaite give the
    sum. One training does not show how far trainings vary: it gets neither interval nor rank.

    `fmr` is FMR in percent of each classifier and the influence of every row on it [N], the rows the same for all;
    `groups` are the classifiers of each group by its name.
    """
    members = {}
    trainings: dict[str, _Trainings] = {}
    for name, classifiers in groups.items():
        measured = [classifier for classifier in classifiers if classifier in fmr]
        if measured:
            members[name] = measured
            values, influences = zip(*(fmr[classifier] for classifier in measured), strict=True)
            trainings[name] = np.array(values), np.stack(influences)
    order = sorted(trainings, key=lambda name: -trainings[name][0].mean())
    several = [name for name in order if len(members[name]) > 1]
    if len(trainings) < 2 or not several:
        return None
    pairs = list(combinations(range(len(several)), 2))
    is_above = np.zeros((len(several), len(several)), bool)
    for first, second in pairs:
        low = _interval(trainings[several[first]], trainings[several[second]], len(pairs)).low
        is_above[first, second] = low is not None and low > 0
    ranks = rank_intervals(several, is_above) if pairs else {}
    differences = []
    for higher, lower in combinations(order, 2):
        differences.append(MeanDifference(higher, lower, _interval(trainings[higher], trainings[lower])))
    trained_alike = []
    for name in order:
        values, _ = trainings[name]
        deviation = float(values.std(ddof=1)) if len(values) > 1 else None
        best, worst = ranks.get(name, (None, None))
        mean = _interval(trainings[name])
        trained_alike.append(TrainedAlike(name, members[name], values.tolist(), mean, deviation, best, worst))
    return TrainingsComparison(trainings[order[0]][1].shape[1], trained_alike, differences)


def _interval(first: _Trainings, second: _Trainings | None = None, tests: int = 1) -> Estimate:
    """Return the mean of one group, or that less the mean of another, with its interval over images and trainings.

    `tests` is the number of intervals that hold at once.
    """
    groups = [first] if second is None else [first, second]
    value, influence = float(first[0].mean()), first[1].mean(0)
    if second is not None:
        value, influence = value - float(second[0].mean()), influence - second[1].mean(0)
    if any(len(values) < 2 for values, _ in groups):
        return Estimate(value, None, None)
    by_images = []  # what images add to the variance between networks
    variances = []
    for values, influences in groups:
        deviations = influences - influences.mean(0)
        least = float((deviations**2).sum()) / influences.shape[1] ** 2 / (len(influences) - 1) / len(values)
        by_images.append(least)
        variances.append(max(float(values.var(ddof=1)) / len(values), least))  # few may be close together by chance
    of_images = float((influence**2).sum()) / len(influence) ** 2
    variance = sum(variances) + max(0.0, of_images - sum(by_images))
    if variance <= 0:
        return Estimate(value, None, None)
    uncertainty = sum(own**2 / (len(values) - 1) for own, (values, _) in zip(variances, groups, strict=True))
    freedom = min(_MOST_FREEDOM, variance**2 / uncertainty) if uncertainty else _MOST_FREEDOM
    margin = float(stdtrit(freedom, 1 - (1 - CONFIDENCE) / 2 / tests)) * math.sqrt(variance)
    return Estimate(value, value - margin, value + margin)
