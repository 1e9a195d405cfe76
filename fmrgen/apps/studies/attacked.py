"""The result of an attack on a judge: an oracle or a classifier."""

from dataclasses import dataclass

from fmrgen.metrics.intervals import Estimate


@dataclass(frozen=True)
class AttackedJudge:
    """A judge under attack: `oracle`, or a classifier by its name. Rates are in percent.

    Attributes:
        name: of the judge.
        clean: accuracy on the images as they are.
        epsilon: radius of the attack, largest change of a pixel from 0 to 1.
        right: accuracy after it.
        targeted: share of images that are taken for the target after it.
        target_probability: mean probability of the target.
    """

    name: str
    clean: Estimate
    epsilon: float
    right: Estimate
    targeted: Estimate
    target_probability: float
