"""Does FMR predict accuracy on real shifts? Over networks that are dealt into *choose* and *confirm* beforehand.

On the recipes of training in *choose*, that recipe of splits is chosen whose FMR correlates best with accuracy on real
shifts where standard accuracy (SA) is equal; on those in *confirm* the question is put once. The unit is a recipe of
training: its figures are means over its trainings, and intervals resample recipes.

SA is measured on so many digits, with an error: any other figure that tells good networks from bad ones then seems to
add to it. So the correlation is also shown as it would be with SA's true value, by how far SA on two halves of the
digits agrees.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from pydantic import Field

from fmrgen.apps.studies.partial_correlation import (
    partial_correlation,
    power_with_choice,
    smallest_visible_by_choice,
)
from fmrgen.apps.studies.parts import TRANSFER
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
from fmrgen.metrics.summary import summarise
from fmrgen.results.evaluation import Evaluation
from fmrgen.results.steps import figures_of_run
from fmrgen.storage.shards import SplitFolder

_COLUMNS = (
    *("label", "valid", "iterations", "stop_reason", "prediction", "original_prediction"),
    *("step_predictions", "step_objectives", "step_oracle_probabilities"),
)
_FEWEST = 6  # recipes of training on each side
_FEWEST_VALID = 50  # rows, of an FMR
_MODERATE = 0.5  # a true partial correlation whose power is reported


class ValidityPlan(StrictConfig):
    """The predictors and targets, fixed before any figure is known.

    A candidate is a recipe of splits: a part of `own`, a budget and a threshold, `PART, BUDGET steps, THRESHOLD`. The
    first of each list is today's default.
    """

    own: list[str] = Field(min_length=1, description="parts with a split for each network, among which is chosen")
    checks: list[str] = Field([], description="the same under another oracle: a verdict should not depend on it")
    budgets: list[int] = Field(min_length=1)
    thresholds: list[float] = Field(min_length=1, description="least probabilities of the oracle")
    targets: list[str] = Field(min_length=1, description="fixed sets of real shifts")
    others: list[str] = Field([], description="other predictors: fixed sets, `attacked`, `transfer`")
    least_accuracy: float = Field(80.0, description="SA in percent; networks below it take no part")
    seed: int = Field(0, ge=0, description="of the deal")

    @property
    def parts(self) -> list[str]:
        """Return all parts that have a split for each network."""
        return [*self.own, *self.checks]

    def candidates(self, parts: Sequence[str]) -> dict[str, tuple[str, int, float]]:
        """Return part, budget and threshold of each recipe of splits, by its name, today's default first."""
        return {candidate(*recipe): recipe for recipe in product(parts, self.budgets, self.thresholds)}


def candidate(part: str, budget: int, threshold: float) -> str:
    """Return the name of FMR under a recipe of splits.

    Args:
        part: that makes the splits.
        budget: of steps.
        threshold: least probability of the oracle.
    """
    return f"FMR ({part}, {budget} steps, {threshold:g})"


def valid_rows(part: str, threshold: float) -> str:
    """Return the name of a split's share of valid rows."""
    return f"valid rows ({part}, {threshold:g})"


def first_steps(part: str) -> str:
    """Return the name of the share of first steps that raised the objective."""
    return f"first steps that rose ({part})"


def stuck_rows(part: str) -> str:
    """Return the name of the share of rows without a gradient."""
    return f"stuck rows ({part})"


@dataclass(frozen=True)
class Validity:
    """The answer to the question.

    Attributes:
        verdict: in one sentence.
        reliability: of SA: the rank correlation that it would have with itself on as many other digits.
        corrected: the partial correlation of the chosen FMR, were SA known without error.
        chosen: the candidate that was chosen.
        default: today's recipe.
        choose, confirm: the recipes of training on each side.
        left_out: networks whose SA is too low.
        candidates: the partial correlation of each with the real shift on *choose*.
        dropped: candidates for which a network has no figure, or which are equal for all.
        confirmed: on *confirm*, the chosen FMR first, and each other predictor with the difference to it.
        by_target: the chosen FMR on *confirm* with each target.
        checked: on *confirm*, FMR with the same budget and threshold under the other parts.
        of_default: today's recipe over all recipes of training, which nothing was chosen on.
        spreads: of every figure.
        visible: the true partial correlation of the best candidate that 80 % of such studies show, where the others
            have 0.1; the choice among candidates is counted.
        power: the share of such studies, in percent, that show a true one of 0.5.
        points: figures of each recipe of training, means over its trainings.
    """

    verdict: str
    reliability: float
    corrected: Estimate
    chosen: str
    default: str
    choose: list[str]
    confirm: list[str]
    left_out: list[str]
    candidates: dict[str, float]
    dropped: list[str]
    confirmed: list[Prediction]
    by_target: list[Prediction]
    checked: list[Prediction]
    of_default: Prediction
    spreads: list[Spread]
    visible: float
    power: float
    points: dict[str, dict[str, float]]


