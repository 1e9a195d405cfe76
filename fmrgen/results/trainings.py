"""Ways to train compared over several trainings each: images crossed with trainings.

An interval over images says what other images would give of the same network. Another training of the same recipe
gives another network, whose FMR may lie far beyond that. Here a claim is about what is trained and how: the trainings
are a sample too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import chdtri, stdtrit

from fmrgen.metrics.intervals import CONFIDENCE, Estimate

_MOST_FREEDOM = 1e9  # as good as a normal distribution


@dataclass(frozen=True)
class TrainedAlike:
    """Networks that were trained alike.

    Attributes:
        name: of the kind.
        classifiers: the networks.
        fmr: of each on its own split.
        mean: of these, with an interval over images and trainings; no interval for one training.
        best, worst: its rank among the kinds of several trainings, with 95 % confidence for all at once; None for one
            training, and where no other kind has several.
        spread: the standard deviation of FMR between its trainings, without what images add; None for one training.
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
    """The mean FMR of `first` less that of `second`, over images and trainings; no interval where one of them has a
    single training."""

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
    """Compares groups of networks that were trained alike.

    A network's FMR is its group's mean, what its training adds, and what the images add, which all networks share. The
    variance of the second is each group's own, of what its networks differ by beyond the images' part; that of the
    third is known from each row's influence. The intervals are Student's, with the degrees of freedom that Welch and
    Satterthwaite give the sum. One training does not show how far trainings vary: it gets neither interval nor rank.

    Args:
        fmr: FMR in percent of each classifier and the influence of every row on it [N], the rows the same for all.
        groups: the classifiers of each group by its name, at least two groups.

    Returns:
        None where no group has two networks, or there are no two groups.
    """
    members = {name: [one for one in classifiers if one in fmr] for name, classifiers in groups.items()}
    kinds = {name: _Kind.of([fmr[one] for one in known]) for name, known in members.items() if known}
    order = sorted(kinds, key=lambda name: -kinds[name].mean)
    several = [name for name in order if kinds[name].freedom]
    if len(kinds) < 2 or not several:
        return None
    differences = [
        MeanDifference(first, second, _difference(kinds[first], kinds[second]))
        for first, second in combinations(order, 2)
    ]
    above: dict[str, set[str]] = {name: set() for name in several}  # the kinds that are beyond it
    pairs = list(combinations(several, 2))
    for first, second in pairs:
        difference = _difference(kinds[first], kinds[second], tests=len(pairs))
        if difference.low is not None and difference.low > 0:
            above[second].add(first)
    trained_alike = []
    for name in order:
        best, worst = None, None
        if name in several and pairs:
            best = 1 + len(above[name])
            worst = len(several) - sum(name in beyond for beyond in above.values())
        kind = kinds[name]
        trained_alike.append(
            TrainedAlike(name, members[name], kind.values.tolist(), kind.interval(), best, worst, kind.spread())
        )
    rows = len(kinds[order[0]].influence)
    return TrainingsComparison(rows, trained_alike, differences, _typical_spread([kinds[name] for name in several]))


def mean_of_trainings(each: Sequence[tuple[float, np.ndarray]]) -> Estimate:
    """The mean of a figure in percent over trainings of one kind, over other images and other trainings too.

    Args:
        each: its value and the influence of every row on it [N], of each training; of one there is no interval.
    """
    return _Kind.of(each).interval()


@dataclass(frozen=True)
class _Kind:
    """Trainings of one kind.

    Attributes:
        values: a figure of each network [K].
        influence: of every row on their mean [N].
        between: the variance between the networks, which holds that of images; 0 of one network.
        by_images: what images add to `between`.
    """

    values: np.ndarray
    influence: np.ndarray
    between: float
    by_images: float

    @classmethod
    def of(cls, each: Sequence[tuple[float, np.ndarray]]) -> "_Kind":
        values = np.array([value for value, _ in each])
        influences = np.stack([influence for _, influence in each])
        if len(values) < 2:
            return cls(values, influences.mean(0), 0.0, 0.0)
        by_images = _within(influences)
        return cls(values, influences.mean(0), max(float(values.var(ddof=1)), by_images), by_images)

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def freedom(self) -> int:
        return len(self.values) - 1

    def interval(self) -> Estimate:
        """The mean over other images and other trainings."""
        return _interval(self.mean, _variance(self.influence), [self])

    def spread(self) -> Estimate | None:
        """The standard deviation between trainings, the images' part taken off, with the interval of a variance."""
        if not self.freedom:
            return None
        variance = float(self.values.var(ddof=1))
        squares = self.freedom * variance
        low = squares / float(chdtri(self.freedom, (1 - CONFIDENCE) / 2))
        high = squares / float(chdtri(self.freedom, (1 + CONFIDENCE) / 2))
        return Estimate(*(math.sqrt(max(0.0, end - self.by_images)) for end in (variance, low, high)))


def _typical_spread(kinds: Sequence[_Kind]) -> Estimate:
    freedom = sum(kind.freedom for kind in kinds)
    variances = [float(kind.values.var(ddof=1)) - kind.by_images for kind in kinds]
    mean = sum(kind.freedom * variance for kind, variance in zip(kinds, variances, strict=True)) / freedom
    return Estimate(math.sqrt(max(0.0, mean)), None, None)


def _difference(one: _Kind, other: _Kind, tests: int = 1) -> Estimate:
    of_images = _variance(one.influence - other.influence)
    return _interval(one.mean - other.mean, of_images, [one, other], tests)


def _interval(value: float, of_images: float, kinds: Sequence[_Kind], tests: int = 1) -> Estimate:
    """Of a mean or a difference of means: `of_images` is the variance that images give it."""
    if not all(kind.freedom for kind in kinds):
        return Estimate(value, None, None)
    of_trainings = [kind.between / len(kind.values) for kind in kinds]
    images_in_trainings = sum(kind.by_images / len(kind.values) for kind in kinds)
    variance = sum(of_trainings) + max(0.0, of_images - images_in_trainings)
    if variance <= 0:
        return Estimate(value, None, None)
    uncertainty = sum(part**2 / kind.freedom for part, kind in zip(of_trainings, kinds, strict=True))
    freedom = min(_MOST_FREEDOM, variance**2 / uncertainty) if uncertainty else _MOST_FREEDOM
    margin = float(stdtrit(freedom, 1 - (1 - CONFIDENCE) / 2 / tests)) * math.sqrt(variance)
    return Estimate(value, value - margin, value + margin)


def _variance(influence: np.ndarray) -> float:
    return float((influence**2).sum()) / len(influence) ** 2


def _within(influences: np.ndarray) -> float:
    """What images add to the variance between networks of one group, of the influences [K, N], K > 1."""
    rest = influences - influences.mean(0)
    return float(np.mean([_variance(own) for own in rest])) * len(influences) / (len(influences) - 1)
