"""Does one figure, named beforehand, predict accuracy on real shifts where standard accuracy (SA) is equal?

There is nothing to choose: the question is put once, on recipes of training that no study has used. Intervals are as in
`validity`; SA has an error, so the correlation is also shown as if it had none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from fmrgen.apps.studies.partial_correlation import (
    power_with_choice,
    resampled,
    smallest_visible_by_choice,
    spearman,
)
from fmrgen.apps.studies.predictors import (
    ATTACKED,
    EFFECTIVE,
    SHIFT,
    STANDARD,
    Figures,
    Prediction,
    Spread,
    accuracy_on_halves,
    add_shifts,
    finite,
    is_above_zero,
    means_by_recipe,
    partial_given_sa,
    prediction_of,
    reliability_of_sa,
    spread_of,
    table_of,
)
from fmrgen.config import StrictConfig
from fmrgen.errors import UserError
from fmrgen.metrics.intervals import Estimate, format_coefficient
from fmrgen.results.evaluation import Evaluation
from fmrgen.storage.shards import SplitFolder, summary_of_rows

ONE_ATTACK, SEVERAL_ATTACKS = "FMR, one attack", "FMR, several attacks"
_FEWEST = 6  # recipes of training on either side
_MODERATE = 0.5  # a true partial correlation whose power is reported


def relative(split: str) -> str:
    """Return the name of accuracy on a split of moved images, relative to SA."""
    return f"MA / SA, {split}"


def worst(split: str) -> str:
    """Return the name of worst-of-k accuracy on a split of moved images, relative to SA."""
    return f"worst MA / SA, {split}"


class PredictionPlan(StrictConfig):
    """The predictor, its rivals and the targets, fixed before any figure is known."""

    predictor: str = Field(description="the named one: `MA / SA, SPLIT`, or another figure")
    rivals: list[str] = Field(description="other figures, each compared with it")
    own: str = Field(description="a part with a split of several attacks for each network")
    targets: list[str] = Field(min_length=1, description="fixed sets of real shifts")
    confirm: list[str] = Field(min_length=_FEWEST, description="recipes of training on which the question is put")
    least_accuracy: float = Field(80.0, description="SA in percent; networks below it take no part")


@dataclass(frozen=True)
class PredictionAnswer:
    """The answer to the question.

    Attributes:
        verdict: in one sentence.
        reliability: of SA: the rank correlation that it would have with itself on as many other images.
        corrected: the partial correlation of the predictor, were SA known without error.
        confirm, others: the recipes of training on which the question was put, and the rest.
        left_out: networks whose SA is too low.
        confirmed: on *confirm*, the predictor first, and each rival with the difference to it.
        by_target: the predictor on *confirm* with each target.
        on_others: all predictors on the rest.
        on_all: all predictors on all recipes of training.
        order: rank correlation of FMR of one attack and of several, over all recipes of training.
        spreads: of every figure.
        visible: the true partial correlation that 80 % of such studies show.
        power: the share of such studies, in percent, that show a true one of 0.5.
        points: figures of each recipe of training.
    """

    verdict: str
    reliability: float
    corrected: Estimate
    confirm: list[str]
    others: list[str]
    left_out: list[str]
    confirmed: list[Prediction]
    by_target: list[Prediction]
    on_others: list[Prediction]
    on_all: list[Prediction]
    order: Estimate
    spreads: list[Spread]
    visible: float
    power: float
    points: dict[str, dict[str, float]]


def prediction_figures(
    measured: Evaluation, transfer: str, own: Mapping[str, SplitFolder]
) -> dict[str, dict[str, float]]:
    """Return the figures of each network, in percent.

    Args:
        measured: the networks on fixed sets, one of which is called SA, on moved images, and under an attack.
        transfer: the split on whose originals they were attacked.
        own: network → the split of several attacks made against it.
    """
    figures: dict[str, dict[str, float]] = {}
    for fixed in measured.fixed:
        figures.setdefault(fixed.classifier, {})[fixed.name] = fixed.accuracy.value
    for network, values in figures.items():
        values |= accuracy_on_halves(measured.predictions_of(STANDARD, network))
    for result in measured.results:
        total = result.total
        of_result = {
            relative(result.split): total.relative_moved_accuracy,
            worst(result.split): total.worst_moved_accuracy,
        }
        if result.split == transfer:
            of_result = {ATTACKED: total.attacked_accuracy}
        for name, estimate in of_result.items():
            if estimate is not None:
                figures[result.classifier][name] = estimate.value
    for network, folder in own.items():
        summary = summary_of_rows(folder)
        for name, estimate in ((ONE_ATTACK, summary.first_attack_fmr), (SEVERAL_ATTACKS, summary.fmr)):
            if estimate is None:
                raise UserError(f"prediction: the split of {network} has no {name}")
            figures[network][name] = estimate.value
    return figures


def answer_prediction(plan: PredictionPlan, recipes: Mapping[str, str], figures: Figures) -> PredictionAnswer:
    """Answer the question of a plan.

    Args:
        plan: the predictor, rivals and targets.
        recipes: network → the recipe that it is a training of.
        figures: of each network: SA, the fixed sets, and every predictor of the plan.

    Returns:
        The answer, with all correlations.

    Raises:
        UserError: a figure is missing, or too few recipes of training are left.
    """
    for network, values in figures.items():
        if STANDARD not in values:
            raise UserError(f"prediction: {network} has no figure for {STANDARD}")
    eligible = {name: values for name, values in figures.items() if values[STANDARD] >= plan.least_accuracy}
    predictors = list(dict.fromkeys((plan.predictor, *plan.rivals, ONE_ATTACK, SEVERAL_ATTACKS, STANDARD)))
    for name in (*predictors, *plan.targets):
        for network, values in eligible.items():
            if name not in values:
                raise UserError(f"prediction: {network} has no figure for {name}")
    points = means_by_recipe(eligible, recipes)
    confirm = sorted(points.keys() & set(plan.confirm))
    others = sorted(points.keys() - set(plan.confirm))
    if min(len(confirm), len(others)) < _FEWEST:
        raise UserError(
            f"prediction: {len(confirm)} recipes of training to confirm and {len(others)} others are left, and "
            f"{_FEWEST} of each are needed"
        )
    add_shifts(plan.targets, points, others)
    confirming, table = table_of(points, confirm), table_of(points, sorted(points))
    confirmed = [prediction_of(confirming, plan.predictor)]
    for name in predictors[1:]:
        confirmed.append(prediction_of(confirming, name, against=plan.predictor))
    by_target = []
    for target in (*plan.targets, EFFECTIVE):
        by_target.append(prediction_of(confirming, plan.predictor, target))
    reliability = reliability_of_sa(table)
    corrected = partial_given_sa(confirming, plan.predictor, SHIFT, reliability)
    visible = smallest_visible_by_choice(len(others), len(confirm), 1)
    remaining = table_of(points, others)

    def order(rows: np.ndarray) -> np.ndarray:
        return spearman(table[ONE_ATTACK][rows], table[SEVERAL_ATTACKS][rows])

    return PredictionAnswer(
        verdict=_verdict(plan.predictor, confirmed[0], corrected, reliability, visible),
        reliability=reliability,
        corrected=corrected,
        confirm=confirm,
        others=others,
        left_out=sorted(figures.keys() - eligible.keys()),
        confirmed=confirmed,
        by_target=by_target,
        on_others=[prediction_of(remaining, name) for name in predictors],
        on_all=[prediction_of(table, name) for name in predictors],
        order=resampled(order, len(points)),
        spreads=[spread_of(name, eligible, recipes) for name in (*predictors, *plan.targets)],
        visible=visible,
        power=100 * power_with_choice(len(others), len(confirm), 1, _MODERATE),
        points={recipe: finite(values) for recipe, values in points.items()},
    )


def _verdict(predictor: str, main: Prediction, corrected: Estimate, reliability: float, visible: float) -> str:
    if main.partial is None:
        raise UserError(f"prediction: {predictor} can't be the predictor where SA is equal")
    coefficient = f"rank correlation {format_coefficient(main.partial)} over {main.recipes} recipes"
    exact = f"{format_coefficient(corrected)} were SA, of reliability {reliability:.2f}, exact"
    if is_above_zero(main.partial) and is_above_zero(corrected):
        return f"{predictor} predicts accuracy on real shifts beyond standard accuracy: {coefficient}, {exact}"
    if is_above_zero(main.partial):
        return f"{predictor} may be no more than standard accuracy read once more: {coefficient}, but {exact}"
    if main.partial.high is not None and main.partial.high < 0:
        return f"{predictor} predicts accuracy on real shifts the wrong way round where SA is equal: {coefficient}"
    return (
        f"{predictor} adds nothing to standard accuracy that can be seen: {coefficient}; four of five such studies see "
        f"a true one of {visible:.2f}"
    )