def figures_of(
    plan: ValidityPlan, measured: Evaluation, own: Mapping[str, Mapping[str, SplitFolder]]
) -> dict[str, dict[str, float]]:
    """Return the figures of each network.

    Args:
        plan: names the recipes of splits.
        measured: the networks on fixed sets, one of which is called SA, on one split, and under an attack.
        own: part → network → the split made against it.

    Returns:
        The figures of the plan, and those that show whether an FMR measured anything: for each part the first steps
        that raised the objective and the rows without a gradient, and the valid rows at each threshold, in percent of
        rows.
    """
    figures: dict[str, dict[str, float]] = {}
    for fixed in measured.fixed:
        figures.setdefault(fixed.classifier, {})[fixed.name] = fixed.accuracy.value
    for network, values in figures.items():
        values |= accuracy_on_halves(measured.predictions_of(STANDARD, network))
    for result in measured.results:
        for name, estimate in ((TRANSFER, result.total.fmr), (ATTACKED, result.total.attacked_accuracy)):
            if estimate is not None:
                figures[result.classifier][name] = estimate.value
    for part in plan.parts:
        for network, folder in own[part].items():
            figures[network] |= _figures_of_split(plan, part, network, folder)
    return figures


def _figures_of_split(plan: ValidityPlan, part: str, network: str, folder: SplitFolder) -> dict[str, float]:
    """Return the figures of the split that a part made against a network; NaN for one without enough rows."""
    table = folder.read_columns(_COLUMNS)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    summary = summarise(columns)
    figures = {
        first_steps(part): _value_or_nan(summary.first_steps_up),
        stuck_rows(part): _value_or_nan(summary.stuck),
    }
    for budget, threshold in product(plan.budgets, plan.thresholds):
        run = figures_of_run(columns, budget, threshold)
        if run is None:
            raise UserError(f"{part}: the split of {network} keeps no steps")
        fmr = math.nan
        if run.fmr is not None and run.valid >= _FEWEST_VALID:
            fmr = run.fmr
        figures[candidate(part, budget, threshold)] = fmr
        figures[valid_rows(part, threshold)] = 100 * run.valid / summary.rows
    return figures


def _value_or_nan(estimate: Estimate | None) -> float:
    return math.nan if estimate is None else estimate.value


