"""When the oracle accepts an image: what it is to see in it, and how sure of it it has to be."""

from torch import Tensor

from fmrgen.engine.interfaces import NONE, Judgement
from fmrgen.engine.options import PerturbOptions


def targets(labels: Tensor, seen: Tensor, options: PerturbOptions) -> Tensor:
    """What the oracle is to see in images [B]: their `labels` [B], or what it has `seen` in their originals [B]."""
    return labels if options.oracle_rule == "label" else seen


def accepts(judgement: Judgement, target: Tensor, options: PerturbOptions) -> tuple[Tensor, Tensor]:
    """Whether it sees the target [B], which is not `NONE`, surely enough; and the probability that it gives it, [B]."""
    of_target = judgement.probabilities.gather(1, target.clamp(min=0).unsqueeze(1)).squeeze(1)
    agrees = (judgement.decided == target) & (target != NONE)
    if options.min_probability:
        agrees &= of_target >= options.min_probability
    if options.min_margin:
        first, second = judgement.probabilities.topk(2, dim=1).values.unbind(1)
        agrees &= first - second >= options.min_margin
    return agrees, of_target
