"""When the oracle accepts an image: what it is to see in it, and how sure of it it has to be."""

import torch
from torch import Tensor

from fmrgen.engine.interfaces import NONE, Judgement
from fmrgen.engine.objectives import truth_of
from fmrgen.engine.options import PerturbOptions


def targets(labels: Tensor, seen: Tensor, options: PerturbOptions) -> Tensor:
    """What the oracle is to see in images [B]: their `labels` [B], or what it has `seen` in their originals [B]."""
    return labels if options.oracle_rule == "label" else seen


def accepts(
    judgement: Judgement, target: Tensor, options: PerturbOptions, also: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Whether it sees the target [B], which is not `NONE`, surely enough; and the probability that it gives it, [B].

    Where labels are what it is to see, those true `also`, bool [B, K], will do: then of the likeliest.
    """
    probabilities, seen = judgement.probabilities, judgement.decided
    wanted = truth_of(target.clamp(min=0), probabilities.shape[1], also if options.oracle_rule == "label" else None)
    of_target = probabilities.masked_fill(~wanted, -torch.inf).amax(1)
    agrees = wanted.gather(1, seen.clamp(min=0).unsqueeze(1)).squeeze(1) & (seen != NONE) & (target != NONE)
    if options.min_probability:
        agrees &= of_target >= options.min_probability
    if options.min_margin:
        agrees &= of_target - probabilities.masked_fill(wanted, -torch.inf).amax(1) >= options.min_margin
    return agrees, of_target
