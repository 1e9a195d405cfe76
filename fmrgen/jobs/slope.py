"""Whether a classifier's gradient is its own: what the loss does along it, against what it says."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fmrgen.engine.images import as_float32

_STEP = 0.02  # length, of pixels from 0 to 1: so short that a network is as good as linear, so long that float32 tells
_TOGETHER = 16


def slope_of_what_is_said(
    classifier: nn.Module, objective: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor
) -> float | None:
    """The median over images of the objective's slope along its gradient, by finite differences, to the gradient's own
    length: 1 for a network that is differentiated as it is, about 0 where the gradient is another's, or the network is
    a staircase.

    In the space of pixels, for a generator may have stairs of its own, as VQGAN's codes are.

    Args:
        classifier: of images [N, 3, H, W] in [0, 1].
        objective: what steps climb, of logits [N, K] and labels [N].
        images: [N, 3, H, W], of any kind: originals, or such that steps have led to.
        labels: [N].

    Returns:
        None where no image has a gradient.
    """
    ratios = []
    for batch in torch.arange(len(images)).split(_TOGETHER):
        truth, start = labels[batch], images[batch].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective(as_float32(classifier(start)), truth).sum(), start)
        length = gradient.flatten(1).norm(dim=1)
        there = (length > 0) & length.isfinite()
        if not there.any():
            continue
        step = _STEP * gradient[there] / length[there].view(-1, 1, 1, 1)
        with torch.no_grad():
            ahead, behind = (
                objective(as_float32(classifier(images[batch][there] + sign * step)), truth[there]) for sign in (1, -1)
            )
        ratios.append((ahead - behind) / (2 * _STEP) / length[there])
    return float(torch.cat(ratios).median()) if ratios else None
