"""What a guided step climbs: a number for each image that grows as the classifier loses the true class.

Where several classes are true of an image, none of them is to be reached and any of them is right.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def truth_of(labels: Tensor, classes: int, also: Tensor | None) -> Tensor:
    """Which of so many classes are true of images [B]: their `labels` [B], and those in `also`, bool [B, K]."""
    own = torch.zeros(len(labels), classes, dtype=torch.bool, device=labels.device)
    own.scatter_(1, labels.unsqueeze(1), True)
    return own if also is None else own | also


def also_of(others: Sequence[Sequence[int]], classes: int) -> Tensor:
    """Which of so many classes are true of images besides their labels, bool [B, K], of a list for each image."""
    also = torch.zeros(len(others), classes, dtype=torch.bool)
    for row, of_row in enumerate(others):
        also[row, list(of_row)] = True
    return also


def margin(logits: Tensor, truth: Tensor) -> Tensor:
    """How far the best other class is ahead of the true one: max(z_j, j ≠ y) - z_y.

    A factor on the logits, the temperature that tells a sure classifier from a modest one and changes no answer, is
    a factor on its gradient, and no update rule looks at that.

    Args:
        logits: [B, K], K at least 2.
        truth: bool [B, K], the true classes, of which the best counts.

    Returns:
        [B], positive where the classifier is wrong.
    """
    return _only(logits, ~truth).amax(1) - _only(logits, truth).amax(1)


def log_odds(logits: Tensor, truth: Tensor) -> Tensor:
    """How far the other classes together are ahead of the true one: logsumexp(z_j, j ≠ y) - z_y.

    Cross-entropy is softplus of it, and its gradient this one's times 1 - p_y, which float32 rounds to nothing where a
    classifier is sure: it would then look robust. This gradient has the same direction and does not fade. Its
    direction still depends on the temperature, which weighs the other classes against each other.

    Args:
        logits: [B, K], K at least 2.
        truth: bool [B, K], the true classes, which count together.

    Returns:
        [B], positive where the true class has less than half of the probability.
    """
    return _only(logits, ~truth).logsumexp(1) - _only(logits, truth).logsumexp(1)


def loss(logits: Tensor, labels: Tensor, also: Tensor | None) -> Tensor:
    """The cross-entropy [B] of logits [B, K] with `labels` [B], or where others are true `also`, bool [B, K], with all
    of them together."""
    found = cross_entropy(logits, labels, reduction="none")
    if also is None:
        return found
    together = logits.logsumexp(1) - _only(logits, truth_of(labels, logits.shape[1], also)).logsumexp(1)
    return torch.where(also.any(1), together, found)


def _only(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.masked_fill(~classes, -torch.inf)


# Of logits and the classes that are to lose: those that are true, or with a target all but that.
OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "margin": margin,
    "cross_entropy": log_odds,
    "targeted": margin,
}
