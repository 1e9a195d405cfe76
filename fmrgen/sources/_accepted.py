"""All labels that are true of an example, if a source knows several: from a column, or ImageNet's ReaL labels."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import PurePath
from typing import Any, Protocol

from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.sources.base import label_of_source

REAL = "timm:imagenet-real"
PLACE = " place"  # the key under which an entry holds the name of its image's file
_NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})")
_ROWS_PER_BATCH = 1000
_IMAGENET_CLASSES = 1000


class Accepted(Protocol):
    """Knows the labels that are true of an entry.

    `column` is what an entry needs besides its label; None if that is the name of its image's file.
    """

    column: str | None

    def labels_of(self, entry: Mapping[str, Any], label: int | None, row: int) -> tuple[int, ...]:
        """Return the job's labels that are true of an entry, `label` first if it is among them.

        `entry` holds its other columns, and its file's name under `PLACE`; `label` is its own, None if no group holds
        it. Raises UserError, which names the `row`, if the true labels cannot be read.
        """

    def entries(self, dataset: Any, image: str) -> Iterator[Mapping[str, Any]]:
        """Yield what `labels_of` needs of each row of a dataset on disk, whose images are in the column `image`."""


def accepted_by_column(column: str, features: Any, labels: Labels) -> Accepted:
    """Return the true labels as a column of lists holds them. Raises UserError if there is no such column."""
    from datasets import LargeList, List

    if column not in features:
        raise UserError(f"source.accepted: no column {column!r}; choose from {', '.join(features)}, or {REAL}")
    if not isinstance(features[column], List | LargeList):
        raise UserError(f"source.accepted: {column} holds {type(features[column]).__name__}, no lists of classes")
    return _ByColumn(column, labels)


def accepted_of_real(labels: Labels) -> Accepted:
    """Return the true labels of ReaL, as timm ships them.

    Raises UserError if the source's classes are not ImageNet's.
    """
    class_count = labels.source_size if labels.source_size is not None else len(labels)
    if class_count != _IMAGENET_CLASSES:
        raise UserError(f"source.accepted: {REAL} is of ImageNet's 1,000 classes, and the source has {class_count}")
    return _OfReal(labels)


def _job_labels(labels: Labels, values: Iterable[Any] | None, label: int | None, row: int) -> tuple[int, ...]:
    """Return the job's labels that a stored list holds (names or numbers of classes), `label` first if it is among
    them; empty if none is."""
    names = labels.source_names or labels.names
    accepted: list[int] = []
    for value in values or ():
        number = names.index(value) if isinstance(value, str) and value in names else value
        job_label = label_of_source(labels, number, row, "source.accepted")
        if job_label is not None and job_label not in accepted:
            accepted.append(job_label)
    if label is not None and label in accepted:
        accepted.remove(label)
        accepted.insert(0, label)
    return tuple(accepted)


class _ByColumn:
    def __init__(self, column: str, labels: Labels) -> None:
        self.column: str | None = column
        self._labels = labels

    def labels_of(self, entry: Mapping[str, Any], label: int | None, row: int) -> tuple[int, ...]:
        return _job_labels(self._labels, entry[str(self.column)], label, row)

    def entries(self, dataset: Any, image: str) -> Iterator[Mapping[str, Any]]:
        for values in dataset.with_format(None)[self.column]:
            yield {str(self.column): values}


class _OfReal:
    column: str | None = None

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._real_labels = json.loads((files("timm.data") / "_info/imagenet_real_labels.json").read_text())

    def labels_of(self, entry: Mapping[str, Any], label: int | None, row: int) -> tuple[int, ...]:
        name = PurePath(str(entry[PLACE])).name
        match = _NUMBERED.match(name)
        if match is None or not 1 <= int(match[1]) <= len(self._real_labels):
            raise UserError(
                f"source.accepted: {REAL} goes by names such as ILSVRC2012_val_00000001.JPEG, and id {row} is called "
                f"{name}; give a column of lists instead"
            )
        return _job_labels(self._labels, self._real_labels[int(match[1]) - 1], label, row)

    def entries(self, dataset: Any, image: str) -> Iterator[Mapping[str, Any]]:
        for table in dataset.select_columns([image]).with_format("arrow").iter(_ROWS_PER_BATCH):
            for path in table[image].combine_chunks().field("path").to_pylist():
                yield {PLACE: path}
