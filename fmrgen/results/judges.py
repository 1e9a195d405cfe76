"""Figures of judges other than the oracle who looked at a split."""

from dataclasses import dataclass, field
from typing import Literal

from fmrgen.metrics.intervals import Estimate

Kind = Literal["oracle", "vlm", "person"]


@dataclass(frozen=True)
class JudgeFigures:
    """A judge of a split, its rates in percent; no second opinion if it shares weights with oracle or classifiers."""

    judge: str  # its name; `people` are all persons together, who see a label if more than half of them do
    kind: Kind
    looked_at: int  # number of valid images that it has looked at
    preserved: Estimate | None  # label-preservation rate, the share of these in which it sees the label
    originals_right: Estimate | None  # the share of originals in which it sees the label
    shares_weights_with: list[str] = field(default_factory=list)  # the split's oracle, or classifiers, in words


def chance_line(judge: str, originals_right: Estimate | None, classes: int) -> str | None:
    """Return a warning if a judge's labels of the originals look like guesses, else None.

    `originals_right` is the share of originals in which it sees the label, in percent.
    """
    chance = 100 / classes
    if originals_right is None or originals_right.low is None or originals_right.low > chance:
        return None
    return (
        f"{judge} sees the label in {originals_right} % of the originals, no better than chance "
        f"({chance:.3g} %): its verdicts on the images mean nothing"
    )
