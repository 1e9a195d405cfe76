"""Claims that one figure of a study is higher than another, and what becomes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fmrgen.config import StrictConfig
from fmrgen.errors import UserError
from fmrgen.evaluation.results import EvaluationResults, Result
from fmrgen.intervals import Estimate
from fmrgen.metrics import COMPARED

if TYPE_CHECKING:
    from fmrgen.evaluation.attacked import AttackedJudge

Metric = Literal["fmr", "perturbed_accuracy", "standard_accuracy", "validation_rate", "attacked_accuracy"]


class Claim(StrictConfig):
    """That one figure is higher than another.

    A figure is `PART/MODEL`, or `PART/MODEL on MODEL` for a split made for another; of a part that attacks the oracle
    `PART/oracle` too.
    """

    says: str
    higher: str
    lower: str
    metric: Metric = "fmr"


@dataclass(frozen=True)
class ClaimFound:
    """What became of a claim: the two figures, how far they are apart, and whether that is beyond chance.

    A figure is None where no row is valid. The interval of a difference is paired where both are of one part's own
    splits, else made of the two intervals.
    """

    says: str
    higher: str
    lower: str
    metric: str
    values: tuple[Estimate | None, Estimate | None]
    apart: Estimate | None

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.apart is None:
            return "can't be told"
        low, high = self.apart.low, self.apart.high
        if low is None or high is None or low <= 0 <= high:
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
    return ClaimFound(claim.says, claim.higher, claim.lower, claim.metric, (one, other), apart)


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
    part = part_and_models(claim.higher)[0]
    if part not in evaluations or part != part_and_models(claim.lower)[0] or claim.metric not in COMPARED:
        return None
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
