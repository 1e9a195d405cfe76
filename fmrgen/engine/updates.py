"""Update rules: the direction of a step, per row, from the gradient of the objective, or from answers alone. The engine
gives it its length.

No rule depends on the gradient's scale, and therefore on the temperature of the classifier's logits.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.slots import as_column

Ask = Callable[[Tensor, Tensor], Tensor]  # returns the objective [n] at latents [n, …] of the rows [n]


class Update(ABC):
    """The direction in which a latent moves; gradients are [S, …], every row is treated by itself.

    Attributes:
        needs_gradient: whether it uses gradients at all.
        labels_alone: whether only the sign of the objective that it asks for matters.
    """

    needs_gradient = True
    labels_alone = False

    def __init__(self, options: PerturbOptions) -> None:
        self.options = options

    def memory(self, free: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Return what the rule remembers of each new row, [B, …] by names of its own; it stays with the row.

        Args:
            free: [B, …], latents of the rows.
            seeds: [B], for all that is random in the rule.
        """
        return {}

    @abstractmethod
    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        """Return the direction of each row, [S, …].

        Args:
            gradient: [S, …], of the objective.
            moving: bool [S], the rows that will be moved; only these update their memory.
            memory: the columns of all rows, [S, …] each, those of the rule among them.
            ask: the objective at other latents, for a rule that does without gradients; it counts each question in
                `memory["queries"]`.
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
    """The control: every latent dimension by the same amount, up or down by chance, without asking the classifier.

    The signs of a row are drawn once, for new ones at every step would take it back and forth.
    """

    needs_gradient = False

    def memory(self, free: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        bits = []
        for seed in seeds:
            bits.append(torch.randint(2, free.shape[1:], generator=torch.Generator().manual_seed(seed)))
        return {"random_signs": (2 * torch.stack(bits) - 1).to(free)}

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        return memory["random_signs"]


class Nes(Update):
    """The sign of an estimated gradient: for networks without one, or with one that lies (NES, Ilyas et al. 2018).

    The objective is asked for at `queries` places around the latent, in pairs to both sides. Their directions are at
    right angles, and each step takes the next ones of the row's own basis until all have had their turn (latents too
    long for that get others at each step): the estimate is corrected along these directions, and keeps what earlier
    steps have shown along others. The places lie as far off as five steps: nearer by, images of 8 bits hardly differ.
    While no answer has differed, steps go towards one of the places.
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

    def direction(self, gradient: Tensor, moving: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        direction = torch.zeros_like(gradient)
        rows = (moving & ~memory["by_chance"]).nonzero().flatten()
        if len(rows):
            direction[rows] = self._direction_of(rows, gradient[rows], memory, ask)
        return direction.sign()

    def _direction_of(self, rows: Tensor, gradient: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        """Return the direction [R, …] of the rows [R], of any length, given their gradient [R, …]."""
        along = self._next_directions(rows, memory)
        estimate = self._corrected(memory["nes_mean"][rows], along, rows, memory, ask)
        memory["nes_mean"][rows] = estimate
        estimate = self._with_gradient(estimate, gradient, rows, memory, ask)
        return torch.where(as_column(_is_nonzero(estimate), estimate), estimate, along[:, 0])

    def _with_gradient(
        self, estimate: Tensor, gradient: Tensor, rows: Tensor, memory: dict[str, Tensor], ask: Ask
    ) -> Tensor:
        """Return the estimate [R, …] for this step alone, given the gradient [R, …] of the rows [R]."""
        return estimate

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

    def _corrected(self, estimate: Tensor, along: Tensor, rows: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        """Return the estimate of the rows [R], corrected along orthonormal directions [R, n, …] by answers."""
        ahead, behind = self._on_both_sides(memory["free"][rows], self._radius * along, rows, memory, ask)
        rise = (ahead - behind).nan_to_num(0, 0, 0)  # where both sides are infinite, or one is NaN
        missing = rise - torch.einsum("r...,rn...->rn", estimate, along)
        return estimate + torch.einsum("rn,rn...->r...", missing, along)

    def _on_both_sides(
        self, middle: Tensor, along: Tensor, rows: Tensor, memory: dict[str, Tensor], ask: Ask
    ) -> tuple[Tensor, Tensor]:
        """Return the objective [R, n] ahead of and behind latents [R, …], along vectors [R, n, …] in units of steps."""
        offset = self._step(middle) * along
        places = torch.cat([middle.unsqueeze(1) + offset, middle.unsqueeze(1) - offset], 1)
        ahead, behind = self._answers(places, rows, memory, ask).chunk(2, 1)
        return ahead, behind

    def _step(self, free: Tensor) -> float:
        """Return the Euclidean length of a step of latents [R, …] that moves each dimension by `step_size`."""
        return float(self.options.step * free[0].numel() ** 0.5)

    def _answers(self, places: Tensor, rows: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        """Return the objective [R, n] at latents [R, n, …] of the rows [R], and count the questions."""
        count = places.shape[1]
        memory["queries"][rows] += count
        return ask(places.flatten(0, 1), rows.repeat_interleave(count)).view(-1, count)


class Prior(Nes):
    """As `Nes`, with the gradient of each step as one more direction that is asked about: so far as the objective rises
    along it, the step goes along it (in the spirit of Cheng et al. 2019).

    For the gradient of a related network. It is not remembered: the next step has a newer one.
    """

    needs_gradient = True

    def _with_gradient(
        self, estimate: Tensor, gradient: Tensor, rows: Tensor, memory: dict[str, Tensor], ask: Ask
    ) -> Tensor:
        along = L2(self.options).direction(gradient.nan_to_num(0, 0, 0), rows, memory, ask)
        return self._corrected(estimate, along.unsqueeze(1) / along[0].numel() ** 0.5, rows, memory, ask)


class Boundary(Nes):
    """Across the boundary between labels, for classifiers that return labels (after HopSkipJump, Chen et al. 2020).

    A row remembers a latent that the classifier gets wrong, its mistake: at first the nearest of some random ones that
    lie ever farther off. Each step halves the way there until the boundary is located to less than half a step, asks
    for labels at `queries` places around it, and goes towards where more of them are wrong, as a decaying mean over
    steps estimates it. If the boundary is nearer that way, the next step begins there. Until a mistake is found, steps
    go by chance.
    """

    labels_alone = True
    _max_radius_doublings = 5  # the search for a mistake ends at a radius of 5 · 2⁴ steps
    _directions_searched = 2  # at each radius, to both sides
    _max_halvings = 6  # of the way to a mistake, in one step
    _gap = 0.4  # steps: so near to the boundary halving stops
    _decay = 0.9  # of the mean, in one step
    _nearer = 0.95  # of the distance to the mistake: a place so far along the mean, if wrong, is the next mistake

    def memory(self, free: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        memory = super().memory(free, seeds)
        memory["mistake"] = free.clone()
        memory["mistake_known"] = torch.zeros(len(free), dtype=torch.bool, device=free.device)
        return memory

    def _direction_of(self, rows: Tensor, gradient: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        self._find_mistakes(rows, memory, ask)
        along = self._next_directions(rows, memory)
        direction = along[:, 0].clone()
        has_mistake = memory["mistake_known"][rows]
        if has_mistake.any():
            across = self._across(rows[has_mistake], along[has_mistake], memory, ask)
            by_chance = direction[has_mistake]
            direction[has_mistake] = torch.where(as_column(_is_nonzero(across), across), across, by_chance)
        return direction

    def _find_mistakes(self, rows: Tensor, memory: dict[str, Tensor], ask: Ask) -> None:
        """Search around those of the rows [R] that have no mistake yet, and remember what is found."""
        for doubling in range(self._max_radius_doublings):
            rows = rows[~memory["mistake_known"][rows]]
            if not len(rows):
                return
            free, along = memory["free"][rows], self._next_directions(rows, memory)[:, : self._directions_searched]
            offset = self._radius * 2**doubling * along
            is_wrong = torch.cat(self._on_both_sides(free, offset, rows, memory, ask), 1) > 0
            first = is_wrong.int().argmax(1)
            chosen = torch.cat([offset, -offset], 1)[torch.arange(len(rows), device=first.device), first]
            place = free + self._step(free) * chosen
            has_mistake = is_wrong.any(1)
            memory["mistake"][rows[has_mistake]] = place[has_mistake]
            memory["mistake_known"][rows[has_mistake]] = True

    def _across(self, rows: Tensor, along: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        """Return the direction [R, …] across the boundary, for rows [R] that have a mistake; zero if none shows.

        Labels are asked for along the directions [R, n, …]; the mean and the mistake of the rows are updated.
        """
        free = memory["free"][rows]
        wrong = self._at_boundary(rows, memory, ask)
        ahead, behind = self._on_both_sides(wrong, self._radius * along, rows, memory, ask)
        difference = (ahead > 0).to(along) - (behind > 0).to(along)
        estimate, _ = _unit(torch.einsum("rn,rn...->r...", difference, along))
        mean = self._decay * memory["nes_mean"][rows] + estimate
        across, _ = _unit(mean)
        _, distance = _unit(wrong - free)
        place = free + self._nearer * as_column(distance, across) * across
        is_nearer = as_column(self._answers(place.unsqueeze(1), rows, memory, ask)[:, 0] > 0, place)
        memory["mistake"][rows] = torch.where(is_nearer, place, wrong)
        memory["nes_mean"][rows] = mean
        return torch.where(as_column(_is_nonzero(mean), mean), across, wrong - free)

    def _at_boundary(self, rows: Tensor, memory: dict[str, Tensor], ask: Ask) -> Tensor:
        """Return latents [R, …] that the classifier gets wrong, just beyond the boundary on the way to the mistake."""
        right, wrong = memory["free"][rows], memory["mistake"][rows]
        gap = self._gap * self._step(right)
        for _ in range(self._max_halvings):
            distance = (wrong - right).flatten(1).norm(dim=1)
            wide = (distance > gap).nonzero().flatten()
            if not len(wide):
                break
            middle = (right[wide] + wrong[wide]) / 2
            is_wrong = as_column(self._answers(middle.unsqueeze(1), rows[wide], memory, ask)[:, 0] > 0, middle)
            right[wide] = torch.where(is_wrong, right[wide], middle)
            wrong[wide] = torch.where(is_wrong, middle, wrong[wide])
        return wrong


def _unit(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return vectors [R, …] scaled to length 1 (zeros stay), and the lengths that they had, [R]."""
    length = vectors.flatten(1).norm(dim=1)
    return vectors / as_column(_unless_zero(length), vectors), length


def orthonormal(count: int, length: int, seed: int) -> Tensor:
    """Return random orthonormal vectors, float64 [count, length].

    Args:
        count: number of vectors, at most `length`.
        length: their dimension.
        seed: any integer; the vectors depend on it alone.
    """
    return torch.linalg.qr(normal([length, count], seed % 2**63).double()).Q.mT


def normal(shape: Sequence[int], seed: int) -> Tensor:
    """Return standard normal numbers of a seed, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _unless_zero(values: Tensor) -> Tensor:
    """Return the values with 1 instead of zeros, to divide by."""
    return values.where(values > 0, 1.0)


def _is_nonzero(vectors: Tensor) -> Tensor:
    """Return whether any number of each vector [R, …] is not zero, [R]."""
    return (vectors != 0).flatten(1).any(1)


UPDATES: dict[str, type[Update]] = {
    "sign": Sign,
    "l2": L2,
    "adam": Adam,
    "random": Random,
    "nes": Nes,
    "prior": Prior,
    "boundary": Boundary,
}
