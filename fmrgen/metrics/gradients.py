"""Whether a classifier's gradient shows the way, by what its split has on record (Athalye et al. 2018).

It is *masked* if steps along it climb too seldom, or too many rows have none, so that FMR is no sign of robustness. It
is *rough* if they climb as seldom, but fool the network far more than random ones do: it is its own, and jumps. The
bounds are those of docs/results/masking.md.
"""

from typing import Literal

from fmrgen.errors import option
from fmrgen.metrics.intervals import Estimate, as_percent
from fmrgen.metrics.summary import Summary

JudgedSteps = Literal["none", "first", "all"]
"""Which of a split's steps show whether a gradient is masked, see `judged_steps`."""

_FEWEST_ROWS = 5  # valid ones: of an honest network one in ten does not climb at first
_FEWEST_FIRST_UP = 80.0  # percent: honest networks have 91 to 100, masked ones often about 50, as a coin has
_FEWEST_UP = 93.0  # percent of the steps to the boundary: honest networks have 95 to 100, masked ones 26 to 91
_MOST_STUCK = 2.0  # percent of the rows: honest networks have 0, those whose gradient vanishes near by 36 to 83
_BELOW_RANDOM = 10.0  # points of FMR
_LEAST_SLOPE = 0.5  # as a share of what the gradient says; its inverse is the largest


def judged_steps(*, is_guided: bool, reencodes: bool, objective: str, generator: str) -> JudgedSteps:
    """Return which steps of a split show whether its classifier's gradient is masked.

    All, as far as only the classifier decides whether they climb. The first alone if each one starts from a new
    encoding, if they lead to a class, or if the generator has kinks of its own, as `transform` has between pixels:
    honest networks have 60 to 93 % there. None if the first step is not along the gradient, or has noise (`is_guided`).
    The objective is that of the first attack.
    """
    if not is_guided:
        return "none"
    if reencodes or objective == "targeted" or generator == "transform":
        return "first"
    return "all"


def has_masked_gradient(summary: Summary, steps: JudgedSteps = "all") -> bool:
    """Return whether the gradient of a split's own classifier does not show the way.

    A step along a gradient raises the loss of nearly every image. A network can hide its gradient near its boundary
    alone: then the first step climbs and later ones do not, or there is no gradient to take them along.

    A gradient that fools the network far more than random steps do is `rough` instead. Without a control by random
    steps the two can't be told apart: that counts as masked too, and is worded as "may be".
    """
    return _vanishes(summary, steps) or (_climbs_seldom(summary, steps) and not has_rough_gradient(summary, steps))


def has_rough_gradient(summary: Summary, steps: JudgedSteps = "all") -> bool:
    """Return whether steps climbed as seldom as if masked, but guided steps fooled the network far more.

    So does a network that jumps: its gradient is its own and shows the way over several steps, not over each. Far is 10
    points of FMR or more below random steps, by an interval that lies below 0; masked networks have 0 in it.
    """
    less = summary.guided_less_random
    if less is None or less.high is None or _vanishes(summary, steps):
        return False
    return _climbs_seldom(summary, steps) and less.value <= -_BELOW_RANDOM and less.high < 0


def masking_caution(summary: Summary, steps: JudgedSteps = "all") -> str | None:
    """Return a line if steps along the gradient climb as if it was masked or rough; None otherwise."""
    if not _climbs_seldom(summary, steps):
        return None
    climbs = (
        f"the first step raised the loss in {as_percent(summary.first_steps_up)} of the valid rows, and "
        f"{as_percent(summary.steps_up)} of all steps to the boundary did"
    )
    if has_rough_gradient(summary, steps):
        return (
            f"{climbs}, which is seldom; but they fool the classifier far more than random ones (FMR differs by "
            f"{summary.guided_less_random} points). Its gradient is its own and rough, as of a network that jumps: FMR "
            f"counts, and a search without gradients ({option('perturb.update=nes', 'update=nes')}) may find more"
        )
    verdict = "is masked"
    if may_be_rough(summary):
        verdict = f"may be masked (no rows have a control by random steps, {option('perturb.control', 'control')})"
    return (
        f"{climbs}: along a gradient that shows the way these are 95 % or more, along a random one about 50 %. The "
        f"classifier's gradient {verdict}, so FMR is no sign of robustness (docs: Masked and rough gradients)"
    )


def may_be_rough(summary: Summary) -> bool:
    """Return whether a masked gradient may as well be a rough one: there is no control by random steps."""
    return summary.guided_less_random is None and not _vanishes(summary, "all")


def masked_because(summary: Summary) -> str:
    """Return in words why the gradient of a classifier counts as masked."""
    if _vanishes(summary, "all"):
        return f"no gradient reaches the latent in {as_percent(summary.stuck)} of the rows"
    if not _is_below(summary.first_steps_up, _FEWEST_FIRST_UP):
        return "its steps cease to show the way on the way to its boundary"
    reason = "the first step raises its loss hardly more often than a random step"
    if may_be_rough(summary):
        reason += ", and there is no control by random steps to tell"
    return reason


def _vanishes(summary: Summary, steps: JudgedSteps) -> bool:
    """Return whether too many rows ended because no gradient reached the latent."""
    stuck = summary.stuck
    return steps != "none" and stuck is not None and stuck.low is not None and stuck.low > _MOST_STUCK


def _climbs_seldom(summary: Summary, steps: JudgedSteps) -> bool:
    """Return whether first steps, or as far as they count all steps to the boundary, climbed too seldom."""
    if steps == "none" or summary.valid_rows < _FEWEST_ROWS:
        return False
    if _is_below(summary.first_steps_up, _FEWEST_FIRST_UP):
        return True
    return steps == "all" and _is_below(summary.steps_up, _FEWEST_UP)


def _is_below(share: Estimate | None, least: float) -> bool:
    """Return whether the whole interval of a share is below a bound."""
    return share is not None and share.high is not None and share.high < least


def slope_caution(slope: float | None, where: str = "on the images nearest the boundary") -> str | None:
    """Return a line if a classifier is not as steep as its gradient says; None if it is, or nobody looked.

    `slope` is that along the gradient, as a share of what the gradient says: near 1 for a gradient of the network's
    own. `where` says at which images it was measured.
    """
    if slope is None or _LEAST_SLOPE <= slope <= 1 / _LEAST_SLOPE:
        return None
    return (
        f"{where} the classifier changes by {slope:.2g} of what its gradient says: it is "
        "rounded, jumps, or hands over another gradient than its own, and looks more robust than it is (docs: Masked "
        "and rough gradients)"
    )
