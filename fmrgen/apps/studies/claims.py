"""Claims that one figure of a study is higher than another, or as high, and what becomes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from fmrgen.config import StrictConfig
from fmrgen.errors import UserError
from fmrgen.metrics.intervals import Estimate, ratio_and_influence
from fmrgen.metrics.summary import COMPARED
from fmrgen.results.evaluation import Evaluation, Result
from fmrgen.results.own_splits import rows_of
from fmrgen.results.rankings import difference
from fmrgen.results.trainings import compare_trainings, mean_of_trainings

if TYPE_CHECKING:
    from fmrgen.apps.studies.attacked import AttackedJudge

Metric = Literal["fmr", "perturbed_accuracy", "standard_accuracy", "validation_rate", "attacked_accuracy"]


class Claim(StrictConfig):
    """That one figure is higher than another; or that both are alike, `within` so many points.

    A figure is `PART/MODEL`, or `PART/MODEL on MODEL` for a split made for another; of a part that attacks the oracle
    `PART/oracle` too.
    """

    says: str
    higher: str
    lower: str
    metric: Metric = "fmr"
    within: float | None = Field(None, gt=0)


@dataclass(frozen=True)
class ClaimFound:
    """What became of a claim: the two figures, how far they are apart, and whether that is beyond chance.

    A figure is None where no row is valid. The interval of a difference is paired where both are of the same images, be
    it on one split, on own splits, or on those of two parts; else made of the two intervals. `within` is that of a
    claim that they are alike. `trainings` is how many each figure is the mean of, the fewer of both; where it is more
    than one trainings are a sample too.
    """

    says: str
    higher: str
    lower: str
    metric: str
    values: tuple[Estimate | None, Estimate | None]
    apart: Estimate | None
    within: float | None = None
    trainings: int = 1

    @property
    def least(self) -> float | None:
        """How far apart figures would have to be for these images to tell, in points."""
        if self.apart is None or self.apart.low is None or self.apart.high is None:
            return None
        return (self.apart.high - self.apart.low) / 2

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.apart is None:
            return "not tested"
        low, high = self.apart.low, self.apart.high
        if low is None or high is None:
            return "not decided"
        if self.within is not None:
            if -self.within <= low and high <= self.within:
                return "holds"
            return "does not hold" if low > self.within or high < -self.within else "not decided"
        if low <= 0 <= high:
            return "not decided"
        return "holds" if low > 0 else "does not hold"


def find_claim(
    claim: Claim, evaluations: Mapping[str, Evaluation], attacked: "Mapping[str, Sequence[AttackedJudge]]"
) -> ClaimFound:
    """What becomes of a claim.

    Args:
        claim: of figures of these parts.
        evaluations: by the names of their parts.
        attacked: judges under one attack, likewise.

    Returns:
        Both figures, their difference and a verdict.

    Raises:
        UserError: a figure is not known.
    """
    networks = [_networks(figure, evaluations) for figure in (claim.higher, claim.lower)]
    if any(len(of_figure) > 1 for of_figure in networks):
        values, apart = _over_trainings(claim, networks)
        fewest = min(map(len, networks))
        return ClaimFound(claim.says, claim.higher, claim.lower, claim.metric, values, apart, claim.within, fewest)
    one, other = (_estimate_of(figure, claim.metric, evaluations, attacked) for figure in (claim.higher, claim.lower))
    apart = None
    if one is not None and other is not None:
        apart = _paired(claim, evaluations) or _unpaired(one, other)
    return ClaimFound(claim.says, claim.higher, claim.lower, claim.metric, (one, other), apart, claim.within)


def _estimate_of(
    figure: str,
    metric: Metric,
    evaluations: Mapping[str, Evaluation],
    attacked: "Mapping[str, Sequence[AttackedJudge]]",
) -> Estimate | None:
    part, models = part_and_models(figure)
    if part in attacked:
        judge = next(judge for judge in attacked[part] if judge.name == models[0])
        return judge.right if metric == "attacked_accuracy" else judge.clean
    estimate: Estimate | None = getattr(_result_of(figure, evaluations).total, metric)
    return estimate


@dataclass(frozen=True)
class _Network:
    """A classifier on a split of an evaluation."""

    evaluation: Evaluation
    result: Result

    def rows(self) -> dict[str, np.ndarray] | None:
        """What it answered, [N] under their names; None where only figures are at hand."""
        if self.evaluation.predictions is None:
            return None
        return self.evaluation.predictions_of(self.result.split, self.result.classifier)


def _networks(figure: str, evaluations: Mapping[str, Evaluation]) -> list[_Network]:
    """What `PART/MODEL` or `PART/MODEL on MODEL` stands for: several where a model was trained more than once, the
    first on the split of the first, and so on. None of a part that is no comparison."""
    part, models = part_and_models(figure)
    if part not in evaluations:
        return []
    evaluation = evaluations[part]
    own = {place.classifier: place.split for place in (evaluation.own.ranking if evaluation.own else [])}
    trained = [
        [one.name for one in evaluation.classifiers if one.training_of == model] or [model]
        for model in (models[0], models[-1])
    ]
    most = max(map(len, trained))
    trained = [names * most if len(names) == 1 else names for names in trained]
    if len(trained[0]) != len(trained[1]):
        raise UserError(f"{figure}: {models[0]} was trained {len(trained[0])} times, {models[-1]} {len(trained[1])}")
    for made_for in trained[1]:
        if made_for not in own:
            raise UserError(f"{figure}: {made_for} was not found to be the classifier of its own split")
    return [
        _Network(evaluation, evaluation.result(own[made_for], model)) for model, made_for in zip(*trained, strict=True)
    ]


def _result_of(figure: str, evaluations: Mapping[str, Evaluation]) -> Result:
    """The result of a figure that stands for one network."""
    return _networks(figure, evaluations)[0].result


def _over_trainings(
    claim: Claim, networks: Sequence[list[_Network]]
) -> tuple[tuple[Estimate | None, Estimate | None], Estimate | None]:
    """Both figures of a claim and their difference, where one is of several trainings.

    Where a model is part of both figures they are compared training by training: what its training adds to both is no
    difference. Else the trainings of each say how far its own vary.
    """
    figures = dict(zip((claim.higher, claim.lower), networks, strict=True))
    models = [part_and_models(figure)[1] for figure in figures]
    by_number = bool({*models[0]} & {*models[1]}) and len(networks[0]) == len(networks[1])
    values = _values(claim.metric, figures)
    higher, lower = values[claim.higher], values[claim.lower]
    if not higher or not lower:
        return (None, None), None
    if by_number:
        apart = [
            (one - other, of_one - of_other) for (one, of_one), (other, of_other) in zip(higher, lower, strict=True)
        ]
        return (mean_of_trainings(higher), mean_of_trainings(lower)), mean_of_trainings(apart)
    each = {f"{figure} {number}": value for figure, of in values.items() for number, value in enumerate(of)}
    groups = {figure: [f"{figure} {number}" for number in range(len(of))] for figure, of in values.items()}
    found = compare_trainings(each, groups)
    assert found is not None  # two groups, one of several
    means = {group.name: group.mean for group in found.groups}
    pair = next(pair for pair in found.differences if {pair.first, pair.second} == {claim.higher, claim.lower})
    return (means[claim.higher], means[claim.lower]), _turned(pair.fmr, pair.first != claim.higher)


def _values(metric: str, figures: Mapping[str, Sequence[_Network]]) -> dict[str, list[tuple[float, np.ndarray]]]:
    """The metric of each network of each figure and the influence of every row on it, over the rows that all have;
    nothing of a figure of which a network has none, and of all where they are not of the same images."""
    aligned = _aligned([network for networks in figures.values() for network in networks])
    if aligned is None:
        return {figure: [] for figure in figures}
    each = iter(aligned)
    found = {
        figure: [_metric_and_influence(metric, next(each)) for _ in networks] for figure, networks in figures.items()
    }
    return {figure: [one for one in each if one is not None and None not in each] for figure, each in found.items()}


def _aligned(networks: Sequence[_Network]) -> list[dict[str, np.ndarray]] | None:
    """The rows of each over the images that all have; None where they are not at hand, or are of other images."""
    columns = [rows for network in networks if (rows := network.rows()) is not None]
    if len(columns) < len(networks):
        return None
    ids = reduce(np.intersect1d, (of["id"] for of in columns))
    aligned = [rows_of(of, ids) for of in columns]
    same = all(np.array_equal(of["label"], aligned[0]["label"]) for of in aligned)
    return aligned if len(ids) and same else None


def _metric_and_influence(metric: str, columns: Mapping[str, np.ndarray]) -> tuple[float, np.ndarray] | None:
    """All metrics of rows are ratios: of `part` among some rows, in percent of `whole` in all."""
    label, every = columns["label"], np.ones(len(columns["label"]), bool)
    valid, original = columns["valid"].astype(bool), columns["original_prediction"] == label
    part, among, whole = {
        "fmr": (columns["prediction"] == label, valid, original),
        "perturbed_accuracy": (columns["prediction"] == label, valid, every),
        "standard_accuracy": (original, every, every),
        "validation_rate": (valid, every, every),
    }[metric]
    return ratio_and_influence(part, among, whole)


def _paired(claim: Claim, evaluations: Mapping[str, Evaluation]) -> Estimate | None:
    """The difference where both are of one part, and it is known there: on their own splits, or on one."""
    part, another = (part_and_models(figure)[0] for figure in (claim.higher, claim.lower))
    if not {part, another} <= evaluations.keys() or claim.metric not in COMPARED:
        return None
    if part != another:
        return _paired_across(claim, evaluations)
    one, other = (_result_of(figure, evaluations) for figure in (claim.higher, claim.lower))
    evaluation = evaluations[part]
    if one.split == other.split:
        pairs = next(comparison.differences for comparison in evaluation.comparisons if comparison.split == one.split)
    elif one.conditioned and other.conditioned and evaluation.own is not None:
        pairs = evaluation.own.differences
    else:
        return None
    for pair in pairs:
        if {pair.first, pair.second} == {one.classifier, other.classifier}:
            return _turned(getattr(pair, claim.metric), pair.first != one.classifier)
    return None


def _turned(apart: Estimate | None, turn: bool) -> Estimate | None:
    """A difference, or that of the other from the one."""
    if apart is None or not turn:
        return apart
    ends = (None, None) if apart.low is None or apart.high is None else (-apart.high, -apart.low)
    return Estimate(-apart.value, *ends)


def _paired_across(claim: Claim, evaluations: Mapping[str, Evaluation]) -> Estimate | None:
    """The difference between two parts, over the images that both have; None where they have none at hand."""
    aligned = _aligned([_networks(figure, evaluations)[0] for figure in (claim.higher, claim.lower)])
    if aligned is None:
        return None
    apart: Estimate | None = getattr(difference(claim.higher, claim.lower, *aligned), claim.metric)
    return apart


def _unpaired(one: Estimate, other: Estimate) -> Estimate:
    """The difference of two figures of other images or other rows: their margins, squared and added."""
    value = one.value - other.value
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return Estimate(value, None, None)
    below = ((one.value - one.low) ** 2 + (other.high - other.value) ** 2) ** 0.5
    above = ((one.high - one.value) ** 2 + (other.value - other.low) ** 2) ** 0.5
    return Estimate(value, value - below, value + above)


def part_and_models(text: str) -> tuple[str, list[str]]:
    """Part and models of `PART/MODEL` or `PART/MODEL on MODEL`."""
    part, _, rest = text.partition("/")
    return part, rest.split(" on ")
