"""How steep a classifier really is along its gradient."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fmrgen.engine.images import as_float32
from fmrgen.engine.objectives import truth_of

_STEP = 0.02  # length, of pixels from 0 to 1: so short that a network is as good as linear, so long that float32 tells
_BATCH_SIZE = 16


def slope_along_gradient(
    classifier: nn.Module, objective: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor
) -> float | None:
    """Return how steep the objective really is along its gradient, as a share of what the gradient says.

    The slope is measured by finite differences and divided by the gradient's length; of the images with finite values
    the median is returned, None if no image has a gradient. It is 1 for a network that is differentiated as it is,
    about 0 where the gradient is another's, or the network is a staircase. Pixels are moved, not latents: a generator
    may have stairs of its own, as VQGAN's codes are.

    `objective` is what steps climb, of logits [N, K] and which classes are true, bool [N, K]. `images` [N, 3, H, W] in
    [0, 1] are of any kind: originals, or such that steps have led to.
    """
    ratios = []
    for batch in torch.arange(len(images)).split(_BATCH_SIZE):
        start = images[batch].clone().requires_grad_(True)
        logits = as_float32(classifier(start.clone()))  # a network may write into its images
        truth = truth_of(labels[batch], logits.shape[1], None)
        (gradient,) = torch.autograd.grad(objective(logits, truth).sum(), start)
        length = gradient.flatten(1).norm(dim=1)
        usable = (length > 0) & length.isfinite()
        if not usable.any():
            continue
        step = _STEP * gradient[usable] / length[usable].view(-1, 1, 1, 1)
        with torch.no_grad():
            ahead = objective(as_float32(classifier(images[batch][usable] + step)), truth[usable])
            behind = objective(as_float32(classifier(images[batch][usable] - step)), truth[usable])
        ratios.append((ahead - behind) / (2 * _STEP) / length[usable])
    finite = torch.cat(ratios) if ratios else torch.zeros(0)
    finite = finite[finite.isfinite()]
    if not len(finite):
        return None
    return float(finite.median())
