"""Rows of randomly moved images: which original each shows, how it was moved, and whether that is what is stored."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from fmrgen.engine.images import to_batch, to_bytes
from fmrgen.engine.interfaces import Latents
from fmrgen.engine.models import row_seed
from fmrgen.errors import UserError
from fmrgen.generators.moves import Config as MovesConfig
from fmrgen.generators.moves import Moves, move_of
from fmrgen.recipe.build import build_recorded_generator
from fmrgen.recipe.job import Recipe
from fmrgen.records import Perturbed
from fmrgen.storage.provenance import Provenance


class RecordedMove(NamedTuple):
    """The move of a row, under the names of its columns."""

    original_id: int
    move: str
    amount: float


def with_move(row: Perturbed, recipe: Recipe) -> Perturbed:
    """Return a row with the values of `original_id`, `move` and `amount`; unchanged under any other generator."""
    if not isinstance(recipe.generator, MovesConfig):
        return row
    move = move_of(row_seed(recipe.perturb.seed, row.id), recipe.generator.family)
    return replace(row, original_id=row.id // (recipe.source.copies or 1), move=move.kind, amount=move.amount)


class RecordedMoves:
    """The moves that a split's recipe asks for, to be compared with what the split holds.

    Raises:
        UserError: the recipe's generator does not move images.
    """

    def __init__(self, provenance: Provenance) -> None:
        recipe = provenance.recipe
        generator = build_recorded_generator(recipe.generator.tree, trust=False, device="cpu")
        if not isinstance(generator, Moves):
            raise UserError("the recipe's generator does not move images")
        copies = recipe.source.get("copies")
        self._copies = copies if isinstance(copies, int) and copies > 0 else 1
        self._generator, self._seed = generator, recipe.perturb.seed

    def of_row(self, example_id: int) -> RecordedMove:
        """Return the move of a row, by its id."""
        move = move_of(row_seed(self._seed, example_id), self._generator.family)
        return RecordedMove(example_id // self._copies, move.kind, move.amount)

    def images(self, ids: Sequence[int], originals: np.ndarray) -> np.ndarray:
        """Return originals, uint8 [B, H, W, 3], after the moves of the rows `ids`."""
        self._generator.row_seeds = [row_seed(self._seed, example_id) for example_id in ids]
        free, fixed = self._generator.encode(to_batch(originals), torch.zeros(len(ids), dtype=torch.int64))
        moved = self._generator.decode(Latents(torch.ones_like(free), fixed))
        return to_bytes(moved).permute(0, 2, 3, 1).numpy()

    def differences(self, batch: Mapping[str, Sequence[Any]], row: int) -> dict[str, tuple[Any, Any]]:
        """Return the columns of a row that do not hold its move, by name: what is stored, and what it should be."""
        wrong = {}
        for name, value in self.of_row(batch["id"][row])._asdict().items():
            stored = batch[name][row]
            is_same = stored == value
            if isinstance(value, float):
                is_same = bool(np.isclose(stored, value))
            if not is_same:
                wrong[name] = stored, value
        return wrong
