"""Claims that one figure of a study is higher than another, or as high, and their verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from fmrgen.config import StrictConfig
from fmrgen.errors import UserError
from fmrgen.metrics.intervals import Estimate, ratio_and_influence
from fmrgen.metrics.summary import COMPARED
from fmrgen.results.evaluation import Evaluation, Result
from fmrgen.results.own_splits import common_ids, rows_of
from fmrgen.results.rankings import difference
from fmrgen.results.trainings import Trainings

if TYPE_CHECKING:
    from fmrgen.apps.studies.attack_oracle import AttackedJudge

Metric = Literal["fmr", "perturbed_accuracy", "standard_accuracy", "validation_rate", "attacked_accuracy"]


class Claim(StrictConfig):
    """A claim that one figure is higher than another; with `within`, that they differ by at most so many points.

    A figure is `PART/MODEL`, or `PART/MODEL on MODEL` for a split made for another; of a part that attacks the oracle
    `PART/oracle` too.

    Attributes:
        says: the claim in words.
        higher, lower: figures.
        metric: what is compared.
        within: points; None for a claim that `higher` is higher.
    """

    says: str
    higher: str
    lower: str
    metric: Metric = "fmr"
    within: float | None = Field(None, gt=0)


@dataclass(frozen=True)
class ClaimFound:
    """A claim with both figures, their difference and the verdict.

    Attributes:
        says: the claim in words.
        higher, lower: the names of both figures.
        metric: what is compared, a field of `Summary`.
        values: both figures; None where no row is valid.
        apart: their difference. Its interval is paired where both are of the same images; else made of the two
            intervals.
        within: of a claim that they are alike, in points.
        trainings: how many each figure is the mean of, the fewer of both; where it is more than one trainings are a
            sample too.
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
        """Return the smallest difference that so many images can show, in points."""
        if self.apart is None or self.apart.low is None or self.apart.high is None:
            return None
        return (self.apart.high - self.apart.low) / 2

    @property
    def verdict(self) -> str:
        """Return the verdict in a word or two."""
        if self.apart is None:
            return "not tested"
        low, high = self.apart.low, self.apart.high
        if low is None or high is None:
            return "not decided"
        if self.within is not None:
            if -self.within <= low and high <= self.within:
                return "holds"
            if low > self.within or high < -self.within:
                return "does not hold"
            return "not decided"
        if low <= 0 <= high:
            return "not decided"
        return "holds" if low > 0 else "does not hold"


def find_claim(
    claim: Claim, evaluations: Mapping[str, Evaluation], attacked: "Mapping[str, Sequence[AttackedJudge]]"
) -> ClaimFound:
    """Return the verdict on a claim.

    Args:
        claim: of figures of these parts.
        evaluations: by the names of their parts.
        attacked: judges under one attack, likewise.

    Returns:
        Both figures, their difference and a verdict.

    Raises:
        UserError: a figure is not known.
    """
    networks = [_networks(claim.higher, evaluations), _networks(claim.lower, evaluations)]
    fewest, most = sorted(map(len, networks))
    if most > 1:
        values, apart = _over_trainings(claim, networks)
        return ClaimFound(claim.says, claim.higher, claim.lower, claim.metric, values, apart, claim.within, fewest)
    higher = _estimate_of(claim.higher, claim.metric, evaluations, attacked)
    lower = _estimate_of(claim.lower, claim.metric, evaluations, attacked)
    apart = None
    if higher is not None and lower is not None:
        apart = _paired(claim, evaluations) or _unpaired(higher, lower)
    return ClaimFound(claim.says, claim.higher, claim.lower, claim.metric, (higher, lower), apart, claim.within)


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
        """Return its predictions, [N] under their names; None if the evaluation has figures only."""
        if self.evaluation.predictions is None:
            return None
        return self.evaluation.predictions_of(self.result.split, self.result.classifier)


def _networks(figure: str, evaluations: Mapping[str, Evaluation]) -> list[_Network]:
    """Return the networks that `PART/MODEL` or `PART/MODEL on MODEL` stands for; [] if the part is no comparison.

    They are several if a model was trained more than once: the first on the split of the first, and so on.
    """
    part, models = part_and_models(figure)
    if part not in evaluations:
        return []
    evaluation = evaluations[part]
    own_splits: dict[str, str] = {}
    if evaluation.own is not None:
        own_splits = {place.classifier: place.split for place in evaluation.own.ranking}
    classifiers = _trainings_of(models[0], evaluation)
    targets = _trainings_of(models[-1], evaluation)  # that the splits were made for
    if len(classifiers) == 1:
        classifiers *= len(targets)
    elif len(targets) == 1:
        targets *= len(classifiers)
    if len(classifiers) != len(targets):
        raise UserError(f"{figure}: {models[0]} was trained {len(classifiers)} times, {models[-1]} {len(targets)}")
    networks = []
    for classifier, target in zip(classifiers, targets, strict=True):
        if target not in own_splits:
            raise UserError(f"{figure}: {target} was not found to be the classifier of its own split")
        networks.append(_Network(evaluation, evaluation.result(own_splits[target], classifier)))
    return networks


