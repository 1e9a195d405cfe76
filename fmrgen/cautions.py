"""What a reader of figures must be warned of: where FMR is a figure about something else than robustness."""

from fmrgen.errors import option
from fmrgen.intervals import Estimate
from fmrgen.metrics import Summary, has_masked_gradient

_MUCH = 5.0  # points of accuracy
_FEW = 50.0  # percent of rows
_BUDGETS = 20.0  # percent of rows that end by the budget: as many might yet be fooled


def cautions(summary: Summary, *, oracle_is_known: bool = False, guided: bool = True) -> list[str]:
    """A line for each thing in a split's figures that makes FMR doubtful, with what can be done.

    `oracle_is_known` leaves out that the oracle knows fewer originals than the classifier, where that was said before.
    `guided` is False where the first step is not along the gradient, as of the random control.
    """
    found = []
    if guided and has_masked_gradient(summary):
        found.append(
            f"the first step raised the loss in {_of(summary.first_steps_up)} of the valid rows: along a gradient that "
            "shows the way it does in nearly all, in a direction of chance in half. The classifier's gradient is "
            "masked, and FMR no sign of robustness (docs: evaluation, Gradient masking)"
        )
    stuck = 0.0 if summary.stuck is None else summary.stuck.value  # which no oracle has looked at
    if summary.validation_rate and summary.validation_rate.value + stuck < _FEW:
        found.append(
            f"only {summary.validation_rate.value:.1f} % of the rows are valid: the oracle rejects the first step of "
            f"most images; take a smaller {option('perturb.step_size')}, another oracle, or a lower "
            f"{option('perturb.min_probability')}"
        )
    if summary.standard_accuracy and summary.standard_accuracy.value < _FEW:
        found.append(
            f"SA is {summary.standard_accuracy.value:.1f} %: are the classifier's weights loaded, and its classes in "
            "the order of the labels?"
        )
    if summary.stuck and stuck:
        found.append(
            f"{summary.stuck.value:.1f} % of the rows are stuck: no gradient reaches the latent, which is no sign of "
            "robustness; is something in classifier or generator not differentiable, or saturated?"
        )
    if summary.by_budget and summary.by_budget.value > _BUDGETS:
        found.append(
            f"{summary.by_budget.value:.0f} % of the rows end by the budget: FMR then depends on the budget, not "
            f"on the oracle; take a larger {option('perturb.step_size')} or {option('perturb.budget')} (fmrgen inspect "
            "proposes one)"
        )
    if summary.fmr and summary.fmr.value > 100:
        found.append(
            f"FMR is {summary.fmr.value:.1f}: the steps have not lowered the accuracy; they are too short, or SA "
            "counts rows that the oracle rejected (see FMR valid)"
        )
    if not oracle_is_known and _is_far_below(summary.oracle_accuracy, summary.standard_accuracy):
        found.append(
            f"the oracle is right on {_of(summary.oracle_accuracy)} of the originals, the classifier on "
            f"{_of(summary.standard_accuracy)}: its mistakes decide which rows are valid (see FMR known)"
        )
    if _is_far_below(summary.reconstruction_accuracy, summary.standard_accuracy):
        found.append(
            f"the classifier is right on {_of(summary.reconstruction_accuracy)} of the plain reconstructions and on "
            f"{_of(summary.standard_accuracy)} of the originals: the generator alone does that (see PA / recon.)"
        )
    return found


def _is_far_below(one: Estimate | None, other: Estimate | None) -> bool:
    """Whether it is so by more than chance."""
    if one is None or other is None or one.high is None or other.low is None:
        return False
    return other.value - one.value > _MUCH and one.high < other.low


def _of(estimate: Estimate | None) -> str:
    return "n/a" if estimate is None else f"{estimate.value:.1f} %"
