"""The rows of a split that a gallery shows."""

from collections import Counter
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from fmrgen.image_files import stored_image

_OF_EACH_REASON = 3  # rows of each label and stop reason that are taken even if the label has its share


@dataclass(frozen=True)
class Sample:
    """A row that a gallery shows.

    Attributes:
        row: its number in the split.
        image: as stored: bytes, a path or an address.
        original: the same; None if the split has none.
        columns: its other columns, under their names.
    """

    row: int
    image: bytes | str
    original: bytes | str | None
    columns: dict[str, Any]


@dataclass
class Sampler:
    """Takes rows of a split while it is read, evenly by label and some of each stop reason; always the same ones.

    Attributes:
        wanted: about how many rows to take.
        labels: number of classes.
        of_labels: the labels that may be taken; None for all.
        of_ids: the ids to take, all of them; None to choose.
        samples: the rows taken so far.
    """

    wanted: int
    labels: int
    of_labels: Container[int] | None = None
    of_ids: Collection[int] | None = None
    samples: list[Sample] = field(default_factory=list)
    _taken: Counter[Any] = field(default_factory=Counter)

    @property
    def full(self) -> bool:
        """Return whether all wanted rows are taken."""
        wanted = self.wanted if self.of_ids is None else len(self.of_ids)
        return len(self.samples) >= wanted

    def add(
        self,
        first_row: int,
        table: pa.Table,
        labels: list[int],
        image_of: Callable[[dict[str, Any] | None], bytes | str] = stored_image,
    ) -> None:
        """Take what is wanted of some rows.

        Args:
            first_row: number of the first of these rows in the split.
            table: the rows, with `image` and the other columns to show.
            labels: of the rows.
            image_of: returns the bytes or the address of an image from how it is stored.
        """
        reasons = [None] * len(labels)
        if "stop_reason" in table.column_names:
            reasons = table["stop_reason"].to_pylist()
        ids = labels  # not looked at without `of_ids`
        if self.of_ids is not None:
            ids = table["id"].to_pylist()
        for i, (label, reason, example_id) in enumerate(zip(labels, reasons, ids, strict=True)):
            if self.of_labels is not None and label not in self.of_labels:
                continue
            if self.of_ids is None:
                if not self._wants(label, reason):
                    continue
                if len(self.samples) >= 2 * self.wanted:
                    return
            elif example_id not in self.of_ids:
                continue
            self._taken[label] += 1
            self._taken[label, reason] += 1
            columns = table.slice(i, 1).to_pylist()[0]
            image = original = None
            if "image" in columns:
                image = image_of(columns.pop("image"))
            if "original" in columns:
                original = image_of(columns.pop("original"))
            self.samples.append(Sample(first_row + i, image or b"", original, columns))

    def _wants(self, label: int, reason: str | None) -> bool:
        """Return whether the label lacks rows, or there are too few yet of its rows with this stop reason."""
        if not self.full and self._taken[label] < max(1, self.wanted // self.labels):
            return True
        return reason is not None and self._taken[label, reason] < _OF_EACH_REASON
