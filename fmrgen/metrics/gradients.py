"""Whether a classifier's gradient shows the way, by what its split has on record (Athalye et al. 2018).

It is *masked* if steps along it climb too seldom, so that FMR is no sign of robustness. It is *rough* if they climb as
seldom at the start, but fool the network far more than random ones do: it is its own, and jumps. The bounds are those
of docs/results/masking.md.
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
_FEWEST_NEAR_UP = 80.0  # percent of those near it: honest networks have 93 to 100
_MOST_REGAINED = 2.0  # points of FMR, by rows that were fooled on the way and not at the end: 0 for an honest network
_BELOW_RANDOM = 10.0  # points of FMR
_HALF = 50.0  # percent, which a coin gives
_LEAST_SLOPE = 0.5  # as a share of what the gradient says; its inverse is the largest


def judged_steps(*, is_guided: bool, reencodes: bool, objective: str, generator: str) -> JudgedSteps:
    """Return which steps of a split show whether its classifier's gradient is masked.

    All, as far as only the classifier decides whether they climb. The first alone if each one starts from a new
    encoding, if they lead to a class, or if the generator has kinks of its own, as `transform` has between pixels:
    honest networks have 60 to 93 % there. None if the first step is not along the gradient.

    Args:
        is_guided: whether the first step is along the gradient, without noise.
        reencodes: whether images are encoded anew before each step.
        objective: that the first attack climbs.
        generator: kind of the generator.
    """
    if not is_guided:
        return "none"
    if reencodes or objective == "targeted" or generator == "transform":
        return "first"
    return "all"


def has_masked_gradient(summary: Summary, steps: JudgedSteps = "all") -> bool:
    """Return whether the gradient of a split's own classifier does not show the way.

    A step along a gradient raises the loss of nearly every image, and as many steps climb higher than random ones. A
    network can hide its gradient near its boundary alone: then the first step climbs and later ones do not, or rows
    that some image fooled end in one that does not.

    A gradient that fools the network far more than random steps do is `rough` instead. Without a control by random
    steps the two can't be told apart: that counts as masked too, and is worded as "may be".

    Args:
        summary: of the split.
        steps: that count, see `judged_steps`.
    """
    if steps == "none" or summary.valid_rows < _FEWEST_ROWS:
        return False
    if _climbs_seldom_at_first(summary):
        return not has_rough_gradient(summary, steps)
    return steps == "all" and _is_masked_on_the_way(summary)


def has_rough_gradient(summary: Summary, steps: JudgedSteps = "all") -> bool:
    """Return whether first steps climbed as seldom as if masked, but guided steps fooled the network far more.

    So does a network that jumps: its gradient is its own and shows the way over several steps, not over the first. Far
    is 10 points of FMR or more below random steps, by an interval that lies below 0; masked networks have 0 in it.

    Args:
        summary: of the split.
        steps: that count, see `judged_steps`.
    """
    less = summary.guided_less_random
    if steps == "none" or less is None or less.high is None:
        return False
    return _climbs_seldom_at_first(summary) and less.value <= -_BELOW_RANDOM and less.high < 0


def masking_caution(summary: Summary, steps: JudgedSteps = "all") -> str | None:
    """Return a line if the gradient is masked or rough, or guided steps are like random ones; None otherwise.

    Args:
        summary: of the split.
        steps: that count, see `judged_steps`.
    """
    if steps == "none":
        return None
    climbs = (
        f"the first step raised the loss in {as_percent(summary.first_steps_up)} of the valid rows, and guided steps "
        f"climbed higher than random ones in {as_percent(summary.ahead_of_random)} of the controls"
    )
    if has_rough_gradient(summary, steps):
        return (
            f"{climbs}, which is seldom; but they fool the classifier far more (FMR differs by "
            f"{summary.guided_less_random} points). Its gradient is its own and rough, as of a network that jumps: FMR "
            f"counts, and a search without gradients ({option('perturb.update=nes', 'update=nes')}) may find more"
        )
    if _climbs_seldom_at_first(summary):
        verdict = "is masked"
        if may_be_rough(summary):
            verdict = f"may be masked (no rows have a control by random steps, {option('perturb.control', 'control')})"
        return (
            f"{climbs}: along a gradient that shows the way these are nearly 100 %, along a random one about 50 %. The "
            f"classifier's gradient {verdict}, so FMR is no sign of robustness (docs: Masked and rough gradients)"
        )
    if has_masked_gradient(summary, steps):
        return (
            f"the first steps raise the loss, but of all steps to the boundary {as_percent(summary.steps_up)} do, of "
            f"those near it {as_percent(summary.near_steps_up)}, and FMR falls by {_points(summary.last_less_ever)} if "
            "images on the way count: for a gradient that shows the way these are 95 % or more, 93 % or more and 0. "
            "The classifier's gradient is masked on the way to its boundary, so FMR is no sign of robustness (docs: "
            "Masked and rough gradients)"
        )
    if _is_like_chance(summary):
        return (
            f"guided steps do no better than random ones: FMR differs by {summary.guided_less_random} points, and "
            f"they climb higher in {as_percent(summary.ahead_of_random)} of the controls; take more controls "
            f"({option('perturb.control')}), or the gradient is masked"
        )
    return None


def may_be_rough(summary: Summary) -> bool:
    """Return whether a masked gradient may as well be a rough one: there is no control by random steps, and it is first
    steps that seldom climb."""
    return summary.guided_less_random is None and _climbs_seldom_at_first(summary)


def masked_because(summary: Summary) -> str:
    """Return in words why the gradient of a classifier counts as masked."""
    if not _climbs_seldom_at_first(summary):
        return "its steps cease to show the way on the way to its boundary"
    reason = "the first step raises its loss hardly more often than a random step"
    if may_be_rough(summary):
        reason += ", and there is no control by random steps to tell"
    return reason


def _climbs_seldom_at_first(summary: Summary) -> bool:
    """Return whether first steps, or all steps of the controls taken together, climbed too seldom for a gradient."""
    return _is_below(summary.first_steps_up, _FEWEST_FIRST_UP) or _is_below(summary.ahead_of_random, _FEWEST_FIRST_UP)


def _is_masked_on_the_way(summary: Summary) -> bool:
    regained = summary.last_less_ever
    if regained is not None and regained.low is not None and regained.low > _MOST_REGAINED:
        return True
    return _is_below(summary.steps_up, _FEWEST_UP) or _is_below(summary.near_steps_up, _FEWEST_NEAR_UP)


def _is_below(share: Estimate | None, least: float) -> bool:
    """Return whether the whole interval of a share is below a bound."""
    return share is not None and share.high is not None and share.high < least


def _is_like_chance(summary: Summary) -> bool:
    """Return whether guided steps are like random ones in the controls, by accuracy and by how far they climb."""
    less, ahead = summary.guided_less_random, summary.ahead_of_random
    if less is None or ahead is None or less.low is None or less.high is None or ahead.low is None:
        return False
    return less.low <= 0 <= less.high and ahead.low <= _HALF and ahead.value < _FEWEST_FIRST_UP


def slope_caution(slope: float | None, where: str = "on the images nearest the boundary") -> str | None:
    """Return a line if a classifier is not as steep as its gradient says; None if it is, or nobody looked.

    Args:
        slope: along the gradient, as a share of what the gradient says: near 1 for a gradient of the network's own.
        where: it was measured.
    """
    if slope is None or _LEAST_SLOPE <= slope <= 1 / _LEAST_SLOPE:
        return None
    return (
        f"{where} the classifier changes by {slope:.2g} of what its gradient says: it is "
        "rounded, jumps, or hands over another gradient than its own, and looks more robust than it is (docs: Masked "
        "and rough gradients)"
    )


def _points(estimate: Estimate | None) -> str:
    return "n/a" if estimate is None else f"{estimate.value:.1f} points"
