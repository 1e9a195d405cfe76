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
    """Networks that were trained alike: `fmr` of each on its own split, their mean, and its rank among the others,
    from `best` to `worst` with 95 % confidence for all at once."""

    name: str
    classifiers: list[str]
    fmr: list[float]
    mean: Estimate
    best: int
    worst: int


@dataclass(frozen=True)
class MeanDifference:
    """The mean FMR of `first` less that of `second`, over images and trainings."""

    first: str
    second: str
    fmr: Estimate


@dataclass(frozen=True)
class TrainingsComparison:
    """Ways to train by falling mean FMR, and the difference of each pair, over `rows` images that all have.

    `spread` is the standard deviation of FMR between trainings of one kind, without what images add to it; it is taken
    to be one for all kinds.
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
    variance of the second is pooled over groups, of what networks of one group differ by beyond the images' part; that
    of the third is known from each row's influence. The intervals are Student's, with the degrees of freedom that
    Satterthwaite gives the sum.

    Args:
        fmr: FMR in percent of each classifier and the influence of every row on it [N], the rows the same for all.
        groups: the classifiers of each group by its name, at least two groups.

    Returns:
        None where no group has two networks, or there are no two groups.
    """
    groups = {name: [one for one in members if one in fmr] for name, members in groups.items()}
    groups = {name: members for name, members in groups.items() if members}
    freedom = sum(len(members) - 1 for members in groups.values())
    if len(groups) < 2 or not freedom:
        return None
    values = {name: np.array([fmr[one][0] for one in members]) for name, members in groups.items()}
    influences = {name: np.stack([fmr[one][1] for one in members]) for name, members in groups.items()}
    rows = next(iter(influences.values())).shape[1]
    seen = sum(float(((own - own.mean()) ** 2).sum()) for own in values.values()) / freedom
    by_images = sum(_within(influences[name]) * (len(own) - 1) for name, own in values.items()) / freedom
    model = _Model(max(seen, by_images), by_images, freedom)
    means = {name: float(own.mean()) for name, own in values.items()}
    of_mean = {name: influences[name].mean(0) for name in groups}
    order = sorted(groups, key=lambda name: -means[name])
    pairs = list(combinations(order, 2))
    above: dict[str, set[str]] = {name: set() for name in groups}  # which are beyond it
    differences = []
    for one, other in pairs:
        trainings = 1 / len(groups[one]) + 1 / len(groups[other])
        apart = means[one] - means[other], _variance(of_mean[one] - of_mean[other]), trainings
        differences.append(MeanDifference(one, other, model.interval(*apart)))
        if (model.interval(*apart, tests=len(pairs)).low or 0) > 0:
            above[other].add(one)
    return TrainingsComparison(
        rows,
        [
            TrainedAlike(
                name,
                list(groups[name]),
                values[name].tolist(),
                model.interval(means[name], _variance(of_mean[name]), 1 / len(groups[name])),
                1 + len(above[name]),
                len(groups) - sum(name in beyond for beyond in above.values()),
            )
            for name in order
        ],
        differences,
        model.spread(seen),
    )


def mean_of_trainings(each: Sequence[tuple[float, np.ndarray]]) -> Estimate:
    """The mean of a figure in percent over trainings of one kind, over other images and other trainings too.

    Args:
        each: its value and the influence of every row on it [N], of each of at least two trainings.
    """
    values, influences = np.array([value for value, _ in each]), np.stack([influence for _, influence in each])
    mean, of_images = float(values.mean()), _variance(influences.mean(0))
    by_images = _within(influences)
    model = _Model(max(float(values.var(ddof=1)), by_images), by_images, len(each) - 1)
    return model.interval(mean, of_images, 1 / len(each))


@dataclass(frozen=True)
class _Model:
    """The pooled variance between networks of one group, `between`, which holds that of images, `by_images`."""

    between: float
    by_images: float
    freedom: int

    def interval(self, value: float, of_images: float, trainings: float, tests: int = 1) -> Estimate:
        """Of a mean or a difference: `of_images` is the variance that images give it, `trainings` the sum of 1 / K."""
        of_trainings = trainings * self.between
        variance = of_trainings + max(0.0, of_images - trainings * self.by_images)
        if variance <= 0:
            return Estimate(value, None, None)
        freedom = min(_MOST_FREEDOM, self.freedom * (variance / of_trainings) ** 2) if of_trainings else _MOST_FREEDOM
        margin = float(stdtrit(freedom, 1 - (1 - CONFIDENCE) / 2 / tests)) * math.sqrt(variance)
        return Estimate(value, value - margin, value + margin)

    def spread(self, seen: float) -> Estimate:
        """The standard deviation between trainings, the images' part taken off, with the interval of a variance."""
        tails = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
        ends = (self.freedom * seen / float(chdtri(self.freedom, tail)) for tail in tails)
        return Estimate(*(math.sqrt(max(0.0, of - self.by_images)) for of in (seen, *ends)))


def _variance(influence: np.ndarray) -> float:
    return float((influence**2).sum()) / len(influence) ** 2


def _within(influences: np.ndarray) -> float:
    """What images add to the variance between networks of one group, of the influences [K, N]."""
    if len(influences) < 2:
        return 0.0
    return _variance_of_rows(influences - influences.mean(0)) * len(influences) / (len(influences) - 1)


def _variance_of_rows(influences: np.ndarray) -> float:
    return float(np.mean([_variance(own) for own in influences]))
