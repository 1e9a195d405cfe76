"""The images that people see, and their order: a stratified sample, with controls and repeats mixed in."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fmrgen.errors import UserError

# Images shown in addition, as shares of the sample.
_REPEATED = 0.05
_ORIGINALS = 0.1
_RECONSTRUCTIONS = 0.05
FEWEST_ORIGINALS = 30  # which a rater's rate of errors is estimated from
_BANDS = 3  # of iterations: thirds
_FEWEST_PER_STRATUM = 2  # a single row has no variance


Which = Literal["image", "original", "reconstruction"]


@dataclass(frozen=True)
class Shown:
    """An image that a person is shown.

    Attributes:
        id: of its row.
        which: the perturbed `image`, or as a control its `original` or plain `reconstruction`.
        stratum: of the sample, of a perturbed image.
        repeat: 1 if the person has seen it before, else 0.
    """

    id: int
    which: Which
    stratum: str | None = None
    repeat: int = 0


@dataclass(frozen=True)
class Sample:
    """The images that all raters of a split are shown, each in another order.

    Attributes:
        shown: the images.
        strata: the size of each stratum in the split.
        seed: of the sample and of the orders.
    """

    shown: list[Shown]
    strata: dict[str, int]
    seed: int

    @property
    def contents(self) -> str:
        """The numbers of images in words, as the end of a sentence."""
        counts = Counter(entry.which for entry in self.shown if not entry.repeat)
        repeats = len(self.shown) - counts.total()
        return (
            f"{len(self.shown)} images: {counts['image']} perturbed, and as controls {counts['original']} originals, "
            f"{counts['reconstruction']} plain reconstructions and {repeats} of the perturbed again"
        )

    def order(self, rater: str) -> list[Shown]:
        """Return what a rater is shown, in order; repeats come in the last third."""
        digest = hashlib.blake2b(f"{self.seed}:{rater}".encode(), digest_size=8).digest()
        random = np.random.default_rng(int.from_bytes(digest))
        first = [entry for entry in self.shown if not entry.repeat]
        again = [entry for entry in self.shown if entry.repeat]
        ordered = [first[place] for place in random.permutation(len(first))]
        for place in random.permutation(len(again)):
            earliest = len(ordered) * 2 // 3
            ordered.insert(int(random.integers(earliest, len(ordered) + 1)), again[place])
        seen: set[tuple[int, str]] = set()
        shown = []
        for entry in ordered:  # the later one is the repeat, wherever it was inserted
            key = (entry.id, entry.which)
            shown.append(Shown(entry.id, entry.which, entry.stratum, int(key in seen)))
            seen.add(key)
        return shown


def draw(
    columns: Mapping[str, np.ndarray],
    count: int,
    seed: int,
    *,
    reconstructions: bool,
    fewest_originals: int = FEWEST_ORIGINALS,
) -> Sample:
    """Return a sample of a split's valid rows.

    Strata are the images that fooled the split's classifier and those that did not, each in thirds by iterations. Half
    of the sample is of images that fooled it, since a corrected FMR depends on those most. Within a stratum classes are
    spread evenly.

    Args:
        columns: `id`, `label`, `valid`, `iterations` and `prediction` of all rows, [N] each.
        count: perturbed images in the sample; all, if there are fewer.
        seed: of the draw.
        reconstructions: whether to show plain reconstructions among the controls.
        fewest_originals: how many originals to show among the controls, at least.

    Raises:
        UserError: no row is valid.
    """
    random = np.random.default_rng(seed)
    valid = columns["valid"].astype(bool)
    if not valid.any():
        raise UserError("no row of the split is valid, so there is nothing to audit")
    strata = _strata(columns, valid)
    sizes = {name: len(rows) for name, rows in strata.items()}
    drawn = _allocate(sizes, min(count, int(valid.sum())))
    shown: list[Shown] = []
    for name, rows in strata.items():
        by_class = rows[np.lexsort((random.random(len(rows)), columns["label"][rows]))]
        # Evenly spaced places in the order of the classes, from a random start.
        places = (np.arange(drawn[name]) + random.random()) * len(rows) / max(drawn[name], 1)
        for row in by_class[places.astype(int)]:
            shown.append(Shown(int(columns["id"][row]), "image", name))
    total = len(shown)
    controls: dict[Which, int] = {"original": max(round(_ORIGINALS * total), fewest_originals)}
    if reconstructions:
        controls["reconstruction"] = round(_RECONSTRUCTIONS * total)
    for which, number in controls.items():
        rows = random.choice(np.flatnonzero(valid), min(number, int(valid.sum())), replace=False)
        for row in rows:
            shown.append(Shown(int(columns["id"][row]), which))
    for place in random.choice(total, round(_REPEATED * total), replace=False):
        shown.append(Shown(shown[place].id, "image", shown[place].stratum, 1))
    return Sample(shown, sizes, seed)


def _strata(columns: Mapping[str, np.ndarray], valid: np.ndarray) -> dict[str, np.ndarray]:
    """Return the rows of each stratum."""
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
