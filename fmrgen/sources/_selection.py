"""Which examples of a source a job takes: so many of all, so many of each class, in a drawn order."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np

from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.sources.base import SourceConfig


class _Labelled(Protocol):
    @property
    def label(self) -> int: ...


Entry = TypeVar("Entry", bound=_Labelled)


def select(entries: Iterable[Entry], labels: Labels, config: SourceConfig) -> list[Entry]:
    """The examples that a job takes of `entries`, which are in the order of their source.

    They are shuffled, then taken by class, then limited. A limit takes the first ones where they are shuffled, or of as
    many classes as they can be; else, as in a folder sorted by class, it takes them evenly from all.

    Raises:
        UserError: a class has fewer examples than `per_class`.
    """
    if config.shuffle_seed is not None:
        entries = list(entries)
        order = np.random.default_rng(config.shuffle_seed).permutation(len(entries))
        entries = [entries[place] for place in order]
    if config.per_class is not None:
        entries = _by_class(entries, labels, config.per_class)
    if config.limit is None:
        return list(entries)
    following = iter(entries)
    first = list(islice(following, config.limit))
    enough = min(len(first), len(labels))
    if config.shuffle_seed is not None or len({entry.label for entry in first}) >= enough:
        return first  # without looking through the rest, which may be long
    found = [*first, *following]
    if len(found) == len(first):
        return first
    return [found[place * len(found) // config.limit] for place in range(config.limit)]


def _by_class(entries: Iterable[Entry], labels: Labels, count: int) -> list[Entry]:
    taken: Counter[int] = Counter()
    kept = []
    for entry in entries:
        if taken[entry.label] < count:
            taken[entry.label] += 1
            kept.append(entry)
    if fewer := [(name, taken[label]) for label, name in enumerate(labels.names) if 0 < taken[label] < count]:
        name, found = fewer[0]
        others = f", and {len(fewer) - 1} other classes fewer too" if len(fewer) > 1 else ""
        raise UserError(f"source.per_class: class {name} has {found} examples{others}; ask for no more than there are")
    return kept


def refuse_selection_of_a_stream(config: SourceConfig, cure: str) -> None:
    """Raises UserError for what only those can do who see all labels before they begin."""
    for key in ("per_class", "shuffle_seed"):
        if getattr(config, key) is not None:
            raise UserError(f"source.{key}: needs all labels at once, and a stream is read from its beginning; {cure}")
