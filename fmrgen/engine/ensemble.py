"""The attacks on each image: one, or several of which the worst accepted image is stored."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fmrgen.engine.models import row_seed
from fmrgen.engine.options import ALONG_GRADIENT, PerturbOptions, objectives_of
from fmrgen.engine.slots import Rows, as_column
from fmrgen.engine.updates import UPDATES, Random, normal
from fmrgen.records import AttackRecord, Perturbed


class Ensemble:
    """The runs of Algorithm 1 that an image goes through, one after the other, until one has fooled the classifier.

    All start from the same encoding and take the same slot.
    """

    def __init__(self, options: PerturbOptions) -> None:
        self.options, self.runs = options, options.runs
        self.rules = [UPDATES[run.update](run) for run in self.runs]
        self.objectives = objectives_of(options)
        self.has_noise = any(run.start_noise for run in self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def needs_gradient(self) -> bool:
        """Whether any rule uses gradients."""
        return any(rule.needs_gradient for rule in self.rules)

    def new_columns(self, free: Tensor, ids: Sequence[int], target_classes: Tensor | None, controlled: bool) -> Rows:
        """Return the columns of new rows that depend on attack and seed, with the values of the first attack.

        `free` [B, …] are latents of the rows, and `target_classes` [B, attacks] the class that each attack leads to
        (None if no attack is targeted). `controlled` says whether some rows take random steps too.
        """
        columns: Rows = {}
        for number in reversed(range(len(self))):  # each rule's memory; where rules share a column, the first's
            columns |= self.columns_of(number, free, ids)
        if controlled:
            columns |= Random(self.options).memory(free, self._seeds(0, ids, "update"))
        if target_classes is not None:
            columns["target_classes"] = target_classes
            columns["target_class"] = target_classes[:, 0]
        return columns

    def columns_of(self, number: int, free: Tensor, ids: Sequence[int]) -> Rows:
        """Return the columns with which rows of latents `free` [B, …] begin an attack, given its number from 0.

        They are its number, step size and start noise, the memory of its rule, whether it follows the gradient, and
        which of several objectives it climbs.
        """
        run, count = self.runs[number], len(ids)
        columns = dict(self.rules[number].memory(free, self._seeds(number, ids, "update")))
        if self.has_noise:
            columns["start_noise"] = torch.zeros_like(free)
        if run.start_noise:
            noise = [normal(free.shape[1:], seed) for seed in self._seeds(number, ids, "start")]
            columns["start_noise"] = run.start_noise * torch.stack(noise).to(free)
        columns["attack"] = torch.full((count,), number, device=free.device)
        columns["step_size"] = free.new_full((count,), run.step)
        columns["follows_gradient"] = torch.full((count,), run.update in ALONG_GRADIENT, device=free.device)
        if len(self.objectives) > 1:
            objective = self.objectives.index(run.objective)
            columns["objective_number"] = torch.full((count,), objective, device=free.device)
        return columns

    def _seeds(self, number: int, ids: Sequence[int], purpose: str) -> list[int]:
        return [attack_seed(self.options.seed, example_id, purpose, number) for example_id in ids]

    def direction(self, gradient: Tensor, moving: Tensor, memory: Rows, query: Callable[..., Tensor]) -> Tensor:
        """Return the direction of each row, [S, …], by the rule of its attack; see `Update.direction`."""
        direction = torch.zeros_like(gradient)
        for number, rule in enumerate(self.rules):
            rows = memory["attack"] == number
            along = rule.direction(gradient, moving & rows, memory, query)
            direction = torch.where(as_column(rows, along), along, direction)
        return direction


def attack_seed(seed: int, example_id: int, purpose: str, number: int) -> int:
    """Return the seed of what is random in an attack on an example: the first attack's is that of a run alone."""
    return row_seed(seed, example_id, f"{purpose}:{number}" if number else purpose)


def worst_of(results: Sequence[Perturbed]) -> Perturbed:
    """Return the row of an example: the result of the attack whose image is the worst for the classifier.

    That is one that fools it before one that does not, then the highest margin, then the earliest attack. If no attack
    had a step accepted, it is the first one's.

    The results are in the order of the attacks; `attacks` of each is its own record.
    """
    worst, number = results[0], 0
    for other_number, other in enumerate(results):
        if other.valid and (not worst.valid or _badness(other) > _badness(worst)):
            worst, number = other, other_number
    records: list[AttackRecord] = []
    for result in results:
        records += result.attacks
    first, last = results[0], results[-1]
    return replace(
        worst,
        attack=number,
        attacks=records,
        queries=last.queries,  # counted over all attacks
        control_predictions=first.control_predictions,
        control_objectives=first.control_objectives,
    )


def _badness(result: Perturbed) -> tuple[bool, float]:
    return not result.accepts(result.prediction), result.margin
