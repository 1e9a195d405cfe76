"""Which images people see, and in what order: a stratified sample, with controls and repeats mixed in."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fmrgen.errors import UserError
from fmrgen.split.judgements import Which

_REPEATED, _ORIGINALS, _RECONSTRUCTIONS = 0.05, 0.1, 0.05  # of the sample, shown besides
_FEWEST_ORIGINALS = 30  # how often a rater misses a label is known from these
_BANDS = 3  # of iterations
_FEWEST = 2  # of a stratum: one has no variance


@dataclass(frozen=True)
class Shown:
    """An image that a person is shown.

    Attributes:
        id: of its row.
        which: the perturbed `image`, or as a control its `original` or plain `reconstruction`.
        stratum: of the sample, of a perturbed image.
        repeat: 1 where the person has seen it before.
    """

    id: int
    which: Which
    stratum: str | None = None
    repeat: int = 0


@dataclass(frozen=True)
class Sample:
    """What all raters of a split are shown, each in an order of their own; `strata` are their sizes in the split."""

    shown: list[Shown]
    strata: dict[str, int]
    seed: int

    @property
    def contents(self) -> str:
        """`43 images: 12 perturbed, and as controls 30 originals, 0 plain reconstructions and 1 image again`."""
        counts = Counter("again" if entry.repeat else entry.which for entry in self.shown)
        return (
            f"{len(self.shown)} images: {counts['image']} perturbed, and as controls {counts['original']} originals, "
            f"{counts['reconstruction']} plain reconstructions and {counts['again']} of the perturbed again"
        )

    def order(self, rater: str) -> list[Shown]:
        """What a rater is shown, in order; what is shown again comes late."""
        digest = hashlib.blake2b(f"{self.seed}:{rater}".encode(), digest_size=8).digest()
        random = np.random.default_rng(int.from_bytes(digest))
        first = [entry for entry in self.shown if not entry.repeat]
        again = [entry for entry in self.shown if entry.repeat]
        ordered = [first[place] for place in random.permutation(len(first))]
        for entry in (again[place] for place in random.permutation(len(again))):
            ordered.insert(int(random.integers(len(ordered) * 2 // 3, len(ordered) + 1)), entry)
        seen = set[tuple[int, str]]()
        shown = []
        for entry in ordered:  # a repeat may have come before what it repeats
            key = (entry.id, entry.which)
            shown.append(Shown(entry.id, entry.which, entry.stratum, int(key in seen)))
            seen.add(key)
        return shown


def draw(columns: Mapping[str, np.ndarray], count: int, seed: int, *, reconstructions: bool) -> Sample:
    """Draws a sample of a split's valid rows.

    Strata are who was fooled, or not, by thirds of the iterations: half of the sample is of images that fooled the
    split's classifier, since those decide what a corrected FMR is. Within a stratum classes are spread evenly.

    Args:
        columns: `id`, `label`, `valid`, `iterations` and `prediction` of all rows, [N] each.
        count: perturbed images in the sample; all, where there are fewer.
        seed: of the draw.
        reconstructions: whether there are plain reconstructions to be shown among the controls.

    Raises:
        UserError: no row is valid.
    """
    random = np.random.default_rng(seed)
    valid = columns["valid"].astype(bool)
    if not valid.any():
        raise UserError("no row of the split is valid, so there is nothing to audit")
    strata = _strata(columns, valid)
    taken = _allocate({name: len(rows) for name, rows in strata.items()}, min(count, int(valid.sum())))
    shown = []
    for name, rows in strata.items():
        by_class = rows[np.lexsort((random.random(len(rows)), columns["label"][rows]))]
        places = (np.arange(taken[name]) + random.random()) * len(rows) / max(taken[name], 1)
        shown += [Shown(int(columns["id"][row]), "image", name) for row in by_class[places.astype(int)]]
    total = len(shown)
    controls = {"original": max(round(_ORIGINALS * total), _FEWEST_ORIGINALS)}
    if reconstructions:
        controls["reconstruction"] = round(_RECONSTRUCTIONS * total)
    for which, wanted in controls.items():
        rows = random.choice(np.flatnonzero(valid), min(wanted, int(valid.sum())), replace=False)
        shown += [Shown(int(columns["id"][row]), which) for row in rows]  # type: ignore[arg-type]
    again = random.choice(total, round(_REPEATED * total), replace=False)
    shown += [Shown(shown[place].id, "image", shown[place].stratum, 1) for place in again]
    return Sample(shown, {name: len(rows) for name, rows in strata.items()}, seed)


def _strata(columns: Mapping[str, np.ndarray], valid: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of each stratum."""
    fooled = columns["prediction"] != columns["label"]
    found = {}
    for group, of_group in (("fooled", valid & fooled), ("right", valid & ~fooled)):
        if not of_group.any():
            continue
        rows = np.flatnonzero(of_group)
        edges = np.unique(np.quantile(columns["iterations"][rows], np.arange(1, _BANDS) / _BANDS))
        band = np.searchsorted(edges, columns["iterations"][rows], side="left")
        for number in np.unique(band):
            inside = rows[band == number]
            low, high = columns["iterations"][inside].min(), columns["iterations"][inside].max()
            found[f"{group} {low}-{high}"] = inside
    return found


def _allocate(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """How many of each stratum are drawn: half of who was fooled where there are so many, and in proportion within."""
    groups: dict[str, list[str]] = {}
    for name in sizes:
        groups.setdefault(name.partition(" ")[0], []).append(name)
    room = {group: sum(sizes[name] for name in names) for group, names in groups.items()}
    wanted = dict.fromkeys(groups, 0)
    for group in sorted(groups, key=room.__getitem__):
        left = count - sum(wanted.values())
        wanted[group] = min(room[group], left // sum(not wanted[other] for other in groups))
    largest = max(groups, key=room.__getitem__)
    wanted[largest] = min(room[largest], wanted[largest] + count - sum(wanted.values()))
    taken = dict[str, int]()
    for group, names in groups.items():
        exact = {name: wanted[group] * sizes[name] / room[group] for name in names}
        of_group = {name: min(sizes[name], max(int(exact[name]), _FEWEST)) for name in names}
        by_rest = sorted(names, key=lambda name: exact[name] - int(exact[name]), reverse=True)
        while sum(of_group.values()) < wanted[group]:
            for name in by_rest:
                if sum(of_group.values()) < wanted[group] and of_group[name] < sizes[name]:
                    of_group[name] += 1
        taken |= of_group
    return taken
