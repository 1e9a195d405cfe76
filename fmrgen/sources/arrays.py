"""Images and labels in two NumPy files, as CIFAR-10-C, CIFAR-10.1 and their like come."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from fmrgen.errors import UserError, one_line
from fmrgen.labels import Labels, make_labels
from fmrgen.sources._selection import select
from fmrgen.sources.base import RawExample, Source, SourceConfig, label_of_source

if TYPE_CHECKING:
    import numpy as np


def _is_part(text: str | None) -> str | None:
    found = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"{text!r} must be I/N, for example 3/5 for the third of five parts")
    return text


class Config(SourceConfig):
    """`images` is a file of uint8 [N, H, W, 3] or [N, H, W], `labels` one of integers [N]; ids are their places.

    `part` takes the I-th of N equal parts, whose ids count from 0: the five severities of CIFAR-10-C lie one after
    another.
    """

    FILES = ("images", "labels")
    PLACES = ("images", "labels")

    kind: str = "arrays"
    images: str
    labels: str
    part: Annotated[str | None, AfterValidator(_is_part)] = Field(None, description="I/N")

    def build(self, device: object = "cpu") -> Source:
        images, labels = _read(self.images, "images"), _read(self.labels, "labels")
        if images.dtype != "uint8" or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
            raise UserError(f"source.images: {self.images} holds {images.dtype} {list(images.shape)}, no uint8 images")
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
            raise UserError(
                f"source.labels: {self.labels} holds {labels.dtype} {list(labels.shape)}, no label for each of "
                f"{len(images):,} images"
            )
        number, of = map(int, (self.part or "1/1").split("/"))
        if len(images) % of:
            raise UserError(f"source.part: {len(images):,} images can't be split into {of} equal parts")
        size = len(images) // of
        span = slice((number - 1) * size, number * size)
        return Arrays(images[span], labels[span], self)


class Arrays(Source):
    """Rows of the arrays that have a label of the job."""

    def __init__(self, images: "np.ndarray", labels: "np.ndarray", config: SourceConfig) -> None:
        self.labels: Labels = make_labels(config.classes, None)
        found = (label_of_source(self.labels, int(label), row, "source.labels") for row, label in enumerate(labels))
        rows = (RawExample(row, b"", label) for row, label in enumerate(found) if label is not None)
        self._images, self._rows = images, select(rows, self.labels, config)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, start: int, stop: int) -> Iterator[RawExample]:
        from PIL import Image

        for row in self._rows[start:stop]:
            yield row._replace(image=Image.fromarray(self._images[row.id].copy()))


def _read(path: str, key: str) -> "np.ndarray":
    import numpy as np

    try:
        array: np.ndarray = np.load(Path(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"source.{key}: {path} can't be read as a .npy file: {one_line(error, 120)}") from None
    if not isinstance(array, np.ndarray):
        raise UserError(f"source.{key}: {path} holds several arrays; name a .npy file of one")
    return array
