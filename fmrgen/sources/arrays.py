"""Images and labels in two NumPy files, as CIFAR-10-C, CIFAR-10.1 and similar data sets come."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import AfterValidator, Field

from fmrgen.errors import UserError, one_line
from fmrgen.labels import Labels, make_labels
from fmrgen.sources._selection import select
from fmrgen.sources.base import RawExample, Source, SourceConfig, label_of_source


def _check_part(text: str | None) -> str | None:
    """Return `text`. Raises ValueError unless it is I/N, with I from 1 to N."""
    match = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"{text!r} must be I/N, for example 3/5 for the third of five parts")
    return text


class Config(SourceConfig):
    """`images` is a file of uint8 [N, H, W, 3] or [N, H, W], `labels` a file of integers [N]; ids are their places.

    `part` takes the I-th of N equal parts, in which ids count from 0: CIFAR-10-C has its five severities one after
    another.
    """

    FILES = ("images", "labels")
    PLACES = ("images", "labels")

    kind: str = "arrays"
    images: str
    labels: str
    part: Annotated[str | None, AfterValidator(_check_part)] = Field(None, description="I/N")

    def build(self, device: object = "cpu") -> Source:
        images = _read(self.images, "images")
        labels = _read(self.labels, "labels")
        is_rgb = images.ndim == 4 and images.shape[3] == 3
        if images.dtype != "uint8" or not (images.ndim == 3 or is_rgb):
            raise UserError(f"source.images: {self.images} holds {images.dtype} {list(images.shape)}, no uint8 images")
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
            raise UserError(
                f"source.labels: {self.labels} holds {labels.dtype} {list(labels.shape)}, no label for each of "
                f"{len(images):,} images"
            )
        number, parts = map(int, (self.part or "1/1").split("/"))
        if len(images) % parts:
            raise UserError(f"source.part: {len(images):,} images can't be split into {parts} equal parts")
        size = len(images) // parts
        rows = slice((number - 1) * size, number * size)
        return Arrays(images[rows], labels[rows], make_labels(self.classes, None), self)


class Arrays(Source):
    """The rows of two arrays, uint8 [N, H, W, 3] or [N, H, W] and integers [N], that have a label of the job."""

    def __init__(self, images: np.ndarray, source_labels: np.ndarray, labels: Labels, config: SourceConfig) -> None:
        self.labels = labels
        self._images = images
        self._rows = select(self._labelled(source_labels), labels, config)

    def _labelled(self, source_labels: np.ndarray) -> Iterator[RawExample]:
        """Yield the rows that have a label of the job, without their images."""
        for row, source_label in enumerate(source_labels):
            label = label_of_source(self.labels, int(source_label), row, "source.labels")
            if label is not None:
                yield RawExample(row, b"", label)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, start: int, stop: int) -> Iterator[RawExample]:
        for row in self._rows[start:stop]:
            yield row._replace(image=Image.fromarray(self._images[row.id].copy()))


def _read(path: str, key: str) -> np.ndarray:
    """Return the array of a .npy file, mapped into memory. Raises UserError, which names `source.KEY`."""
    try:
        array: np.ndarray = np.load(Path(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"source.{key}: {path} can't be read as a .npy file: {one_line(error, 120)}") from None
    if not isinstance(array, np.ndarray):
        raise UserError(f"source.{key}: {path} holds several arrays; name a .npy file of one")
    return array
