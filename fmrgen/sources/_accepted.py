"""All labels that are true of an example, if a source knows several: from a column, or ImageNet's ReaL labels."""

import json
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.sources.base import label_of_source

REAL = "timm:imagenet-real"


class Accepted:
    """Knows the labels that are true of a row, from its column `column` of lists of classes, names or numbers."""

    def __init__(self, labels: Labels, column: str | None) -> None:
        self.column = column
        self._labels = labels

    def value_of(self, row: Mapping[str, Any], image: str) -> Any:
        """Return what `labels_of` needs of a row, whose undecoded image is in the column `image`."""
        return row[str(self.column)]

    def values(self, dataset: Any, image: str) -> Iterable[Any]:
        """Return what `labels_of` needs of each row of a dataset on disk."""
        values: Iterable[Any] = dataset.with_format(None)[self.column]
        return values

    def labels_of(self, value: Any, label: int | None, row: int) -> tuple[int, ...]:
        """Return the job's labels that are true of a row, `label` first if it is among them; empty if none is.

        `value` is what `value_of` returns for it; `label` is its own, None if no group holds it. Raises UserError,
        which names the `row`, if the true labels cannot be read.
        """
        names = self._labels.source_names or self._labels.names
        accepted: dict[int, None] = {}  # in their order, each once
        for entry in value or ():
            number = names.index(entry) if isinstance(entry, str) and entry in names else entry
            job_label = label_of_source(self._labels, number, row, "source.accepted")
            if job_label is not None:
                accepted[job_label] = None
        if label in accepted:
            accepted = {label: None} | accepted
        return tuple(accepted)


class AcceptedByReal(Accepted):
    """Knows the true labels of ReaL, as timm ships them, by the names of ImageNet's files.

    Raises UserError if the source's classes are not ImageNet's.
    """

    def __init__(self, labels: Labels) -> None:
        super().__init__(labels, None)
        classes = labels.source_size if labels.source_size is not None else len(labels)
        if classes != 1000:
            raise UserError(f"source.accepted: {REAL} is of ImageNet's 1,000 classes, and the source has {classes}")
        self._real_labels = json.loads((files("timm.data") / "_info/imagenet_real_labels.json").read_text())

    def value_of(self, row: Mapping[str, Any], image: str) -> Any:
        return (row[image] or {}).get("path")

    def values(self, dataset: Any, image: str) -> Iterable[Any]:
        for table in dataset.select_columns([image]).with_format("arrow").iter(1000):
            yield from table[image].combine_chunks().field("path").to_pylist()

    def labels_of(self, value: Any, label: int | None, row: int) -> tuple[int, ...]:
        name = PurePath(str(value)).name
        match = re.match(r"ILSVRC2012_val_(\d{8})", name)
        if match is None or not 1 <= int(match[1]) <= len(self._real_labels):
            raise UserError(
                f"source.accepted: {REAL} goes by names such as ILSVRC2012_val_00000001.JPEG, and id {row} is called "
                f"{name}; give a column of lists instead"
            )
        return super().labels_of(self._real_labels[int(match[1]) - 1], label, row)


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
