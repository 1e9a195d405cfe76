"""Cautions for readers of figures: where FMR measures something else than robustness.

To add one, add a branch to `_other_cautions`.
"""

from collections.abc import Iterator

from fmrgen.errors import option
from fmrgen.metrics.gradients import JudgedSteps, masking_caution
from fmrgen.metrics.intervals import Estimate, as_percent
from fmrgen.metrics.summary import Summary


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
    return ([] if masking is None else [masking]) + list(_other_cautions(summary))


def _other_cautions(summary: Summary) -> Iterator[str]:
    """Yield the cautions of a classifier that is not at chance, but for that of a masked gradient."""
    rate, standard, fmr = summary.validation_rate, summary.standard_accuracy, summary.fmr
    stuck = 0.0 if summary.stuck is None else summary.stuck.value
    by_budget = 0.0 if summary.by_budget is None else summary.by_budget.value
    if rate is not None and rate.value + stuck < 50:  # percent of rows; no oracle has looked at those that are stuck
        yield (
            f"only {as_percent(rate)} of the rows are valid: the oracle rejects the first step of most images; take a "
            f"smaller {option('perturb.step_size')}, another oracle, or a lower {option('perturb.min_probability')}"
        )
    if standard is not None and standard.value < 50:
        yield (
            f"SA is {as_percent(standard)}: are the classifier's weights loaded, and its classes in the order of the "
            "labels?"
        )
    if stuck > 0:
        yield (
            f"{as_percent(summary.stuck)} of the rows are stuck: no gradient reaches the latent, which is no sign of "
            "robustness; is something in classifier or generator not differentiable, or saturated?"
        )
    if by_budget > 20:  # percent of rows: as many might yet be fooled
        yield (
            f"{by_budget:.0f} % of the rows use up the budget: FMR then depends on the budget, not on the oracle; take "
            f"a larger {option('perturb.step_size')} or {option('perturb.budget')}; perturb.step_size=auto finds one"
        )
    if fmr is not None and fmr.value > 100:
        yield (
            f"FMR is {fmr.value:.1f}: the steps have not lowered the accuracy; they are too short, or SA counts rows "
            "that the oracle rejected"
        )
    if summary.has_converged is False:
        yield (
            f"FMR has not converged: each of the last two attacks lowered it by {summary.last_attacks_drop} points, "
            "and more would lower it further; take more attacks "
            f"({option('perturb.attacks=thorough', 'attacks=thorough')}) or more images, or report it as an upper bound"
        )
    if _is_far_below(summary.oracle_accuracy, standard):
        yield (
            f"the oracle is right on {as_percent(summary.oracle_accuracy)} of the originals, the classifier on "
            f"{as_percent(standard)}: the oracle's mistakes decide which rows are valid"
        )
    if _is_far_below(summary.reconstruction_accuracy, standard):
        yield (
            f"the classifier is right on {as_percent(summary.reconstruction_accuracy)} of the plain reconstructions "
            f"and on {as_percent(standard)} of the originals: the generator alone does that"
        )


def _is_far_below(accuracy: Estimate | None, other: Estimate | None) -> bool:
    """Return whether an accuracy is more than five points below another one, by more than chance."""
    if accuracy is None or other is None or accuracy.high is None or other.low is None:
        return False
    return other.value - accuracy.value > 5 and accuracy.high < other.low


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
    if weights >= 0.1:
        signs.append(f"{weights:.0%} of one's weights are in the other")
    if predictions is not None and predictions > 0.52:
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
