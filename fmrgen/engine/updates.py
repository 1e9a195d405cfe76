"""Update rules: the direction of a step, per row, from the gradient of the objective. The engine gives it its length.

None depends on the gradient's scale, and so on the temperature of the classifier's logits.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from fmrgen.engine.slots import as_column


class Update(ABC):
    """The direction in which a latent moves; gradients are [S, …], every row is treated by itself.

    Attributes:
        needs_gradient: whether it looks at gradients at all.
    """

    needs_gradient = True

    def memory(self, free: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        """What the rule remembers of each of the new rows `free` [B, …], by names of its own; it stays with the row.

        `seeds` [B] are for what is random in it.
        """
        return {}

    @abstractmethod
    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """[S, …]; only the rows where `moving` [S] is True will be moved, and remember it: in `memory`, [S, …] each."""


class Sign(Update):
    """Every latent dimension by the same amount."""

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor]) -> Tensor:
        return gradient.sign()


class L2(Update):
    """Along the gradient, as long as a sign step: √d for d dimensions. A zero gradient stays where it is."""

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor]) -> Tensor:
        rows = gradient.flatten(1)
        rows = rows / _unless_zero(rows.abs().amax(1, keepdim=True))  # else small squares would underflow
        return (rows / _unless_zero(rows.norm(dim=1, keepdim=True)) * rows.shape[1] ** 0.5).view_as(gradient)


class Adam(Update):
    """Adam's direction with its usual decay rates and bias correction (Kingma & Ba 2015), uphill.

    ε is in units of the root mean square of the row's second moments.
    """

    _decay_mean, _decay_square, _epsilon = 0.9, 0.999, 1e-8

    def memory(self, free: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        steps = free.new_zeros(len(free), *[1] * (free.ndim - 1))
        return {"adam_mean": torch.zeros_like(free), "adam_square": torch.zeros_like(free), "adam_steps": steps}

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor]) -> Tensor:
        moves = as_column(moving, gradient)
        mean, square = memory["adam_mean"], memory["adam_square"]
        memory["adam_steps"] = memory["adam_steps"] + moves
        memory["adam_mean"] = torch.where(moves, mean.lerp(gradient, 1 - self._decay_mean), mean)
        memory["adam_square"] = torch.where(moves, square.lerp(gradient.square(), 1 - self._decay_square), square)
        steps = memory["adam_steps"].clamp(min=1)
        mean = memory["adam_mean"] / (1 - self._decay_mean**steps)
        square = memory["adam_square"] / (1 - self._decay_square**steps)
        typical = square.flatten(1).mean(1).sqrt()
        return mean / _unless_zero(square.sqrt() + self._epsilon * as_column(typical, square))


class Random(Update):
    """The control: every latent dimension by the same amount, up or down by chance, the classifier unasked.

    The signs of a row are drawn once, for new ones at every step would take it back and forth.
    """

    needs_gradient = False

    def memory(self, free: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        drawn = [torch.randint(2, free.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return {"random_signs": (2 * torch.stack(drawn) - 1).to(free)}

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor]) -> Tensor:
        return memory["random_signs"]


def _unless_zero(values: Tensor) -> Tensor:
    """The values to divide by: 1 instead of zeros."""
    return values.where(values > 0, 1.0)


UPDATES: dict[str, type[Update]] = {"sign": Sign, "l2": L2, "adam": Adam, "random": Random}
