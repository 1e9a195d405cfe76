"""The images that people are shown: a stratified sample of a split, with originals as controls."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fmrgen.errors import UserError

_ORIGINALS = 0.1  # shown in addition, as a share of the sample
_FEWEST_ORIGINALS = 30  # which a person's rate of errors is estimated from
_BANDS = 3  # of iterations: thirds
_FEWEST_PER_STRATUM = 2  # a single row has no variance


Kind = Literal["image", "original"]


@dataclass(frozen=True)
class Shown:
    """An image that a person is shown.

    Attributes:
        id: of its row.
        which: the perturbed `image`, or as a control its `original`.
    """

    id: int
    which: Kind


def draw(columns: Mapping[str, np.ndarray], count: int, seed: int) -> list[Shown]:
    """Return a sample of a split's valid rows, and originals: a tenth of so many, 30 at least.

    Strata are the images that fooled the split's classifier and those that did not, each in thirds by iterations. Half
    of the sample is of images that fooled it, since a corrected FMR depends on those most. Within a stratum classes are
    spread evenly.

    Args:
        columns: `id`, `label`, `valid`, `iterations` and `prediction` of all rows, [N] each.
        count: perturbed images in the sample; all, if there are fewer.
        seed: of the draw.

    Raises:
        UserError: no row is valid.
    """
    random = np.random.default_rng(seed)
    valid = columns["valid"].astype(bool)
    strata = strata_of(columns)
    drawn = _allocate({name: len(rows) for name, rows in strata.items()}, min(count, int(valid.sum())))
    shown: list[Shown] = []
    for name, rows in strata.items():
        by_class = rows[np.lexsort((random.random(len(rows)), columns["label"][rows]))]
        # Evenly spaced places in the order of the classes, from a random start.
        places = (np.arange(drawn[name]) + random.random()) * len(rows) / max(drawn[name], 1)
        for row in by_class[places.astype(int)]:
            shown.append(Shown(int(columns["id"][row]), "image"))
    originals = min(max(round(_ORIGINALS * len(shown)), _FEWEST_ORIGINALS), int(valid.sum()))
    for row in random.choice(np.flatnonzero(valid), originals, replace=False):
        shown.append(Shown(int(columns["id"][row]), "original"))
    return shown


def strata_of(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the rows of each stratum, by its name. Raises UserError if no row is valid."""
    valid = columns["valid"].astype(bool)
    if not valid.any():
        raise UserError("no row of the split is valid, so there is nothing to judge")
    fooled = columns["prediction"] != columns["label"]
    strata = {}
    for group, members in (("fooled", valid & fooled), ("right", valid & ~fooled)):
        if not members.any():
            continue
        rows = np.flatnonzero(members)
        iterations = columns["iterations"][rows]
        edges = np.unique(np.quantile(iterations, np.arange(1, _BANDS) / _BANDS))
        band = np.searchsorted(edges, iterations, side="left")
        for number in np.unique(band):
            in_band = band == number
            low, high = iterations[in_band].min(), iterations[in_band].max()
            strata[f"{group} {low}-{high}"] = rows[in_band]
    return strata


def _allocate(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Return how many rows to draw of each stratum: half of the fooled, if there are so many, in proportion within."""
    groups: dict[str, list[str]] = {}
    for name in sizes:
        groups.setdefault(name.partition(" ")[0], []).append(name)
    available = {}
    for group, names in groups.items():
        available[group] = sum(sizes[name] for name in names)
    wanted = dict.fromkeys(groups, 0)
    for group in sorted(groups, key=available.__getitem__):
        remaining = count - sum(wanted.values())
        open_groups = sum(number == 0 for number in wanted.values())
        wanted[group] = min(available[group], remaining // open_groups)
    largest = max(groups, key=available.__getitem__)
    wanted[largest] = min(available[largest], wanted[largest] + count - sum(wanted.values()))
    drawn: dict[str, int] = {}
    for group, names in groups.items():
        drawn |= _allocate_in_proportion({name: sizes[name] for name in names}, wanted[group])
    return drawn


def _allocate_in_proportion(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Return `count` rows shared out by the sizes of strata; what rounding leaves goes to the largest fractions."""
    total = sum(sizes.values())
    exact = {name: count * size / total for name, size in sizes.items()}
    drawn = {}
    for name, size in sizes.items():
        drawn[name] = min(size, max(int(exact[name]), _FEWEST_PER_STRATUM))
    by_fraction = sorted(sizes, key=lambda name: exact[name] - int(exact[name]), reverse=True)
    while sum(drawn.values()) < count:
        for name in by_fraction:
            if sum(drawn.values()) < count and drawn[name] < sizes[name]:
                drawn[name] += 1
    return drawn
