"""Claims that one figure of a study is higher than another, or as high, and what becomes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from fmrgen.config import StrictConfig
from fmrgen.errors import UserError
from fmrgen.evaluation.own_splits import rows_of
from fmrgen.evaluation.rankings import difference
from fmrgen.evaluation.results import EvaluationData, EvaluationResults, Result, predictions_of
from fmrgen.intervals import Estimate
from fmrgen.metrics import COMPARED

if TYPE_CHECKING:
    from fmrgen.evaluation.attacked import AttackedJudge

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
    claim that they are alike.
    """

    says: str
    higher: str
    lower: str
    metric: str
    values: tuple[Estimate | None, Estimate | None]
    apart: Estimate | None
    within: float | None = None

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
            return "can't be told"
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
    claim: Claim, evaluations: Mapping[str, EvaluationResults], attacked: "Mapping[str, Sequence[AttackedJudge]]"
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
    one, other = (_estimate_of(figure, claim.metric, evaluations, attacked) for figure in (claim.higher, claim.lower))
    apart = None
    if one is not None and other is not None:
        apart = _paired(claim, evaluations) or _unpaired(one, other)
    return ClaimFound(claim.says, claim.higher, claim.lower, claim.metric, (one, other), apart, claim.within)


def _estimate_of(
    figure: str,
    metric: Metric,
    evaluations: Mapping[str, EvaluationResults],
    attacked: "Mapping[str, Sequence[AttackedJudge]]",
) -> Estimate | None:
    part, models = part_and_models(figure)
    if part in attacked:
        judge = next(judge for judge in attacked[part] if judge.name == models[0])
        return judge.right if metric == "attacked_accuracy" else judge.clean
    estimate: Estimate | None = getattr(_result_of(figure, evaluations).total, metric)
    return estimate


def _result_of(figure: str, evaluations: Mapping[str, EvaluationResults]) -> Result:
    """The result that `PART/MODEL` or `PART/MODEL on MODEL` stands for."""
    part, models = part_and_models(figure)
    model, made_for = models[0], models[-1]
    evaluation = evaluations[part]
    own = {place.classifier: place.split for place in (evaluation.own.ranking if evaluation.own else [])}
    if made_for not in own:
        raise UserError(f"{figure}: {made_for} was not found to be the classifier of its own split")
    return evaluation.result(own[made_for], model)


def _paired(claim: Claim, evaluations: Mapping[str, EvaluationResults]) -> Estimate | None:
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
            apart: Estimate | None = getattr(pair, claim.metric)
            if apart is None or pair.first == one.classifier or apart.low is None or apart.high is None:
                return apart
            return Estimate(-apart.value, -apart.high, -apart.low)
    return None


def _paired_across(claim: Claim, evaluations: Mapping[str, EvaluationResults]) -> Estimate | None:
    """The difference between two parts, over the images that both have; None where their rows are not at hand."""
    columns = []
    for figure in (claim.higher, claim.lower):
        evaluation, result = evaluations[part_and_models(figure)[0]], _result_of(figure, evaluations)
        if not isinstance(evaluation, EvaluationData):
            return None
        columns.append(predictions_of(evaluation.predictions, result.split, result.classifier))
    ids = np.intersect1d(columns[0]["id"], columns[1]["id"])
    one, other = (rows_of(of, ids) for of in columns)
    if not len(ids) or not np.array_equal(one["label"], other["label"]):
        return None
    found = difference(claim.higher, claim.lower, one, other)
    apart: Estimate | None = getattr(found, claim.metric)
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
