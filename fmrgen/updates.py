"""Update rules: the direction of a step, per row, from the gradient of the loss. The engine gives it its length."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Update(ABC):
    """The direction in which a latent moves; gradients are [S, …], every row is treated by itself."""

    def reset(self, rows: Tensor) -> None:  # noqa: B027 - most rules remember nothing
        """Forgets what it knows of `rows` (indices): another image is in them."""

    def keep(self, rows: Tensor) -> None:  # noqa: B027
        """From now on only `rows` (indices) are there, in this order."""

    @abstractmethod
    def direction(self, gradient: Tensor, moving: Tensor) -> Tensor:
        """[S, …]; only the rows where `moving` [S] is True will be moved."""


class Sign(Update):
    """Every latent dimension by the same amount."""

    def direction(self, gradient: Tensor, moving: Tensor) -> Tensor:
        return gradient.sign()


class L2(Update):
    """Along the gradient, as long as a sign step: √d for d dimensions. A zero gradient stays where it is."""

    def direction(self, gradient: Tensor, moving: Tensor) -> Tensor:
        rows = gradient.flatten(1)
        norm = rows.norm(dim=1, keepdim=True)
        return (rows / norm.where(norm > 0, 1.0) * rows.shape[1] ** 0.5).view_as(gradient)


class Adam(Update):
    """Adam's direction with its usual decay rates and bias correction (Kingma & Ba 2015), uphill."""

    _decay_mean, _decay_square, _epsilon = 0.9, 0.999, 1e-8

    def __init__(self) -> None:
        self._mean = self._square = self._steps = torch.empty(0)

    def reset(self, rows: Tensor) -> None:
        if self._mean.numel():
            for memory in (self._mean, self._square, self._steps):
                memory[rows] = 0

    def keep(self, rows: Tensor) -> None:
        if self._mean.numel():
            self._mean, self._square, self._steps = self._mean[rows], self._square[rows], self._steps[rows]

    def direction(self, gradient: Tensor, moving: Tensor) -> Tensor:
        moves = moving.view(-1, *[1] * (gradient.ndim - 1))
        if not self._mean.numel():
            self._mean, self._square = torch.zeros_like(gradient), torch.zeros_like(gradient)
            self._steps = torch.zeros_like(gradient[(slice(None), *[slice(0, 1)] * (gradient.ndim - 1))])
        self._steps = self._steps + moves
        self._mean = torch.where(moves, self._mean.lerp(gradient, 1 - self._decay_mean), self._mean)
        self._square = torch.where(moves, self._square.lerp(gradient.square(), 1 - self._decay_square), self._square)
        steps = self._steps.clamp(min=1)
        mean = self._mean / (1 - self._decay_mean**steps)
        square = self._square / (1 - self._decay_square**steps)
        return mean / (square.sqrt() + self._epsilon)


UPDATES: dict[str, type[Update]] = {"sign": Sign, "l2": L2, "adam": Adam}
