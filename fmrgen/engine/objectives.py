"""Objectives that a guided step climbs: a number for each image that grows as the classifier loses the true class.

If several classes are true of an image, steps lead away from all of them, and any of them is a right prediction.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def truth_of(labels: Tensor, classes: int, also_true: Tensor | None) -> Tensor:
    """Return which of K classes are true of each image, bool [B, K]: its label, and any that are `also_true`."""
    truth = torch.zeros(len(labels), classes, dtype=torch.bool, device=labels.device)
    truth.scatter_(1, labels.unsqueeze(1), True)
    return truth if also_true is None else truth | also_true


def also_of(others: Sequence[Sequence[int]], classes: int) -> Tensor:
    """Return the classes listed for each image in `others`, bool [B, `classes`]."""
    also_true = torch.zeros(len(others), classes, dtype=torch.bool)
    for row, labels in enumerate(others):
        also_true[row, list(labels)] = True
    return also_true


def margin(logits: Tensor, truth: Tensor) -> Tensor:
    """Return how far the best other class is ahead of the true one, max(z_j, j ≠ y) - z_y, [B]; positive is wrong.

    A factor on the logits (the temperature, which tells a sure classifier from a modest one and changes no class) is
    a factor on its gradient, and no update rule depends on that.

    `logits` are [B, K], K at least 2. Of several true classes in `truth`, bool [B, K], the best counts.
    """
    return _only(logits, ~truth).amax(1) - _only(logits, truth).amax(1)


def log_odds(logits: Tensor, truth: Tensor) -> Tensor:
    """Return how far the other classes together are ahead of the true one, logsumexp(z_j, j ≠ y) - z_y, [B].

    Cross-entropy is softplus of it, and its gradient this one's times 1 - p_y, which float32 rounds to nothing where a
    classifier is sure: it would then look robust. This gradient has the same direction and does not fade. Its
    direction still depends on the temperature, which weighs the other classes against each other.

    It is positive where the true class has less than half of the probability. `logits` are [B, K], K at least 2;
    several true classes in `truth`, bool [B, K], count together.
    """
    return _only(logits, ~truth).logsumexp(1) - _only(logits, truth).logsumexp(1)


def loss(logits: Tensor, labels: Tensor, also_true: Tensor | None) -> Tensor:
    """Return the cross-entropy [B] with all true classes together: of `labels` and of `also_true`, bool [B, K]."""
    label_loss = cross_entropy(logits, labels, reduction="none")
    if also_true is None:
        return label_loss
    truth = truth_of(labels, logits.shape[1], also_true)
    joint_loss = logits.logsumexp(1) - _only(logits, truth).logsumexp(1)
    return torch.where(also_true.any(1), joint_loss, label_loss)


def _only(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.masked_fill(~classes, -torch.inf)


# Functions of logits and of the classes that are to lose: the true ones, or all but a target.
OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "margin": margin,
    "cross_entropy": log_odds,
    "targeted": margin,
}