def validity(plan: ValidityPlan, recipes: Mapping[str, str], families: Mapping[str, str], figures: Figures) -> Validity:
    """Answer the question of a plan.

    Args:
        plan: the predictors and targets.
        recipes: network → the recipe that it is a training of.
        families: recipe of training → the family that it is a variant of.
        figures: of each network: SA, the fixed sets, and every candidate of the plan.

    Returns:
        The answer, with all correlations.

    Raises:
        UserError: a figure is missing, or too few recipes of training are left.
    """
    eligible = {name: values for name, values in figures.items() if values[STANDARD] >= plan.least_accuracy}
    points = means_by_recipe(eligible, recipes)
    first_side, second_side = deal(families, plan.seed)
    choose, confirm = sorted(points.keys() & first_side), sorted(points.keys() & second_side)
    if min(len(choose), len(confirm)) < _FEWEST:
        raise UserError(f"validity: {len(points)} recipes of training are left, and {2 * _FEWEST} are needed")
    candidates, dropped = _candidates_with_figures(plan, eligible)
    add_shifts(plan.targets, points, choose)
    table = table_of(points, list(points))
    choosing, confirming = table_of(points, choose), table_of(points, confirm)
    correlations = {}  # of each candidate on *choose*
    for name in candidates:
        correlations[name] = float(partial_correlation(choosing[name], choosing[SHIFT], choosing[STANDARD]))
    split_recipes = plan.candidates(plan.own)
    default, chosen = next(iter(split_recipes)), max(correlations, key=lambda name: correlations[name])
    confirmed = [prediction_of(confirming, chosen)]
    for name in dict.fromkeys((default, STANDARD, *plan.others)):
        if name != chosen:
            confirmed.append(prediction_of(confirming, name, against=chosen))
    checked = []
    _, budget, threshold = split_recipes[chosen]
    for part in plan.parts:
        name = candidate(part, budget, threshold)
        if name != chosen and np.isfinite(table[name]).all():
            checked.append(prediction_of(confirming, name, against=chosen))
    by_target = []
    for target in (*plan.targets, EFFECTIVE):
        by_target.append(prediction_of(confirming, chosen, target))
    reliability = reliability_of_sa(table)
    corrected = partial_given_sa(confirming, chosen, SHIFT, reliability)
    visible = smallest_visible_by_choice(len(choose), len(confirm), len(candidates))
    return Validity(
        verdict=_verdict(confirmed[0], corrected, reliability, visible),
        reliability=reliability,
        corrected=corrected,
        chosen=chosen,
        default=default,
        choose=choose,
        confirm=confirm,
        left_out=sorted(figures.keys() - eligible.keys()),
        candidates=correlations,
        dropped=dropped,
        confirmed=confirmed,
        by_target=by_target,
        checked=checked,
        of_default=prediction_of(table, default),
        spreads=[spread_of(name, eligible, recipes) for name in _names_of_spreads(plan, default, chosen)],
        visible=visible,
        power=100 * power_with_choice(len(choose), len(confirm), len(candidates), _MODERATE),
        points={recipe: finite(values) for recipe, values in points.items()},
    )


def _candidates_with_figures(plan: ValidityPlan, figures: Figures) -> tuple[list[str], list[str]]:
    """Return the candidates for which every network has a figure, and which differ; and the other candidates.

    Raises UserError if today's default is among the others, or any other figure of the plan is missing.
    """
    names = list(plan.candidates(plan.own))
    for name in (STANDARD, *plan.targets, *plan.others, names[0]):
        for network, values in figures.items():
            if not math.isfinite(values.get(name, math.nan)):
                raise UserError(
                    f"validity: {network} has no figure for {name}; an FMR needs {_FEWEST_VALID} valid rows"
                )
    usable, dropped = [], []
    for name in names:
        column = np.array([values[name] for values in figures.values()])
        if np.isfinite(column).all() and np.ptp(column) > 0:
            usable.append(name)
        else:
            dropped.append(name)
    return usable, dropped


def _names_of_spreads(plan: ValidityPlan, default: str, chosen: str) -> list[str]:
    names = list(dict.fromkeys((STANDARD, *plan.targets, default, chosen, *plan.others)))
    split_recipes = plan.candidates(plan.own)
    for name in dict.fromkeys((default, chosen)):
        part, _, threshold = split_recipes[name]
        names.append(valid_rows(part, threshold))
    for part in plan.parts:
        names += [first_steps(part), stuck_rows(part)]
    return names


def deal(families: Mapping[str, str], seed: int) -> tuple[list[str], list[str]]:
    """Deal recipes of training into two halves by their names alone; each family is split evenly."""

    def by_chance(name: str) -> tuple[str, bytes]:
        return families[name], hashlib.sha256(f"{seed}:{name}".encode()).digest()

    order = sorted(families, key=by_chance)
    return sorted(order[::2]), sorted(order[1::2])


def _verdict(main: Prediction, corrected: Estimate, reliability: float, visible: float) -> str:
    partial = main.partial
    if partial is None:
        raise ValueError("SA predicts nothing where SA is equal")
    coefficient = f"rank correlation {format_coefficient(partial)} over {main.recipes} recipes"
    exact = f"{format_coefficient(corrected)} were SA, of reliability {reliability:.2f}, exact"
    if is_above_zero(partial) and is_above_zero(corrected):
        return f"FMR predicts accuracy on real shifts beyond standard accuracy: {coefficient}, {exact}"
    if is_above_zero(partial):
        return f"FMR may be no more than standard accuracy read once more: {coefficient}, but {exact}"
    if partial.high is not None and partial.high < 0:
        return (
            f"FMR predicts accuracy on real shifts the wrong way round where standard accuracy is equal: {coefficient}"
        )
    return (
        f"FMR adds nothing to standard accuracy that can be seen: {coefficient}; with the choice counted, four of five "
        f"such studies see a true one of {visible:.2f}"
    )
