"""The rows of a split that a gallery shows, taken while it is read."""

from collections import Counter
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass, field
from typing import Any

from fmrgen.results.samples import Sample
from fmrgen.split.rows import Part
from fmrgen.storage.schema import IMAGES


@dataclass
class Sampler:
    """Takes rows of a split while it is read, evenly by label and some of each stop reason; always the same ones."""

    wanted: int  # about how many rows to take
    labels: int  # number of classes
    of_labels: Container[int] | None = None  # that may be taken; None for all
    of_ids: Collection[int] | None = None  # to take, all of them; None to choose
    samples: list[Sample] = field(default_factory=list)
    _taken: Counter[Any] = field(default_factory=Counter)

    @property
    def full(self) -> bool:
        """Return whether all wanted rows are taken."""
        wanted = self.wanted if self.of_ids is None else len(self.of_ids)
        return len(self.samples) >= wanted

    def add(self, part: Part, image_of: Callable[[dict[str, Any] | None], bytes | str]) -> None:
        """Take what is wanted of some rows: `label` is among their columns, `image` and `original` are in their table.

        `image_of` returns the bytes or the address of an image from how it is stored.
        """
        labels = part.columns["label"].tolist()
        reasons = part.columns["stop_reason"].tolist() if "stop_reason" in part.columns else [None] * len(labels)
        ids = labels if self.of_ids is None else part.columns["id"].tolist()
        for place, (label, reason, example_id) in enumerate(zip(labels, reasons, ids, strict=True)):
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
            columns = [name for name in IMAGES if name in part.table.column_names]
            images = {name: image_of(part.table[name][place].as_py()) for name in columns}
            number = part.first_row + place
            self.samples.append(Sample(number, images["image"], images.get("original"), part.values(place)))

    def _wants(self, label: int, reason: str | None) -> bool:
        """Return whether the label lacks rows, or there are too few yet of its rows with this stop reason."""
        if not self.full and self._taken[label] < max(1, self.wanted // self.labels):
            return True
        return reason is not None and self._taken[label, reason] < 3  # even if the label has its share
