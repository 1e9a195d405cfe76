"""Update rules: the direction of a step, per row, from the gradient of the objective, or from logits alone. The engine
gives it its length.

No rule depends on the gradient's scale, and therefore on the temperature of the classifier's logits.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.slots import as_column

Query = Callable[[Tensor, Tensor], Tensor]  # returns the objective [n] at latents [n, …] of the rows [n]


class Update(ABC):
    """The direction in which a latent moves; gradients are [S, …], every row is treated by itself."""

    needs_gradient = True  # whether it uses gradients at all

    def __init__(self, options: PerturbOptions) -> None:
        self.options = options

    def memory(self, free: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Return what the rule remembers of each new row, [B, …] by names of its own; it stays with the row.

        `free` [B, …] are latents of the rows; `seeds` [B] are for all that is random in the rule.
        """
        return {}

    @abstractmethod
    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], query: Query) -> Tensor:
        """Return the direction of each row, [S, …], given the gradient of the objective, [S, …].

        Only the rows that will be moved, `moving`, bool [S], update their memory. `memory` holds the columns of all
        rows, [S, …] each, those of the rule among them. `query` is for a rule that does without gradients: it returns
        the objective at other latents, and the rule counts each query in `memory["queries"]`.
        """


class Sign(Update):
    """Every latent dimension by the same amount."""

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], query: Query) -> Tensor:
        return gradient.sign()


class L2(Update):
    """Along the gradient, as long as a sign step: √d for d dimensions. A zero gradient stays where it is."""

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], query: Query) -> Tensor:
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

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], query: Query) -> Tensor:
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
    """The control: every latent dimension by the same amount, up or down by chance, without asking the classifier.

    The signs of a row are drawn once, for new ones at every step would take it back and forth.
    """

    needs_gradient = False

    def memory(self, free: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        bits = []
        for seed in seeds:
            bits.append(torch.randint(2, free.shape[1:], generator=torch.Generator().manual_seed(seed)))
        return {"random_signs": (2 * torch.stack(bits) - 1).to(free)}

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], query: Query) -> Tensor:
        return memory["random_signs"]


class Nes(Update):
    """The sign of an estimated gradient: for networks without one, or with one that lies (NES, Ilyas et al. 2018).

    The objective is asked for at `queries` places around the latent, in pairs to both sides. Their directions are at
    right angles, and each step takes the next ones of the row's own basis until all have had their turn (latents too
    long for that get others at each step): the estimate is corrected along these directions, and keeps what earlier
    steps have shown along others. The places lie as far off as five steps: nearer by, images of 8 bits hardly differ.
    While the objective differs nowhere, steps go towards one of the places.
    """

    needs_gradient = False
    _radius = 5  # steps
    _longest_basis = 1024  # dimensions of a latent; a row with more stores no basis

    def memory(self, free: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        seed, length = torch.tensor(seeds, device=free.device), free[0].numel()
        memory = {"nes_seed": seed, "nes_steps": torch.zeros_like(seed), "nes_mean": torch.zeros_like(free)}
        if length <= self._longest_basis:
            bases = [orthonormal(length, length, row_seed) for row_seed in seeds]
            memory["nes_basis"] = torch.stack(bases).to(free)
        return memory

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], query: Query) -> Tensor:
        direction = torch.zeros_like(gradient)
        rows = (moving & ~memory["by_chance"]).nonzero().flatten()
        if not len(rows):
            return direction
        free, estimate = memory["free"][rows], memory["nes_mean"][rows]
        along = self._next_directions(rows, memory)
        pairs = along.shape[1]
        step_length = self.options.step * free[0].numel() ** 0.5
        offset = step_length * (self._radius * along)
        places = torch.cat([free.unsqueeze(1) + offset, free.unsqueeze(1) - offset], 1)
        memory["queries"][rows] += 2 * pairs
        answers = query(places.flatten(0, 1), rows.repeat_interleave(2 * pairs)).view(-1, 2 * pairs)
        rise = (answers[:, :pairs] - answers[:, pairs:]).nan_to_num(0, 0, 0)  # both sides may be infinite, or one NaN
        missing = rise - torch.einsum("r...,rn...->rn", estimate, along)
        estimate = estimate + torch.einsum("rn,rn...->r...", missing, along)
        memory["nes_mean"][rows] = estimate
        is_nonzero = (estimate != 0).flatten(1).any(1)
        direction[rows] = torch.where(as_column(is_nonzero, estimate), estimate, along[:, 0])
        return direction.sign()

    def _next_directions(self, rows: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Return orthonormal directions [R, pairs, …]: those of the basis whose turn it is."""
        free, seed, steps = memory["free"], memory["nes_seed"][rows], memory["nes_steps"][rows]
        length = free[0].numel()
        pairs = min(self.options.queries // 2, length)
        memory["nes_steps"][rows] += 1
        if "nes_basis" in memory:
            turns = (steps[:, None] * pairs + torch.arange(pairs, device=rows.device)) % length
            along = memory["nes_basis"][rows[:, None], turns]
        else:
            directions = [orthonormal(pairs, length, step_seed) for step_seed in (seed + steps).tolist()]
            along = torch.stack(directions).to(free)
        return along.view(len(rows), pairs, *free.shape[1:])


def orthonormal(count: int, length: int, seed: int) -> Tensor:
    """Return random orthonormal vectors, float64 [count, length], by the seed alone; `count` is at most `length`."""
    return torch.linalg.qr(normal([length, count], seed % 2**63).double()).Q.mT


def normal(shape: Sequence[int], seed: int) -> Tensor:
    """Return standard normal numbers of a seed, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _unless_zero(values: Tensor) -> Tensor:
    """Return the values with 1 instead of zeros, to divide by."""
    return values.where(values > 0, 1.0)


UPDATES: dict[str, type[Update]] = {
    "sign": Sign,
    "l2": L2,
    "adam": Adam,
    "random": Random,
    "nes": Nes,
}
