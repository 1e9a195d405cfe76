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
        labels_alone: whether of the objective that it asks for only the sign matters.
    """

    needs_gradient = True
    labels_alone = False

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

    The objective is asked for at `queries` places around, in pairs to both sides. Their directions are at right angles,
    and each step takes the next ones of the row's own basis until all have had their turn (of latents too long for
    that, others at each step): the estimate is corrected by what they show, and keeps what others have shown. The
    places lie as far off as five steps: nearer by, images of 8 bits hardly differ. While no answer has differed, steps
    go towards one of the places.
    """

    needs_gradient = False
    _radius, _longest = 5, 1024  # steps; dimensions of a latent whose basis a row keeps

    def memory(self, free: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        seed, count = torch.tensor(seeds, device=free.device), free[0].numel()
        kept = {"nes_seed": seed, "nes_steps": torch.zeros_like(seed), "nes_mean": torch.zeros_like(free)}
        if count <= self._longest:
            kept["nes_basis"] = torch.stack([orthonormal(count, count, of_row) for of_row in seeds]).to(free)
        return kept

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        direction = torch.zeros_like(gradient)
        if len(rows := (moving & ~memory["by_chance"]).nonzero().flatten()):
            along = self._next_directions(rows, memory)
            estimate = self._corrected(memory["nes_mean"][rows], along, rows, memory, ask)
            memory["nes_mean"][rows] = estimate
            estimate = self._with_gradient(estimate, gradient[rows], rows, memory, ask)
            direction[rows] = torch.where(as_column((estimate != 0).flatten(1).any(1), estimate), estimate, along[:, 0])
        return direction.sign()

    def _with_gradient(
        self, estimate: Tensor, gradient: Tensor, rows: Tensor, memory: dict[str, Tensor], ask: Ask
    ) -> Tensor:
        """The estimate for this step alone; both are of the rows [R]."""
        return estimate

    def _next_directions(self, rows: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Orthonormal ones [R, pairs, …]: those of the basis whose turn it is."""
        free, seed, steps = memory["free"], memory["nes_seed"][rows], memory["nes_steps"][rows]
        count = free[0].numel()
        pairs = min(self.options.queries // 2, count)
        memory["nes_steps"][rows] += 1
        if "nes_basis" in memory:
            turns = (steps[:, None] * pairs + torch.arange(pairs, device=rows.device)) % count
            along = memory["nes_basis"][rows[:, None], turns]
        else:
            along = torch.stack([orthonormal(pairs, count, of_step) for of_step in (seed + steps).tolist()]).to(free)
        return along.view(len(rows), pairs, *free.shape[1:])

    def _corrected(self, estimate: Tensor, along: Tensor, rows: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        """The estimate of the rows [R], rising along orthonormal directions [R, n, …] as the objective does."""
        ahead, behind = self._on_both_sides(memory["free"][rows], self._radius * along, rows, memory, ask)
        rise = (ahead - behind).nan_to_num(0, 0, 0)  # infinite on both sides, or no number
        missing = rise - torch.einsum("r...,rn...->rn", estimate, along)
        return estimate + torch.einsum("rn,rn...->r...", missing, along)

    def _on_both_sides(
        self, middle: Tensor, along: Tensor, rows: Tensor, memory: dict[str, Tensor], ask: Ask
    ) -> tuple[Tensor, Tensor]:
        """The objective ahead and behind [R, n] of latents [R, …], along vectors [R, n, …] whose unit is a step."""
        away = self._step(middle) * along
        places = torch.cat([middle.unsqueeze(1) + away, middle.unsqueeze(1) - away], 1)
        ahead, behind = self._answers(places, rows, memory, ask).chunk(2, 1)
        return ahead, behind

    def _step(self, free: Tensor) -> float:
        """The length of a step of latents [R, …], each dimension by `step_size`."""
        return float(self.options.step_size * free[0].numel() ** 0.5)

    def _answers(self, places: Tensor, rows: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        """The objective [R, n] at latents [R, n, …] of the rows [R]; all are questions."""
        count = places.shape[1]
        memory["queries"][rows] += count
        return ask(places.flatten(0, 1), rows.repeat_interleave(count)).view(-1, count)


class Prior(Nes):
    """As `Nes`, and the gradient of each step is one more direction that is asked about: so far as the objective rises
    along it, the step goes along it (in the spirit of Cheng et al. 2019).

    For a relative's gradient. It is not remembered: the next step has a newer one.
    """

    needs_gradient = True

    def _with_gradient(
        self, estimate: Tensor, gradient: Tensor, rows: Tensor, memory: dict[str, Tensor], ask: Ask
    ) -> Tensor:
        along = L2(self.options).direction(gradient.nan_to_num(0, 0, 0), rows, memory, ask)
        return self._corrected(estimate, along.unsqueeze(1) / along[0].numel() ** 0.5, rows, memory, ask)


class Boundary(Nes):
    """Across the boundary between labels, for classifiers that say nothing else (after HopSkipJump, Chen et al. 2020).

    A row knows a latent that the classifier gets wrong, first the nearest of some that lie ever farther off at random.
    Each step halves the way there until the boundary is known to less than half a step, asks for labels at `queries`
    places around, and goes towards where more of them are wrong, which a mean over steps tells. Where the boundary is
    nearer that way, the next step begins there. Until a mistake is found, steps go by chance.
    """

    labels_alone = True
    _doublings, _tried, _halvings, _gap, _kept, _nearer = 5, 2, 6, 0.4, 0.9, 0.95

    def memory(self, free: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        known = torch.zeros(len(free), dtype=torch.bool, device=free.device)
        return super().memory(free, seeds) | {"mistake": free.clone(), "mistake_known": known}

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        direction = torch.zeros_like(gradient)
        if len(rows := (moving & ~memory["by_chance"]).nonzero().flatten()):
            self._find_mistakes(rows, memory, ask)
            along = self._next_directions(rows, memory)
            direction[rows] = along[:, 0]
            known = memory["mistake_known"][rows]
            if known.any():
                across = self._across(rows[known], along[known], memory, ask)
                is_there = (across != 0).flatten(1).any(1)
                direction[rows[known][is_there]] = across[is_there]
        return direction.sign()

    def _find_mistakes(self, rows: Tensor, memory: dict[str, Tensor], ask: Ask) -> None:
        for doubling in range(self._doublings):
            if not len(rows := rows[~memory["mistake_known"][rows]]):
                return
            free, along = memory["free"][rows], self._next_directions(rows, memory)[:, : self._tried]
            away = self._radius * 2**doubling * along
            wrong = torch.cat(self._on_both_sides(free, away, rows, memory, ask), 1) > 0
            first = wrong.int().argmax(1)
            chosen = torch.cat([away, -away], 1)[torch.arange(len(rows), device=first.device), first]
            place = free + self._step(free) * chosen
            found = wrong.any(1)
            memory["mistake"][rows[found]] = place[found]
            memory["mistake_known"][rows[found]] = True

    def _across(self, rows: Tensor, along: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        """Where labels are wrong beyond the boundary, of rows [R] that know a mistake; zero where nothing tells."""
        free, right, wrong = memory["free"][rows], memory["free"][rows], memory["mistake"][rows]
        for _ in range(self._halvings):
            apart = (wrong - right).flatten(1).norm(dim=1)
            if not len(wide := (apart > self._gap * self._step(free)).nonzero().flatten()):
                break
            middle = (right[wide] + wrong[wide]) / 2
            is_wrong = as_column(self._answers(middle.unsqueeze(1), rows[wide], memory, ask)[:, 0] > 0, middle)
            right[wide], wrong[wide] = (
                torch.where(is_wrong, right[wide], middle),
                torch.where(is_wrong, middle, wrong[wide]),
            )
        ahead, behind = self._on_both_sides(wrong, self._radius * along, rows, memory, ask)
        differ = (ahead > 0).to(along) - (behind > 0).to(along)
        seen, _ = _unit(torch.einsum("rn,rn...->r...", differ, along))
        mean = self._kept * memory["nes_mean"][rows] + seen
        across, _ = _unit(mean)
        _, distance = _unit(wrong - free)
        place = free + self._nearer * as_column(distance, across) * across
        is_nearer = as_column(self._answers(place.unsqueeze(1), rows, memory, ask)[:, 0] > 0, place)
        memory["mistake"][rows], memory["nes_mean"][rows] = torch.where(is_nearer, place, wrong), mean
        return torch.where(as_column((mean != 0).flatten(1).any(1), mean), across, wrong - free)


def _unit(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors [R, …] of length 1, and how long they were [R]; zeros stay."""
    length = vectors.flatten(1).norm(dim=1)
    return vectors / as_column(_unless_zero(length), vectors), length


def orthonormal(count: int, length: int, seed: int) -> Tensor:
    """Random vectors of a seed at right angles, of length 1, float64 [count, length]; count ≤ length."""
    return torch.linalg.qr(normal([length, count], seed % 2**63).double()).Q.mT


def normal(shape: Sequence[int], seed: int) -> Tensor:
    """Standard normal numbers of a seed, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _unless_zero(values: Tensor) -> Tensor:
    """The values to divide by: 1 instead of zeros."""
    return values.where(values > 0, 1.0)


UPDATES: dict[str, type[Update]] = {
    "sign": Sign,
    "l2": L2,
    "adam": Adam,
    "random": Random,
    "nes": Nes,
    "prior": Prior,
    "boundary": Boundary,
}
