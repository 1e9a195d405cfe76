"""The images that people are shown: a random sample of a split, with originals as controls."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fmrgen.errors import UserError

_ORIGINALS = 0.1  # shown in addition, as a share of the sample
_FEWEST_ORIGINALS = 30  # which show how often a person errs

Kind = Literal["image", "original"]


@dataclass(frozen=True)
class Shown:
    """An image that a person is shown, of a row: the perturbed `image`, or as a control its `original`."""

    id: int
    which: Kind


def draw(columns: Mapping[str, np.ndarray], count: int, seed: int) -> list[Shown]:
    """Return a random sample of a split's valid rows, and originals: a tenth of so many, 30 at least.

    The columns are `id` and `valid` of all rows, [N] each. If there are fewer than `count` valid rows, all are drawn.
    Raises UserError if no row is valid.
    """
    ids = columns["id"][columns["valid"]]
    if not len(ids):
        raise UserError("no row of the split is valid, so there is nothing to judge")
    random = np.random.default_rng(seed)
    images = random.choice(ids, min(count, len(ids)), replace=False)
    originals = min(max(round(_ORIGINALS * len(images)), _FEWEST_ORIGINALS), len(ids))
    controls = random.choice(ids, originals, replace=False)
    shown = [Shown(example_id, "image") for example_id in images.tolist()]
    return shown + [Shown(example_id, "original") for example_id in controls.tolist()]
