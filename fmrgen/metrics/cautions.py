"""Cautions for readers of figures: where FMR measures something else than robustness."""

import numpy as np

from fmrgen.errors import option
from fmrgen.metrics.gradients import JudgedSteps, has_masked_gradient, masking_caution
from fmrgen.metrics.intervals import Estimate, as_percent, wilson
from fmrgen.metrics.summary import Summary

_MUCH_WORSE = 5.0  # points of accuracy
_FEW = 50.0  # percent of rows
_MANY_BY_BUDGET = 20.0  # percent of rows that end by the budget: as many might yet be fooled
_KIN = 20.0  # times as often: see `falls_as_kin`
_STEPS_OF_KIN = 3.0  # guided steps of a row on average, below which kinship can't be seen
SHARED_WEIGHTS = 0.1  # share of one network's weights that lie in the other: see `kinship_caution`
ALIKE_ANSWERS = 0.52  # correlation of both networks' probabilities of the wrong classes: likewise
_CHANCE_REACHES = 0.1  # of the way from guessing to being always right: see `is_at_chance`
_FEWEST_REORDERED = 10  # rows that must be right in another order of the classes


def cautions(summary: Summary, *, steps: JudgedSteps = "all") -> list[str]:
    """Return a line for each reason to doubt a split's FMR, with what can be done about it.

    Args:
        summary: of the split.
        steps: that show whether the gradient is masked, see `judged_steps`.
    """
    lines: list[str | None] = []
    if steps != "none":
        lines += [masking_caution(summary, steps), _falls_caution(summary)]
    lines += [
        _validation_caution(summary),
        _accuracy_caution(summary),
        _stuck_caution(summary),
        _budget_caution(summary),
        _fmr_caution(summary),
        _convergence_caution(summary),
        _oracle_caution(summary),
        _reconstruction_caution(summary),
    ]
    return [line for line in lines if line is not None]


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


def _convergence_caution(summary: Summary) -> str | None:
    if summary.has_converged is not False:
        return None
    return (
        f"FMR has not converged: each of the last two attacks lowered it by {summary.last_attacks_drop} points, and "
        f"more would lower it further; take more attacks ({option('perturb.attacks=thorough', 'attacks=thorough')}) or "
        "more images, or report it as an upper bound"
    )


def _falls_caution(summary: Summary) -> str | None:
    if not falls_as_kin(summary):
        return None
    return (
        f"the classifier fails {_times(summary.falls_with_oracle)} as often at the step that the oracle rejects as "
        "at another: the two are related, so FMR is too high; compare it with FMR under another "
        f"{option('oracle')}"
    )


def _validation_caution(summary: Summary) -> str | None:
    stuck = 0.0 if summary.stuck is None else summary.stuck.value  # no oracle has looked at these rows
    if summary.validation_rate is None or summary.validation_rate.value + stuck >= _FEW:
        return None
    return (
        f"only {summary.validation_rate.value:.1f} % of the rows are valid: the oracle rejects the first step of "
        f"most images; take a smaller {option('perturb.step_size')}, another oracle, or a lower "
        f"{option('perturb.min_probability')}"
    )


def _accuracy_caution(summary: Summary) -> str | None:
    if summary.standard_accuracy is None or summary.standard_accuracy.value >= _FEW:
        return None
    return (
        f"SA is {summary.standard_accuracy.value:.1f} %: are the classifier's weights loaded, and its classes in "
        "the order of the labels?"
    )


def _stuck_caution(summary: Summary) -> str | None:
    if summary.stuck is None or not summary.stuck.value:
        return None
    return (
        f"{summary.stuck.value:.1f} % of the rows are stuck: no gradient reaches the latent, which is no sign of "
        "robustness; is something in classifier or generator not differentiable, or saturated?"
    )


def _budget_caution(summary: Summary) -> str | None:
    if summary.by_budget is None or summary.by_budget.value <= _MANY_BY_BUDGET:
        return None
    return (
        f"{summary.by_budget.value:.0f} % of the rows use up the budget: FMR then depends on the budget, not "
        f"on the oracle; take a larger {option('perturb.step_size')} or {option('perturb.budget')}; "
        "perturb.step_size=auto finds one"
    )


def _fmr_caution(summary: Summary) -> str | None:
    if summary.fmr is None or summary.fmr.value <= 100:
        return None
    causes = "they are too short, or SA counts rows that the oracle rejected (see FMR valid)"
    if summary.mean_iterations and summary.mean_iterations.value < _STEPS_OF_KIN:
        # So few steps end at the oracle's first rejection, where a relative of it falls too and no image stays.
        causes += (
            f"; with so few steps ({summary.mean_iterations.value:.1f} a row) another cause is kinship: a "
            f"classifier that is related to the oracle fails only where the oracle rejects, so try another "
            f"{option('oracle')}"
        )
    return f"FMR is {summary.fmr.value:.1f}: the steps have not lowered the accuracy; {causes}"


def _oracle_caution(summary: Summary) -> str | None:
    if not _is_far_below(summary.oracle_accuracy, summary.standard_accuracy):
        return None
    return (
        f"the oracle is right on {as_percent(summary.oracle_accuracy)} of the originals, the classifier on "
        f"{as_percent(summary.standard_accuracy)}: the oracle's mistakes decide which rows are valid (see FMR known)"
    )


