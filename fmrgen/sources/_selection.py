"""Selects the examples of a source that a job takes: in which order, how many of each class, how many of all."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice

import numpy as np

from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.sources.base import RawExample, SourceConfig


def select(entries: Iterable[RawExample], labels: Labels, config: SourceConfig) -> list[RawExample]:
    """Return the examples that a job takes of `entries`.

    They are shuffled, then taken by class, then limited. A limit takes the first ones if they are shuffled, or if these
    are of as many classes as they can be; otherwise, as in a folder sorted by class, it takes them evenly from all.

    The entries are in the order of their source, and read no further than needed. Raises UserError if a class has fewer
    examples than `per_class`.
    """
    if config.shuffle_seed is not None:
        unshuffled = list(entries)
        order = np.random.default_rng(config.shuffle_seed).permutation(len(unshuffled))
        entries = [unshuffled[position] for position in order]
    if config.per_class is not None:
        entries = _first_of_each_class(entries, labels, config.per_class)
    if config.limit is None:
        return list(entries)
    remaining = iter(entries)
    first = list(islice(remaining, config.limit))
    present_classes = {entry.label for entry in first}
    most_classes = min(len(first), len(labels))
    if config.shuffle_seed is not None or len(present_classes) >= most_classes:
        return first  # without looking through the rest, which may be long
    everything = [*first, *remaining]
    if len(everything) == len(first):
        return first
    return [everything[index * len(everything) // config.limit] for index in range(config.limit)]


def _first_of_each_class(entries: Iterable[RawExample], labels: Labels, count: int) -> list[RawExample]:
    """Return the first `count` entries of each class. Raises UserError if a class has some, but fewer."""
    counts: Counter[int] = Counter()
    selected = []
    for entry in entries:
        if counts[entry.label] < count:
            counts[entry.label] += 1
            selected.append(entry)
    short_labels = [label for label in range(len(labels)) if 0 < counts[label] < count]
    if short_labels:
        label = short_labels[0]
        others = f", and {len(short_labels) - 1} other classes fewer too" if len(short_labels) > 1 else ""
        raise UserError(
            f"source.per_class: class {labels.names[label]} has {counts[label]} examples{others}; ask for no more than "
            "there are"
        )
    return selected


def refuse_selection_of_a_stream(config: SourceConfig, cure: str) -> None:
    """Raise UserError if the config shuffles or takes by class, which needs all labels before the first example.

    `cure` ends the message.
    """
    for key in ("per_class", "shuffle_seed"):
        if getattr(config, key) is not None:
            raise UserError(f"source.{key}: needs all labels at once, and a stream is read from its beginning; {cure}")
