"""Does FMR predict accuracy on real shifts? Over networks that are dealt into *choose* and *confirm* beforehand.

On the recipes of training in *choose* that recipe of splits is chosen whose FMR goes best with accuracy on real shifts
where standard accuracy (SA) is equal; on those in *confirm* the question is put once. The unit is a recipe of training:
its figures are means over its trainings, and intervals resample recipes.

SA is read on so many digits, with an error: whatever else tells good networks from bad ones then seems to add to it.
So the correlation is shown too as it would be with SA's true value, by how far SA on two halves of the digits agrees.
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
    resampled,
    smallest_visible_by_choice,
    spearman,
)
from fmrgen.config import StrictConfig
from fmrgen.errors import UserError
from fmrgen.metrics.intervals import RESAMPLES, Estimate, format_coefficient
from fmrgen.metrics.rows import Rows
from fmrgen.records import StopReason
from fmrgen.results.evaluation import Evaluation
from fmrgen.results.steps import figures_of_run
from fmrgen.storage.shards import SplitFolder

SHIFT, EFFECTIVE, STANDARD, TRANSFER, ATTACKED = "real shift", "effective robustness", "SA", "transfer", "attacked"
_COLUMNS = (
    *("label", "valid", "iterations", "stop_reason", "original_prediction", "step_predictions", "step_objectives"),
    "step_oracle_probabilities",
)
HALVES = ("SA on every other digit", "SA on the others")
_LOGIT_SA = "logit of SA"
_FEWEST = 6  # recipes of training on each side
_FEWEST_VALID = 50  # rows, of an FMR
_MODERATE = 0.5  # a true partial correlation whose power is reported

Figures = Mapping[str, Mapping[str, float]]
"""Network → figure → value in percent."""


class ValidityPlan(StrictConfig):
    """What is to predict what, fixed before any figure is known.

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
        """All that have a split for each network."""
        return [*self.own, *self.checks]

    def candidates(self, parts: Sequence[str]) -> dict[str, tuple[str, int, float]]:
        """All recipes of splits of some parts by their names, today's default first: part, budget and threshold."""
        return {candidate(*of): of for of in product(parts, self.budgets, self.thresholds)}


def candidate(part: str, budget: int, threshold: float) -> str:
    """The name of FMR under a recipe of splits."""
    return f"FMR ({part}, {budget} steps, {threshold:g})"


def valid_rows(part: str, threshold: float) -> str:
    """The name of a split's share of valid rows."""
    return f"valid rows ({part}, {threshold:g})"


def first_steps(part: str) -> str:
    """The name of the share of first steps that raised the objective."""
    return f"first steps that rose ({part})"


def stuck_rows(part: str) -> str:
    """The name of the share of rows without a gradient."""
    return f"stuck rows ({part})"


@dataclass(frozen=True)
class Prediction:
    """How a predictor goes with a target over the recipes of training.

    Attributes:
        predictor, target: figures.
        recipes: of training.
        spearman: rank correlation.
        partial: the same where SA is equal; None of SA itself.
        less: by how much the partial correlation of the FMR in question is higher; None of itself, and of SA.
    """

    predictor: str
    target: str
    recipes: int
    spearman: Estimate
    partial: Estimate | None
    less: Estimate | None = None


@dataclass(frozen=True)
class Spread:
    """A figure over all networks: where it lies, and standard deviations between recipes and trainings of one."""

    figure: str
    least: float
    median: float
    most: float
    between_recipes: float
    between_trainings: float | None


