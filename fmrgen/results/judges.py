"""Figures of judges other than the oracle who looked at a split."""

from dataclasses import dataclass, field
from typing import Literal

from fmrgen.metrics.intervals import Estimate

Kind = Literal["oracle", "vlm", "person"]


@dataclass(frozen=True)
class JudgeFigures:
    """A judge of a split, its rates in percent.

    Attributes:
        judge: its name; `people` are all persons together, by the share of them who see the label.
        kind: `oracle`, `vlm` or `person`.
        audited: number of valid images that it has looked at.
        preserved: label-preservation rate, the share of valid images in which it sees the label.
        originals_right: the share of originals in which it sees the label.
        oracle_kappa: Cohen's kappa with the split's oracle on the images that it has looked at.
        by_class: `preserved` of each class; None for a class that it saw nothing of.
        by_iterations: `preserved` by the guided steps in the image.
        shares_weights_with: the split's oracle, or classifiers, in words; it is no second opinion then.
    """

    judge: str
    kind: Kind
    audited: int
    preserved: Estimate | None
    originals_right: Estimate | None
    oracle_kappa: Estimate | None
    by_class: list[Estimate | None]
    by_iterations: dict[str, Estimate]
    shares_weights_with: list[str] = field(default_factory=list)


def chance_line(judge: str, originals_right: Estimate | None, classes: int) -> str | None:
    """Return a warning if a judge's answers on the originals look like guesses, else None.

    Args:
        judge: its name.
        originals_right: the share of originals in which it sees the label, in percent.
        classes: number of classes.
    """
    chance = 100 / classes
    if originals_right is None or originals_right.low is None or originals_right.low > chance:
        return None
    return (
        f"{judge} sees the label in {originals_right} % of the originals, no better than chance "
        f"({chance:.3g} %): its verdicts on the images mean nothing"
    )
