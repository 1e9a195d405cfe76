"""Update rules: the direction of a step, per row, from the gradient of the objective, or from answers alone. The engine
gives it its length.

None depends on the gradient's scale, and so on the temperature of the classifier's logits.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.slots import as_column

Ask = Callable[[Tensor, Tensor], Tensor]  # the objective [n] if the latents of the rows [n] were [n, …]


class Update(ABC):
    """The direction in which a latent moves; gradients are [S, …], every row is treated by itself.

    Attributes:
        needs_gradient: whether it looks at gradients at all.
    """

    needs_gradient = True

    def __init__(self, options: PerturbOptions) -> None:
        self.options = options

    def memory(self, free: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        """What the rule remembers of each of the new rows `free` [B, …], by names of its own; it stays with the row.

        `seeds` [B] are for what is random in it.
        """
        return {}

    @abstractmethod
    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        """[S, …]; only the rows where `moving` [S] is True will be moved, and remember it: in `memory`, [S, …] each.

        What does without gradients may `ask` the classifier instead, which counts in `memory["queries"]`.
        """


class Sign(Update):
    """Every latent dimension by the same amount."""

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        return gradient.sign()


class L2(Update):
    """Along the gradient, as long as a sign step: √d for d dimensions. A zero gradient stays where it is."""

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
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

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
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

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        return memory["random_signs"]


class Nes(Update):
    """The sign of an estimated gradient: for networks without one, or with one that lies (NES, Ilyas et al. 2018).

    The objective is asked for at `queries` random places around, in pairs to both sides, and what earlier steps found
    is kept, less with each step. The places lie five steps away: nearer by, images of 8 bits hardly differ. A step at
    which no answer differs goes towards one of them.
    """

    needs_gradient = False
    _radius, _decay = 5, 0.9

    def memory(self, free: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        seed = torch.tensor(seeds, device=free.device)
        return {"nes_seed": seed, "nes_steps": torch.zeros_like(seed), "nes_mean": torch.zeros_like(free)}

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        return self._estimated(torch.zeros_like(gradient), moving & ~memory["by_chance"], memory, ask)

    def _estimated(self, direction: Tensor, wanted: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        """`direction` [S, …], that of the rows `wanted` [S] estimated anew."""
        rows = wanted.nonzero().flatten()
        if not len(rows):
            return direction
        pairs, free = self.options.queries // 2, memory["free"][rows].unsqueeze(1)
        steps = zip(memory["nes_seed"][rows].tolist(), memory["nes_steps"][rows].tolist(), strict=True)
        aside = torch.stack([normal([pairs, *free.shape[2:]], (seed + step) % 2**63) for seed, step in steps]).to(free)
        away = self._radius * self.options.step_size * aside
        places = torch.cat([free + away, free - away], 1)
        ahead, behind = ask(places.flatten(0, 1), rows.repeat_interleave(2 * pairs)).view(-1, 2, pairs).unbind(1)
        rise = (ahead - behind).nan_to_num(0, 0, 0)  # infinite on both sides, or no number
        mean = self._decay * memory["nes_mean"][rows] + torch.einsum("rp,rp...->r...", rise, aside)
        memory["nes_mean"][rows] = mean
        memory["nes_steps"][rows] += 1
        memory["queries"][rows] += 2 * pairs
        direction[rows] = torch.where(as_column((mean != 0).flatten(1).any(1), mean), mean, aside[:, 0]).sign()
        return direction


class Prior(Nes):
    """Along the sign of the gradient where the objective is higher that way than the other way: two questions, as far
    off as those of `Nes`. Elsewhere, and where there is no gradient, what `Nes` estimates.

    For a gradient that need not be the classifier's own: a relative's, or one that lies.
    """

    needs_gradient = True

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        wanted = moving & ~memory["by_chance"]
        direction = gradient.nan_to_num(0, 0, 0).sign()
        if not len(rows := wanted.nonzero().flatten()):
            return direction
        away = self._radius * self.options.step_size * direction[rows]
        free = memory["free"][rows]
        ahead, behind = ask(torch.cat([free + away, free - away]), rows.repeat(2)).view(2, -1)
        memory["queries"][rows] += 2
        is_estimated = torch.zeros_like(wanted)
        is_estimated[rows] = ~(ahead > behind)
        return self._estimated(direction, is_estimated, memory, ask)


def normal(shape: Sequence[int], seed: int) -> Tensor:
    """Standard normal numbers of a seed, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _unless_zero(values: Tensor) -> Tensor:
    """The values to divide by: 1 instead of zeros."""
    return values.where(values > 0, 1.0)


UPDATES: dict[str, type[Update]] = {"sign": Sign, "l2": L2, "adam": Adam, "random": Random, "nes": Nes, "prior": Prior}