def _reconstruction_caution(summary: Summary) -> str | None:
    if not _is_far_below(summary.reconstruction_accuracy, summary.standard_accuracy):
        return None
    return (
        f"the classifier is right on {as_percent(summary.reconstruction_accuracy)} of the plain reconstructions and on "
        f"{as_percent(summary.standard_accuracy)} of the originals: the generator alone does that (see PA / recon.)"
    )


def kinship_caution(weights: float, answers: float | None) -> str | None:
    """Return a line if classifier and oracle of a split are related, None if nothing shows it.

    Args:
        weights: the share, from 0 to 1, of one's weights that lie in the other.
        answers: the lower end of the correlation of both networks' probabilities of the wrong classes; None if it is
            not known.
    """
    signs = []
    if weights >= SHARED_WEIGHTS:
        signs.append(f"{weights:.0%} of one's weights are in the other")
    if answers is not None and answers > ALIKE_ANSWERS:
        signs.append(
            f"they weigh the wrong classes alike (a correlation of {answers:.2f} or more; unrelated ones have .2 to .5)"
        )
    if not signs:
        return None
    return (
        f"classifier and oracle are related: {' and '.join(signs)}. They fail together, so FMR is too high; compare it "
        f"with FMR under another {option('oracle')}"
    )


def _is_far_below(accuracy: Estimate | None, other: Estimate | None) -> bool:
    """Return whether an accuracy is far below another one, by more than chance."""
    if accuracy is None or other is None or accuracy.high is None or other.low is None:
        return False
    return other.value - accuracy.value > _MUCH_WORSE and accuracy.high < other.low


def _times(estimate: Estimate | None) -> str:
    return "n/a" if estimate is None else f"{estimate.value:.0f} times"


def is_at_chance(label: np.ndarray, prediction: np.ndarray, classes: int) -> bool:
    """Return whether predictions match labels hardly better than guesses do, so that figures made of them mean nothing.

    Guesses name each class equally often, or as often as the predictions do: a network that always gives the
    commonest class is at chance too. Untrained networks are right a little more often than guesses (of 30 LeNets with
    random weights, on up to 17 % of ten digits), so twice as often is still chance, as far as that is at most a tenth
    of the way to being always right.

    Args:
        label: [N].
        prediction: [N], -1 for none.
        classes: number of classes.

    Returns:
        Whether the lower end of the accuracy's 95 % interval is not above chance; False if all labels are one, which
        no guess can miss.
    """
    labels = np.bincount(label, minlength=classes) / len(label)
    if (labels > 0).sum() < 2:
        return False
    predictions = np.bincount(prediction[prediction >= 0], minlength=classes) / len(label)
    guessing = max(1 / classes, float(labels @ predictions[:classes]))
    return wilson(float((label == prediction).sum()), len(label))[0] <= _most_by_chance(guessing)


def falls_as_kin(summary: Summary) -> bool:
    """Return whether the classifier falls with its oracle as only kin does: over twenty times as often as elsewhere.

    What breaks an image for one breaks it for the other too, and the ratio is the larger the less a network falls
    otherwise: on MNIST unrelated ones have 5 (FMR 53) to 15 (FMR 97), and one that the oracle is a part of 39. It means
    nothing if the gradient is masked, for nothing falls then at another step, nor if steps are so long that there is
    hardly another: at ten times the step, of 1.3 and 1.5 a row, two unrelated LeNets have 23 and 34.
    """
    times, steps = summary.falls_with_oracle, summary.mean_iterations
    if steps is not None and steps.value < _STEPS_OF_KIN:
        return False
    return times is not None and times.low is not None and times.low > _KIN and not has_masked_gradient(summary)


def _most_by_chance(guessing: float) -> float:
    """Return the accuracy, in percent, up to which a network is at chance if guesses are right so often (0 to 1)."""
    return 100 * (guessing + min(guessing, _CHANCE_REACHES * (1 - guessing)))


def outputs_in_another_order(label: np.ndarray, prediction: np.ndarray, classes: int) -> bool:
    """Return whether predictions fit the labels well, but only after the classes are put in another order.

    The best order for half of the rows is tried on the others, so that chance can't make one. It must be right more
    often than not there, and more than twice as often as the present order.

    Args:
        label: [N].
        prediction: [N], -1 for none.
        classes: number of classes.
    """
    # Not every other row: if classes take turns, one half would lack half of the classes.
    trial = np.random.default_rng(0).random(len(label)) < 0.5
    order = best_order(label[~trial], prediction[~trial], classes)
    is_class = (prediction >= 0) & (prediction < classes)
    reordered = np.append(order, -1)[np.where(is_class, prediction, -1)]
    hits, reordered_hits = (prediction == label)[trial].sum(), (reordered == label)[trial].sum()
    return bool(reordered_hits >= _FEWEST_REORDERED and reordered_hits > trial.sum() / 2 and reordered_hits > 2 * hits)


def best_order(label: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Return the class that each output would have to stand for, [K]: the commonest pairs first, each class once.

    Args:
        label: [N].
        prediction: [N], -1 for none.
        classes: number of classes.
    """
    is_class = (prediction >= 0) & (prediction < classes)
    pairs, counts = np.unique(prediction[is_class].astype(np.int64) * classes + label[is_class], return_counts=True)
    order = np.full(classes, -1)
    is_taken = np.zeros(classes, dtype=bool)
    for output, stands_for in zip(*divmod(pairs[np.argsort(-counts, kind="stable")], classes), strict=True):
        if order[output] < 0 and not is_taken[stands_for]:
            order[output] = stands_for
            is_taken[stands_for] = True
    order[order < 0] = np.flatnonzero(~is_taken)
    return order
