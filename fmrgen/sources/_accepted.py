"""All labels that are true of an example, if a source knows several: from a column, or ImageNet's ReaL labels."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.sources.base import label_of_source

REAL = "timm:imagenet-real"
PLACE = " place"  # the key under which an entry holds the name of its image's file


class Accepted:
    """Knows the labels that are true of an entry, from the values that it holds itself.

    `column` is what an entry needs besides its label; None if that is the name of its image's file.
    """

    def __init__(self, labels: Labels, column: str | None) -> None:
        self.column = column
        self._labels = labels

    def _values(self, entry: Mapping[str, Any], row: int) -> Iterable[Any] | None:
        """Return the classes, names or numbers, that are true of an entry."""
        return entry[str(self.column)]

    def labels_of(self, entry: Mapping[str, Any], label: int | None, row: int) -> tuple[int, ...]:
        """Return the job's labels that are true of an entry, `label` first if it is among them; empty if none is.

        `entry` holds its other columns, and its file's name under `PLACE`; `label` is its own, None if no group holds
        it. Raises UserError, which names the `row`, if the true labels cannot be read.
        """
        names = self._labels.source_names or self._labels.names
        accepted: dict[int, None] = {}  # in their order, each once
        for value in self._values(entry, row) or ():
            number = names.index(value) if isinstance(value, str) and value in names else value
            job_label = label_of_source(self._labels, number, row, "source.accepted")
            if job_label is not None:
                accepted[job_label] = None
        if label in accepted:
            accepted = {label: None} | accepted
        return tuple(accepted)

    def entries(self, dataset: Any, image: str) -> Iterator[Mapping[str, Any]]:
        """Yield what `labels_of` needs of each row of a dataset on disk, whose images are in the column `image`."""
        for values in dataset.with_format(None)[self.column]:
            yield {str(self.column): values}


class AcceptedByReal(Accepted):
    """The true labels of ReaL, as timm ships them, by the names of ImageNet's files.

    Raises UserError if the source's classes are not ImageNet's.
    """

    def __init__(self, labels: Labels) -> None:
        super().__init__(labels, None)
        classes = labels.source_size if labels.source_size is not None else len(labels)
        if classes != 1000:
            raise UserError(f"source.accepted: {REAL} is of ImageNet's 1,000 classes, and the source has {classes}")
        self._real_labels = json.loads((files("timm.data") / "_info/imagenet_real_labels.json").read_text())

    def _values(self, entry: Mapping[str, Any], row: int) -> Iterable[Any] | None:
        name = PurePath(str(entry[PLACE])).name
        match = re.match(r"ILSVRC2012_val_(\d{8})", name)
        if match is None or not 1 <= int(match[1]) <= len(self._real_labels):
            raise UserError(
                f"source.accepted: {REAL} goes by names such as ILSVRC2012_val_00000001.JPEG, and id {row} is called "
                f"{name}; give a column of lists instead"
            )
        return self._real_labels[int(match[1]) - 1]

    def entries(self, dataset: Any, image: str) -> Iterator[Mapping[str, Any]]:
        for table in dataset.select_columns([image]).with_format("arrow").iter(1000):
            for path in table[image].combine_chunks().field("path").to_pylist():
                yield {PLACE: path}


def accepted_of(source: str, features: Any, labels: Labels) -> Accepted:
    """Return the true labels as `REAL` or a column of lists holds them. Raises UserError if there is no such column."""
    from datasets import LargeList, List

    if source == REAL:
        return AcceptedByReal(labels)
    if source not in features:
        raise UserError(f"source.accepted: no column {source!r}; choose from {', '.join(features)}, or {REAL}")
    if not isinstance(features[source], List | LargeList):
        raise UserError(f"source.accepted: {source} holds {type(features[source]).__name__}, no lists of classes")
    return Accepted(labels, source)