@dataclass(frozen=True)
class Validity:
    """What became of the question.

    Attributes:
        verdict: in one sentence.
        reliability: of SA: how far it would agree with itself on as many other digits, a rank correlation.
        corrected: the partial correlation that was asked for, were SA known without error.
        chosen: the candidate that was chosen.
        default: today's recipe.
        choose, confirm: recipes of training.
        left_out: networks whose SA is too low.
        candidates: of each its partial correlation with the real shift on *choose*.
        dropped: candidates that a network has no figure of, or that are equal for all.
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
    """The figures of each network.

    Args:
        plan: says which recipes of splits.
        measured: the networks on fixed sets, one of which is called SA, on one split, and under an attack.
        own: part → network → the split made against it.

    Returns:
        Those of the plan, and what tells whether an FMR measured anything: of each part the first steps that raised the
        objective and the rows without a gradient, and the valid rows at each threshold, in percent of rows.
    """
    figures: dict[str, dict[str, float]] = {}
    for fixed in measured.fixed:
        figures.setdefault(fixed.classifier, {})[fixed.name] = fixed.accuracy.value
    for network, of in figures.items():
        answers = measured.predictions_of(STANDARD, network)
        right = answers["prediction"] == answers["label"]
        # Classes take turns: neighbouring pairs of turns are dealt.
        turn = answers["id"] // len(np.unique(answers["label"])) % 2
        of |= {name: 100 * float(right[turn == half].mean()) for half, name in enumerate(HALVES)}
    for result in measured.results:
        of = figures[result.classifier]
        for name, found in ((TRANSFER, result.total.fmr), (ATTACKED, result.total.attacked_accuracy)):
            if found is not None:
                of[name] = found.value
    for part in plan.parts:
        for network, folder in own[part].items():
            table = folder.read_columns(_COLUMNS)
            columns = {name: table[name].to_numpy() for name in table.column_names}
            of, rows = figures[network], Rows(columns, RESAMPLES)
            rose, stuck = rows.share_of_first_steps_up(), rows.share_stopped_by(StopReason.STUCK)
            of[first_steps(part)] = math.nan if rose is None else rose.value
            of[stuck_rows(part)] = math.nan if stuck is None else stuck.value
            for budget, threshold in product(plan.budgets, plan.thresholds):
                run = figures_of_run(columns, budget, threshold)
                if run is None:
                    raise UserError(f"{part}: the split of {network} keeps no steps")
                fmr = run.fmr if run.valid >= _FEWEST_VALID else None
                of[candidate(part, budget, threshold)] = math.nan if fmr is None else fmr
                of[valid_rows(part, threshold)] = 100 * run.valid / len(rows.label)
    return figures


def validity(plan: ValidityPlan, recipes: Mapping[str, str], families: Mapping[str, str], figures: Figures) -> Validity:
    """Puts the question of a plan.

    Args:
        plan: what predicts what.
        recipes: network → what it is a training of.
        families: recipe of training → what it is a variant of.
        figures: of each network: SA, the fixed sets, and every candidate of the plan.

    Returns:
        What was found.

    Raises:
        UserError: a figure is missing, or too few recipes of training are left.
    """
    kept = {name: of for name, of in figures.items() if of[STANDARD] >= plan.least_accuracy}
    groups = sorted({recipes[name] for name in kept})
    points = {group: _mean([kept[name] for name in kept if recipes[name] == group]) for group in groups}
    choose, confirm = (sorted(points.keys() & side) for side in deal(families, plan.seed))
    if min(len(choose), len(confirm)) < _FEWEST:
        raise UserError(f"validity: {len(groups)} recipes of training are left, and {2 * _FEWEST} are needed")
    candidates, dropped = _candidates_with_figures(plan, kept)
    for of in points.values():
        of[SHIFT] = float(np.mean([_logit(of[target]) for target in plan.targets]))
    chosen_on = [points[one] for one in choose]
    line = np.polyfit([of[_LOGIT_SA] for of in chosen_on], [of[SHIFT] for of in chosen_on], 1)
    for of in points.values():
        of[EFFECTIVE] = of[SHIFT] - float(np.polyval(line, of[_LOGIT_SA]))
    table = {name: np.array([of[name] for of in points.values()]) for name in next(iter(points.values()))}
    on = {"choose": np.isin(groups, choose), "confirm": np.isin(groups, confirm)}

    def prediction(
        predictor: str, target: str = SHIFT, side: str = "confirm", against: str | None = None
    ) -> Prediction:
        rows = on.get(side, np.ones(len(groups), dtype=bool))
        return _prediction({name: values[rows] for name, values in table.items()}, predictor, target, against)

    found = {name: _partial_of(table, name, SHIFT, on["choose"]) for name in candidates}
    recipes_of_splits = plan.candidates(plan.own)
    default, chosen = next(iter(recipes_of_splits)), max(found, key=lambda name: found[name])
    _, budget, threshold = recipes_of_splits[chosen]
    asked = prediction(chosen)
    halves = float(spearman(table[HALVES[0]], table[HALVES[1]]))
    reliability = 2 * halves / (1 + halves)  # Spearman and Brown: of both halves together
    x, y, given = (table[name][on["confirm"]] for name in (chosen, SHIFT, STANDARD))
    corrected = resampled(lambda of: partial_correlation(x[of], y[of], given[of], reliability), len(confirm))
    visible = smallest_visible_by_choice(len(choose), len(confirm), len(candidates))
    power = 100 * power_with_choice(len(choose), len(confirm), len(candidates), _MODERATE)
    others = dict.fromkeys((default, STANDARD, *plan.others))
    shown = list(dict.fromkeys((STANDARD, *plan.targets, default, chosen, *plan.others)))
    shown += [
        valid_rows(recipes_of_splits[name][0], recipes_of_splits[name][2]) for name in dict.fromkeys((default, chosen))
    ]
    shown += [name(part) for part in plan.parts for name in (first_steps, stuck_rows)]
    return Validity(
        verdict=_verdict(asked, corrected, reliability, visible),
        reliability=reliability,
        corrected=corrected,
        chosen=chosen,
        default=default,
        choose=choose,
        confirm=confirm,
        left_out=sorted(figures.keys() - kept.keys()),
        candidates=found,
        dropped=dropped,
        confirmed=[asked, *(prediction(name, against=chosen) for name in others if name != chosen)],
        by_target=[prediction(chosen, target) for target in (*plan.targets, EFFECTIVE)],
        checked=[
            prediction(name, against=chosen)
            for part in plan.parts
            if (name := candidate(part, budget, threshold)) != chosen and np.isfinite(table[name]).all()
        ],
        of_default=prediction(default, side="all"),
        spreads=[_spread(name, [of[name] for of in kept.values()], [recipes[one] for one in kept]) for name in shown],
        visible=visible,
        power=power,
        points={one: {name: value for name, value in of.items() if math.isfinite(value)} for one, of in points.items()},
    )


def _candidates_with_figures(plan: ValidityPlan, kept: Figures) -> tuple[list[str], list[str]]:
    """Those that every network has a figure of, and which differ; and the others.

    Raises UserError where today's default is among the others, or something else has no figure.
    """
    default, *_ = named = plan.candidates(plan.own)
    for name in (STANDARD, *plan.targets, *plan.others, default):
        if missing := [network for network, of in kept.items() if not math.isfinite(of.get(name, math.nan))]:
            raise UserError(f"validity: {missing[0]} has no figure for {name}; an FMR needs {_FEWEST_VALID} valid rows")
    values = {name: np.array([of[name] for of in kept.values()]) for name in named}
    found = [name for name in named if np.isfinite(values[name]).all() and np.ptp(values[name]) > 0]
    return found, [name for name in named if name not in found]


def deal(families: Mapping[str, str], seed: int) -> tuple[list[str], list[str]]:
    """Recipes of training in two halves, by nothing but their names; of each family as many in one as in the other."""

    def by_chance(name: str) -> tuple[str, bytes]:
        return families[name], hashlib.sha256(f"{seed}:{name}".encode()).digest()

    order = sorted(families, key=by_chance)
    return sorted(order[::2]), sorted(order[1::2])


def _mean(of_trainings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    found = {name: float(np.mean([of[name] for of in of_trainings])) for name in of_trainings[0]}
    return {**found, _LOGIT_SA: _logit(found[STANDARD])}


def _logit(percent: float) -> float:
    share = min(max(percent / 100, 0.001), 0.999)
    return float(np.log(share / (1 - share)))


def _prediction(table: Mapping[str, np.ndarray], predictor: str, target: str, against: str | None) -> Prediction:
    count = len(table[predictor])
    x, y, given = table[predictor], table[target], table[STANDARD]
    of_ranks = resampled(lambda of: spearman(x[of], y[of]), count)
    if predictor == STANDARD or target == EFFECTIVE:  # from which SA is taken out already
        return Prediction(predictor, target, count, of_ranks, None)

    def partial(of: np.ndarray) -> np.ndarray:
        return partial_correlation(x[of], y[of], given[of])

    less = None
    if against is not None:
        other = table[against]
        less = resampled(lambda of: partial_correlation(other[of], y[of], given[of]) - partial(of), count)
    return Prediction(predictor, target, count, of_ranks, resampled(partial, count), less)


def _partial_of(table: Mapping[str, np.ndarray], predictor: str, target: str, rows: np.ndarray) -> float:
    return float(partial_correlation(table[predictor][rows], table[target][rows], table[STANDARD][rows]))


def _verdict(asked: Prediction, corrected: Estimate, reliability: float, visible: float) -> str:
    found = asked.partial
    if found is None:
        raise ValueError("SA predicts nothing where SA is equal")
    said = f"rank correlation {format_coefficient(found)} over {asked.recipes} recipes"
    exact = f"{format_coefficient(corrected)} were SA, of reliability {reliability:.2f}, exact"
    if _is_above(found) and _is_above(corrected):
        return f"FMR predicts accuracy on real shifts beyond standard accuracy: {said}, {exact}"
    if _is_above(found):
        return f"FMR may be no more than standard accuracy read once more: {said}, but {exact}"
    if _is_below(found):
        return f"FMR predicts accuracy on real shifts the wrong way round where standard accuracy is equal: {said}"
    return (
        f"FMR adds nothing to standard accuracy that can be seen: {said}; with the choice counted, four of five such "
        "studies see a true one of "
        f"{visible:.2f}"
    )


def _is_above(found: Estimate) -> bool:
    return found.low is not None and found.low > 0


def _is_below(found: Estimate) -> bool:
    return found.high is not None and found.high < 0


def _spread(figure: str, values: Sequence[float], groups: Sequence[str]) -> Spread:
    known = [(value, of) for value, of in zip(values, groups, strict=True) if math.isfinite(value)]
    values = [value for value, _ in known]
    each = [np.array([value for value, of in known if of == group]) for group in sorted({of for _, of in known})]
    several = [of for of in each if len(of) > 1]
    within = np.sqrt(np.mean([of.var(ddof=1) for of in several])) if several else None
    return Spread(
        figure,
        float(min(values)),
        float(np.median(values)),
        float(max(values)),
        float(np.std([of.mean() for of in each], ddof=1)),
        None if within is None else float(within),
    )
