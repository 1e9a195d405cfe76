"""Ways to train compared over several trainings each: images crossed with trainings.

An interval over images says what other images would give for the same network. Another training of the same recipe
gives another network, whose FMR may lie far outside it. Here a claim is about what is trained and how, so the trainings
are a sample too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import chdtri, stdtrit

from fmrgen.metrics.intervals import CONFIDENCE, Estimate
from fmrgen.results.rankings import rank_intervals

_MOST_FREEDOM = 1e9  # degrees at which Student's distribution is as good as normal


@dataclass(frozen=True)
class TrainedAlike:
    """A group of networks that were trained alike.

    Attributes:
        name: of the group.
        classifiers: the networks.
        fmr: FMR of each on its own split.
        mean: mean of these, with an interval over images and trainings; no interval for one training.
        best, worst: the group's rank among groups of several trainings, with 95 % confidence for all at once; None
            for one training, and if no other group has several.
        spread: the standard deviation of FMR between trainings, without what images add; None for one training.
    """

    name: str
    classifiers: list[str]
    fmr: list[float]
    mean: Estimate
    best: int | None
    worst: int | None
    spread: Estimate | None = None


@dataclass(frozen=True)
class MeanDifference:
    """The mean FMR of `first` less that of `second`, over images and trainings; no interval if one of them has a single
    training."""

    first: str
    second: str
    fmr: Estimate


@dataclass(frozen=True)
class TrainingsComparison:
    """Ways to train by falling mean FMR, and the difference of each pair, over `rows` images that all have.

    `spread` is the root mean square of the groups' spreads, each weighted by its degrees of freedom. It has no
    interval: groups may vary differently, and intervals and ranks use each group's own.
    """

    rows: int
    groups: list[TrainedAlike]
    differences: list[MeanDifference]
    spread: Estimate


def compare_trainings(
    fmr: Mapping[str, tuple[float, np.ndarray]], groups: Mapping[str, Sequence[str]]
) -> TrainingsComparison | None:
    """Return a comparison of groups of networks that were trained alike.

    A network's FMR is its group's mean, plus what its training adds, plus what the images add, the same for all groups.
    The variance of the second part is estimated for each group, from how far its networks differ beyond the images'
    part; that of the third follows from each row's influence. The intervals are Student's, with the degrees of freedom
    that Welch and Satterthwaite give the sum. One training does not show how far trainings vary: it gets neither
    interval nor rank.

    Args:
        fmr: FMR in percent of each classifier and the influence of every row on it [N], the rows the same for all.
        groups: the classifiers of each group by its name, at least two groups.

    Returns:
        None if no group has two networks, or there are fewer than two groups.
    """
    members = {}
    trainings = {}
    for name, classifiers in groups.items():
        measured = [classifier for classifier in classifiers if classifier in fmr]
        if measured:
            members[name] = measured
            trainings[name] = Trainings.from_networks([fmr[classifier] for classifier in measured])
    order = sorted(trainings, key=lambda name: -trainings[name].mean)
    several = [name for name in order if trainings[name].freedom]
    if len(trainings) < 2 or not several:
        return None
    differences = []
    for first, second in combinations(order, 2):
        differences.append(MeanDifference(first, second, trainings[first].less(trainings[second])))
    ranks = _rank_intervals(several, trainings)
    trained_alike = []
    for name in order:
        best, worst = ranks.get(name, (None, None))
        group = trainings[name]
        trained_alike.append(
            TrainedAlike(name, members[name], group.values.tolist(), group.interval(), best, worst, group.spread())
        )
    rows = len(trainings[order[0]].influence)
    return TrainingsComparison(rows, trained_alike, differences, _typical_spread([trainings[name] for name in several]))


@dataclass(frozen=True)
class Trainings:
    """A figure of the trainings of one group, in percent.

    Attributes:
        values: a figure of each network [K].
        influence: influence of every row on their mean [N].
        between: the variance between the networks, including that by images; 0 for one network.
        by_images: what images add to `between`.
    """

    values: np.ndarray
    influence: np.ndarray
    between: float
    by_images: float

    @classmethod
    def from_networks(cls, each: Sequence[tuple[float, np.ndarray]]) -> "Trainings":
        """Return the trainings from each network's figure and the influence of every row on it [N].

        Without a second network there is no interval.
        """
        values = np.array([value for value, _ in each])
        influences = np.stack([influence for _, influence in each])
        if len(values) < 2:
            return cls(values, influences.mean(0), 0.0, 0.0)
        by_images = _variance_by_images(influences)
        return cls(values, influences.mean(0), max(float(values.var(ddof=1)), by_images), by_images)

    @property
    def mean(self) -> float:
        """Return the mean of the figure over the networks."""
        return float(self.values.mean())

    @property
    def freedom(self) -> int:
        """Return the degrees of freedom of the variance between networks."""
        return len(self.values) - 1

    def interval(self) -> Estimate:
        """Return the mean with an interval over images and trainings."""
        return _interval(self.mean, _variance(self.influence), [self])

    def less(self, other: "Trainings", tests: int = 1) -> Estimate:
        """Return the mean less that of another group over the same rows, with an interval over images and trainings.

        Args:
            other: the other group.
            tests: the number of intervals that hold at once.
        """
        image_variance = _variance(self.influence - other.influence)
        return _interval(self.mean - other.mean, image_variance, [self, other], tests)

    def spread(self) -> Estimate | None:
        """Return the standard deviation between trainings, less the images' part, with the interval of a variance."""
        if not self.freedom:
            return None
        variance = float(self.values.var(ddof=1))
        squares = self.freedom * variance
        low = squares / float(chdtri(self.freedom, (1 - CONFIDENCE) / 2))
        high = squares / float(chdtri(self.freedom, (1 + CONFIDENCE) / 2))
        return Estimate(self._deviation(variance), self._deviation(low), self._deviation(high))

    def _deviation(self, variance: float) -> float:
        return math.sqrt(max(0.0, variance - self.by_images))


