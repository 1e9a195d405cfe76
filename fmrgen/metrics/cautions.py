"""Cautions for readers of figures: where FMR measures something else than robustness.

To add one, add a line to `CAUTIONS`.
"""

from collections.abc import Callable
from typing import NamedTuple

from fmrgen.errors import option
from fmrgen.metrics.gradients import JudgedSteps, masking_caution
from fmrgen.metrics.intervals import Estimate, as_percent
from fmrgen.metrics.summary import Summary

_MUCH_WORSE = 5.0  # points of accuracy
_FEW = 50.0  # percent of rows
_MANY_BY_BUDGET = 20.0  # percent of rows that end by the budget: as many might yet be fooled
_SHARED_WEIGHTS = 0.1  # share of one network's weights that lie in the other: see `kinship_caution`
_ALIKE_PREDICTIONS = 0.52  # correlation of both networks' probabilities of the wrong classes: likewise


class Caution(NamedTuple):
    """A reason to doubt a split's FMR, with what can be done about it."""

    field: str  # of `Summary`, without which nothing is known of it
    test: Callable[[Summary], bool]
    sentence: Callable[[Summary], str]


def cautions(summary: Summary, *, steps: JudgedSteps = "all") -> list[str]:
    """Return a line for each reason to doubt a split's FMR, with what can be done about it.

    A classifier at chance gets that one alone.
    """
    if summary.at_chance:
        return [
            f"SA is {as_percent(summary.standard_accuracy)}, hardly better than chance: are the classifier's weights "
            "loaded, and its classes in the order of the labels?"
        ]
    masking = masking_caution(summary, steps)
    lines = [] if masking is None else [masking]
    for caution in CAUTIONS:
        if getattr(summary, caution.field) is not None and caution.test(summary):
            lines.append(caution.sentence(summary))
    return lines


def _value(summary: Summary, field: str) -> float:
    """Return a figure; 0 if it is not known."""
    estimate: Estimate | None = getattr(summary, field)
    return 0.0 if estimate is None else estimate.value


def _is_far_below(accuracy: Estimate | None, other: Estimate | None) -> bool:
    """Return whether an accuracy is far below another one, by more than chance."""
    if accuracy is None or other is None or accuracy.high is None or other.low is None:
        return False
    return other.value - accuracy.value > _MUCH_WORSE and accuracy.high < other.low


CAUTIONS = (
    Caution(
        "validation_rate",
        # No oracle has looked at rows that are stuck.
        lambda summary: _value(summary, "validation_rate") + _value(summary, "stuck") < _FEW,
        lambda summary: (
            f"only {as_percent(summary.validation_rate)} of the rows are valid: the oracle rejects the first step of "
            f"most images; take a smaller {option('perturb.step_size')}, another oracle, or a lower "
            f"{option('perturb.min_probability')}"
        ),
    ),
    Caution(
        "standard_accuracy",
        lambda summary: _value(summary, "standard_accuracy") < _FEW,
        lambda summary: (
            f"SA is {as_percent(summary.standard_accuracy)}: are the classifier's weights loaded, and its classes in "
            "the order of the labels?"
        ),
    ),
    Caution(
        "stuck",
        lambda summary: _value(summary, "stuck") > 0,
        lambda summary: (
            f"{as_percent(summary.stuck)} of the rows are stuck: no gradient reaches the latent, which is no sign of "
            "robustness; is something in classifier or generator not differentiable, or saturated?"
        ),
    ),
    Caution(
        "by_budget",
        lambda summary: _value(summary, "by_budget") > _MANY_BY_BUDGET,
        lambda summary: (
            f"{_value(summary, 'by_budget'):.0f} % of the rows use up the budget: FMR then depends on the budget, not "
            f"on the oracle; take a larger {option('perturb.step_size')} or {option('perturb.budget')}; "
            "perturb.step_size=auto finds one"
        ),
    ),
    Caution(
        "fmr",
        lambda summary: _value(summary, "fmr") > 100,
        lambda summary: (
            f"FMR is {_value(summary, 'fmr'):.1f}: the steps have not lowered the accuracy; they are too short, or SA "
            "counts rows that the oracle rejected"
        ),
    ),
    Caution(
        "last_attacks_drop",
        lambda summary: summary.has_converged is False,
        lambda summary: (
            f"FMR has not converged: each of the last two attacks lowered it by {summary.last_attacks_drop} points, "
            "and more would lower it further; take more attacks "
            f"({option('perturb.attacks=thorough', 'attacks=thorough')}) or more images, or report it as an upper bound"
        ),
    ),
    Caution(
        "oracle_accuracy",
        lambda summary: _is_far_below(summary.oracle_accuracy, summary.standard_accuracy),
        lambda summary: (
            f"the oracle is right on {as_percent(summary.oracle_accuracy)} of the originals, the classifier on "
            f"{as_percent(summary.standard_accuracy)}: the oracle's mistakes decide which rows are valid"
        ),
    ),
    Caution(
        "reconstruction_accuracy",
        lambda summary: _is_far_below(summary.reconstruction_accuracy, summary.standard_accuracy),
        lambda summary: (
            f"the classifier is right on {as_percent(summary.reconstruction_accuracy)} of the plain reconstructions "
            f"and on {as_percent(summary.standard_accuracy)} of the originals: the generator alone does that"
        ),
    ),
)


def tightness(summary: Summary) -> str:
    """Return in words how tight an upper bound FMR is: whether more attacks would lower it."""
    if summary.first_attack_fmr is None:
        return "an upper bound (one attack)"
    drop = summary.last_attacks_drop
    if drop is None:
        return "converged: it can't be lower" if summary.has_converged else "an upper bound (two attacks)"
    lost = f"each of the last two attacks lowered it by {drop} points"
    if summary.has_converged:
        return f"converged: {lost}"
    return f"an upper bound, not converged: {lost}"


def kinship_caution(weights: float, predictions: float | None) -> str | None:
    """Return a line if classifier and oracle of a split are related, None if nothing shows it.

    `weights` is the share, from 0 to 1, of one's weights that lie in the other; `predictions` is the lower end of the
    correlation of both networks' probabilities of the wrong classes, None if it is not known.
    """
    signs = []
    if weights >= _SHARED_WEIGHTS:
        signs.append(f"{weights:.0%} of one's weights are in the other")
    if predictions is not None and predictions > _ALIKE_PREDICTIONS:
        signs.append(
            f"they weigh the wrong classes alike (a correlation of {predictions:.2f} or more; unrelated ones have .2 "
            "to .5)"
        )
    if not signs:
        return None
    return (
        f"classifier and oracle are related: {' and '.join(signs)}. They fail together, so FMR is too high; compare it "
        f"with FMR under another {option('oracle')}"
    )
