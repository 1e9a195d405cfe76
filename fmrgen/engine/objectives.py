"""What a guided step climbs: a number for each image that grows as the classifier loses the true class."""

from collections.abc import Callable

import torch
from torch import Tensor


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the best other class is ahead of the true one: max(z_j, j ≠ y) - z_y.

    A factor on the logits, the temperature that tells a sure classifier from a modest one and changes no answer, is
    a factor on its gradient, and no update rule looks at that.

    Args:
        logits: [B, K], K at least 2.
        labels: [B], int64.

    Returns:
        [B], positive where the classifier is wrong.
    """
    return _others(logits, labels).amax(1) - _true(logits, labels)


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the other classes together are ahead of the true one: logsumexp(z_j, j ≠ y) - z_y.

    Cross-entropy is softplus of it, and its gradient this one's times 1 - p_y, which float32 rounds to nothing where a
    classifier is sure: it would then look robust. This gradient has the same direction and does not fade. Its
    direction still depends on the temperature, which weighs the other classes against each other.

    Args:
        logits: [B, K], K at least 2.
        labels: [B], int64.

    Returns:
        [B], positive where the true class has less than half of the probability.
    """
    return _others(logits, labels).logsumexp(1) - _true(logits, labels)


def _true(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1)


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.scatter(1, labels.unsqueeze(1), -torch.inf)


OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"margin": margin, "cross_entropy": log_odds}
