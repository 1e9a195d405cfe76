"""Which labels are true of an example, where a source knows several: by a column, or by the ReaL labels of ImageNet."""

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
PLACE = " place"  # under which an entry has the name of its image's file
_NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})")
_TOGETHER = 1000  # rows


class Accepted(Protocol):
    """`column` is what an entry needs besides its label, None where that is its image's file."""

    column: str | None

    def of(self, entry: Mapping[str, Any], label: int | None, row: int) -> tuple[int, ...]:
        """The job's labels that are true of an entry, `label` first where it is one of them. Raises UserError."""

    def entries(self, dataset: Any, image: str) -> Iterator[Mapping[str, Any]]:
        """What it needs of each row of a dataset on disk."""


def accepted_by_column(column: str, features: Any, labels: Labels) -> Accepted:
    """Raises UserError where there is no such column, or it holds no lists."""
    from datasets import LargeList, List

    if column not in features:
        raise UserError(f"source.accepted: no column {column!r}; choose from {', '.join(features)}, or {REAL}")
    if not isinstance(features[column], List | LargeList):
        raise UserError(f"source.accepted: {column} holds {type(features[column]).__name__}, no lists of classes")
    return _ByColumn(column, labels)


def accepted_of_real(labels: Labels) -> Accepted:
    """Those of ReaL, as timm has them. Raises UserError where the job's classes are not made of ImageNet's."""
    known = labels.source_size if labels.source_size is not None else len(labels)
    if known != 1000:
        raise UserError(f"source.accepted: {REAL} is of ImageNet's 1,000 classes, and the source has {known}")
    return _OfReal(labels)


def _accepted_of(labels: Labels, values: Iterable[Any] | None, label: int | None, row: int) -> tuple[int, ...]:
    """The job's labels that are all true of an example, of a stored list of such: `label` first where it is among them.
    Empty where none is."""
    names = labels.source_names or labels.names
    numbers = (names.index(value) if isinstance(value, str) and value in names else value for value in values or ())
    found = (label_of_source(labels, number, row, "source.accepted") for number in numbers)
    accepted = dict.fromkeys(one for one in found if one is not None)
    return tuple(sorted(accepted, key=lambda one: one != label))


class _ByColumn:
    def __init__(self, column: str, labels: Labels) -> None:
        self.column: str | None = column
        self._labels = labels

    def of(self, entry: Mapping[str, Any], label: int | None, row: int) -> tuple[int, ...]:
        return _accepted_of(self._labels, entry[str(self.column)], label, row)

    def entries(self, dataset: Any, image: str) -> Iterator[Mapping[str, Any]]:
        for values in dataset.with_format(None)[self.column]:
            yield {str(self.column): values}


class _OfReal:
    column: str | None = None

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._true = json.loads((files("timm.data") / "_info/imagenet_real_labels.json").read_text())

    def of(self, entry: Mapping[str, Any], label: int | None, row: int) -> tuple[int, ...]:
        name = PurePath(str(entry[PLACE])).name
        if (found := _NUMBERED.match(name)) is None or not 1 <= int(found[1]) <= len(self._true):
            raise UserError(
                f"source.accepted: {REAL} goes by names such as ILSVRC2012_val_00000001.JPEG, and id {row} is called "
                f"{name}; give a column of lists instead"
            )
        return _accepted_of(self._labels, self._true[int(found[1]) - 1], label, row)

    def entries(self, dataset: Any, image: str) -> Iterator[Mapping[str, Any]]:
        for table in dataset.select_columns([image]).with_format("arrow").iter(_TOGETHER):
            for path in table[image].combine_chunks().field("path").to_pylist():
                yield {PLACE: path}