def _trainings_of(model: str, evaluation: Evaluation) -> list[str]:
    """Return the names of the classifiers that are trainings of a model; its own name if there are none."""
    return [trained.name for trained in evaluation.classifiers if trained.training_of == model] or [model]


def _result_of(figure: str, evaluations: Mapping[str, Evaluation]) -> Result:
    """Return the result of a figure that stands for one network."""
    return _networks(figure, evaluations)[0].result


def _over_trainings(
    claim: Claim, networks: Sequence[list[_Network]]
) -> tuple[tuple[Estimate | None, Estimate | None], Estimate | None]:
    """Return both figures of a claim and their difference, where one is of several trainings.

    If a model is part of both figures they are compared training by training: what its training adds to both is no
    difference. Otherwise the trainings of each show how far its own vary.
    """
    figures = dict(zip((claim.higher, claim.lower), networks, strict=True))
    shared_models = {*part_and_models(claim.higher)[1]} & {*part_and_models(claim.lower)[1]}
    values = _values(claim.metric, figures)
    higher, lower = values[claim.higher], values[claim.lower]
    if not higher or not lower:
        return (None, None), None
    higher_trainings, lower_trainings = Trainings.from_networks(higher), Trainings.from_networks(lower)
    means = higher_trainings.interval(), lower_trainings.interval()
    if shared_models and len(higher) == len(lower):
        differences = []
        for (first, first_influence), (second, second_influence) in zip(higher, lower, strict=True):
            differences.append((first - second, first_influence - second_influence))
        return means, Trainings.from_networks(differences).interval()
    return means, higher_trainings.less(lower_trainings)


def _values(metric: str, figures: Mapping[str, Sequence[_Network]]) -> dict[str, list[tuple[float, np.ndarray]]]:
    """Return the metric of each network of each figure and the influence of every row on it, over their common rows.

    A figure's list is empty if one of its networks has no value; all lists are empty if the images are not the same.
    """
    networks: list[_Network] = []
    for networks_of_figure in figures.values():
        networks.extend(networks_of_figure)
    aligned = _aligned(networks)
    columns = iter(aligned or ())
    values: dict[str, list[tuple[float, np.ndarray]]] = {}
    for figure, networks_of_figure in figures.items():
        values[figure] = []
        if aligned is None:
            continue
        for _ in networks_of_figure:
            value = _metric_and_influence(metric, next(columns))
            if value is not None:
                values[figure].append(value)
        if len(values[figure]) < len(networks_of_figure):
            values[figure] = []
    return values


def _aligned(networks: Sequence[_Network]) -> list[dict[str, np.ndarray]] | None:
    """Return the rows of each over their common images; None if rows are missing, or of other images."""
    columns = []
    for network in networks:
        rows = network.rows()
        if rows is None:
            return None
        columns.append(rows)
    ids = common_ids(columns)
    if not len(ids):
        return None
    aligned = [rows_of(rows, ids) for rows in columns]
    for rows in aligned:
        if not np.array_equal(rows["label"], aligned[0]["label"]):
            return None
    return aligned


def _metric_and_influence(metric: str, columns: Mapping[str, np.ndarray]) -> tuple[float, np.ndarray] | None:
    """Return a metric in percent and the influence of every row on it.

    All metrics of rows are ratios: of `part` among some rows, to `whole` in all.
    """
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
    """Return the difference over the images that both figures have; None if there are none, or no rows."""
    parts = {part_and_models(claim.higher)[0], part_and_models(claim.lower)[0]}
    if not parts <= evaluations.keys() or claim.metric not in COMPARED:
        return None
    aligned = _aligned([_networks(claim.higher, evaluations)[0], _networks(claim.lower, evaluations)[0]])
    if aligned is None:
        return None
    apart: Estimate | None = getattr(difference(claim.higher, claim.lower, *aligned), claim.metric)
    return apart


def _unpaired(first: Estimate, second: Estimate) -> Estimate:
    """Return the difference of two figures of other images or other rows: their margins, squared and added."""
    value = first.value - second.value
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return Estimate(value, None, None)
    below = ((first.value - first.low) ** 2 + (second.high - second.value) ** 2) ** 0.5
    above = ((first.high - first.value) ** 2 + (second.value - second.low) ** 2) ** 0.5
    return Estimate(value, value - below, value + above)


def part_and_models(text: str) -> tuple[str, list[str]]:
    """Return part and models of `PART/MODEL` or `PART/MODEL on MODEL`."""
    part, _, rest = text.partition("/")
    return part, rest.split(" on ")
