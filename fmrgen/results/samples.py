"""The rows of a split that a gallery shows."""

from collections import Counter
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from fmrgen.image_files import stored_image

_OF_EACH_REASON = 3  # rows of each label and stop reason that are taken even where the label has its share


@dataclass(frozen=True)
class Sample:
    """A row that is shown: its number in the split, its images as stored (bytes, a path or an address), and the rest
    of its columns under their names."""

    row: int
    image: bytes | str
    original: bytes | str | None
    columns: dict[str, Any]


@dataclass
class Sampler:
    """Takes about `wanted` rows as a split goes by, evenly by label and some of each stop reason; always the same.

    `of_labels` and `of_ids`, where they are given, are those that may be taken; of ids all are.
    """

    wanted: int
    labels: int
    of_labels: Container[int] | None = None
    of_ids: Collection[int] | None = None
    samples: list[Sample] = field(default_factory=list)
    _taken: Counter[Any] = field(default_factory=Counter)

    @property
    def full(self) -> bool:
        return len(self.samples) >= (self.wanted if self.of_ids is None else len(self.of_ids))

    def add(
        self,
        first_row: int,
        table: pa.Table,
        labels: list[int],
        image_of: Callable[[dict[str, Any] | None], bytes | str] = stored_image,
    ) -> None:
        """Takes what it wants of some rows; `labels` are theirs, `table` has `image` and what else is to be shown.

        `image_of` gives the bytes or the address of an image as it is stored.
        """
        share = max(1, self.wanted // self.labels)
        reasons = table["stop_reason"].to_pylist() if "stop_reason" in table.column_names else [None] * len(labels)
        ids = table["id"].to_pylist() if self.of_ids is not None else labels
        for i, (label, reason, example_id) in enumerate(zip(labels, reasons, ids, strict=True)):
            if self.of_labels is not None and label not in self.of_labels:
                continue
            if self.of_ids is not None:
                if example_id not in self.of_ids:
                    continue
            else:
                enough = self.full or self._taken[label] >= share
                if enough and (reason is None or self._taken[label, reason] >= _OF_EACH_REASON):
                    continue
                if len(self.samples) >= 2 * self.wanted:
                    return
            self._taken[label] += 1
            self._taken[label, reason] += 1
            values = table.slice(i, 1).to_pylist()[0]
            image, original = (image_of(values.pop(name)) if name in values else None for name in ("image", "original"))
            self.samples.append(Sample(first_row + i, image or b"", original, values))