def _rank_intervals(names: Sequence[str], trainings: Mapping[str, Trainings]) -> dict[str, tuple[int, int]]:
    """Return the best and worst rank of each group in `names`, by falling mean; none if it is the only one."""
    pairs = list(combinations(range(len(names)), 2))
    if not pairs:
        return {}
    is_above = np.zeros((len(names), len(names)), bool)
    for first, second in pairs:
        difference = trainings[names[first]].less(trainings[names[second]], tests=len(pairs))
        is_above[first, second] = difference.low is not None and difference.low > 0
    return rank_intervals(names, is_above)


def _typical_spread(groups: Sequence[Trainings]) -> Estimate:
    """Return the root mean square of the groups' spreads, each weighted by its degrees of freedom."""
    squares = 0.0
    freedom = 0
    for group in groups:
        squares += group.freedom * (float(group.values.var(ddof=1)) - group.by_images)
        freedom += group.freedom
    return Estimate(math.sqrt(max(0.0, squares / freedom)), None, None)


def _interval(value: float, image_variance: float, groups: Sequence[Trainings], tests: int = 1) -> Estimate:
    """Return a mean of one group, or a difference of two, with its interval.

    Args:
        value: the mean or the difference.
        image_variance: the variance that images give it.
        groups: the one or two groups.
        tests: the number of intervals that hold at once.
    """
    training_variance = 0.0
    images_in_trainings = 0.0
    uncertainty = 0.0
    for group in groups:
        if not group.freedom:
            return Estimate(value, None, None)
        group_variance = group.between / len(group.values)
        training_variance += group_variance
        images_in_trainings += group.by_images / len(group.values)
        uncertainty += group_variance**2 / group.freedom
    variance = training_variance + max(0.0, image_variance - images_in_trainings)
    if variance <= 0:
        return Estimate(value, None, None)
    freedom = _MOST_FREEDOM
    if uncertainty:
        freedom = min(_MOST_FREEDOM, variance**2 / uncertainty)
    margin = float(stdtrit(freedom, 1 - (1 - CONFIDENCE) / 2 / tests)) * math.sqrt(variance)
    return Estimate(value, value - margin, value + margin)


def _variance(influence: np.ndarray) -> float:
    """Return the variance of a figure over images, from the influence of each row [N]."""
    return float((influence**2).sum()) / len(influence) ** 2


def _variance_by_images(influences: np.ndarray) -> float:
    """Return what images add to the variance between networks of one group, from the influences [K, N], K > 1."""
    deviations = influences - influences.mean(0)
    variances = [_variance(deviation) for deviation in deviations]
    return float(np.mean(variances)) * len(influences) / (len(influences) - 1)
