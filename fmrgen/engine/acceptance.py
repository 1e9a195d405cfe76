"""When the oracle accepts an image: which label it must see there, and with what probability."""

import torch
from torch import Tensor

from fmrgen.engine.interfaces import NONE, Judgement
from fmrgen.engine.objectives import truth_of
from fmrgen.engine.options import PerturbOptions


def targets(labels: Tensor, seen: Tensor, options: PerturbOptions) -> Tensor:
    """Return the label [B] that the oracle must see: `labels`, or by rule `consistent` what it sees in the original."""
    return seen if options.oracle_rule == "consistent" else labels


def accepts(
    judgement: Judgement, target: Tensor, options: PerturbOptions, also_true: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return which images the oracle accepts, bool [B], and the probability that it gives the target, [B].

    An image whose `target` [B] is `NONE` is never accepted. Classes in `also_true`, bool [B, K], are as good as the
    target unless `oracle_rule` is "consistent"; the probability is then that of the likeliest of them.
    """
    if options.oracle_rule == "consistent":
        also_true = None
    probabilities, seen = judgement.probabilities, judgement.decided
    wanted = truth_of(target.clamp(min=0), probabilities.shape[1], also_true)
    target_probability = probabilities.masked_fill(~wanted, -torch.inf).amax(1)
    if options.oracle_rule == "none":
        return torch.ones_like(target, dtype=torch.bool), target_probability
    agrees = wanted.gather(1, seen.clamp(min=0).unsqueeze(1)).squeeze(1) & (seen != NONE) & (target != NONE)
    if options.min_probability:
        agrees &= target_probability >= options.min_probability
    if options.min_margin:
        agrees &= target_probability - probabilities.masked_fill(wanted, -torch.inf).amax(1) >= options.min_margin
    return agrees, target_probability
