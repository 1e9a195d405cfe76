"""Figures of judges other than the oracle who looked at a split."""

from dataclasses import dataclass, field
from typing import Literal

from fmrgen.metrics.intervals import Estimate

Kind = Literal["oracle", "vlm", "person"]


@dataclass(frozen=True)
class JudgeFigures:
    """A judge of a split, its rates in percent.

    Attributes:
        judge: its name; `people` are all persons together, who see a label if more than half of them do.
        kind: `oracle`, `vlm` or `person`.
        looked_at: number of valid images that it has looked at.
        preserved: label-preservation rate, the share of these in which it sees the label.
        originals_right: the share of originals in which it sees the label.
        shares_weights_with: the split's oracle, or classifiers, in words; it is no second opinion then.
    """

    judge: str
    kind: Kind
    looked_at: int
    preserved: Estimate | None
    originals_right: Estimate | None
    shares_weights_with: list[str] = field(default_factory=list)


def chance_line(judge: str, originals_right: Estimate | None, classes: int) -> str | None:
    """Return a warning if a judge's labels of the originals look like guesses, else None.

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
