"""Digits of other writers and scanners, placed as MNIST's are: a real shift for a classifier that learned MNIST."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import scipy  # its ndimage is imported on first use
from PIL import Image

from fmrgen.errors import UserError, one_line
from fmrgen.labels import make_labels
from fmrgen.sources._selection import select
from fmrgen.sources.base import RawExample, Source, SourceConfig
from fmrgen.sources.mnist import DIGITS

_SIDE = 32  # pixels of the canvas
_BOX = 20  # pixels of the square that a digit just fits in
_INK = 0.2  # of the brightest pixel: anything darker is paper


class Config(SourceConfig):
    """`of: uci` is scikit-learn's 1,797 digits of 8 px; `usps` the 2,007 test digits of 16 px in `path`."""

    PLACES = ("path",)

    kind: str = "digits"
    of: Literal["uci", "usps"]
    path: str = "flwrlabs/usps"
    """For usps: a dataset of the Hub with a split `test`, or a parquet file."""

    def build(self, device: object = "cpu") -> "Digits":
        images = _uci() if self.of == "uci" else _usps(self.path)
        return Digits(images, self)


class Digits(Source):
    """White on black, [32, 32]; ids count from 0."""

    def __init__(self, images: list[tuple[np.ndarray, int]], config: SourceConfig) -> None:
        self.labels = make_labels(config.classes, DIGITS)
        self._examples = select(self._labelled(images), self.labels, config)

    def _labelled(self, images: list[tuple[np.ndarray, int]]) -> Iterator[RawExample]:
        """Yield the digits that have a label of the job."""
        for index, (image, digit) in enumerate(images):
            label = self.labels.from_source(digit)
            if label is not None:
                yield RawExample(index, placed(image), label)

    def __len__(self) -> int:
        return len(self._examples)

    def read(self, start: int, stop: int) -> Iterator[RawExample]:
        yield from self._examples[start:stop]


def placed(image: np.ndarray) -> Image.Image:
    """Return a digit [H, W], bright on dark, as MNIST places it (LeCun 1998).

    Its ink is scaled to fit a box of 20 pixels; its centre of mass is in the middle of the canvas.
    """
    ink = image - image.min()
    is_ink = ink > _INK * ink.max()
    rows = np.flatnonzero(is_ink.any(axis=1))
    columns = np.flatnonzero(is_ink.any(axis=0))
    if not len(rows):
        return Image.fromarray(np.zeros((_SIDE, _SIDE), np.uint8))
    brightened = 255.0 / ink.max() * ink
    cut = Image.fromarray(brightened[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = _BOX / max(cut.size)
    width = max(1, round(scale * cut.width))
    height = max(1, round(scale * cut.height))
    digit = np.asarray(cut.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 255)
    centre_row, centre_column = scipy.ndimage.center_of_mass(digit)
    middle = _SIDE / 2 - 0.5
    down = min(max(round(middle - centre_row), 0), _SIDE - height)
    right = min(max(round(middle - centre_column), 0), _SIDE - width)
    canvas = np.zeros((_SIDE, _SIDE), np.uint8)
    canvas[down : down + height, right : right + width] = digit.round()
    return Image.fromarray(canvas)


def _uci() -> list[tuple[np.ndarray, int]]:
    """Return scikit-learn's digits [8, 8] and their classes."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("source.of uci reads the digits of scikit-learn: pip install 'fmrgen[demo]'") from None

    dataset = load_digits()
    return list(zip(dataset.images, map(int, dataset.target), strict=True))


def _usps(path: str) -> list[tuple[np.ndarray, int]]:
    """Return the test digits of USPS [16, 16] and their classes. Raises UserError if they cannot be read."""
    from datasets import Image as ImageFeature
    from datasets import load_dataset

    try:
        if path.endswith(".parquet"):
            rows = load_dataset("parquet", data_files=path, split="train")
        else:
            rows = load_dataset(path, split="test")
        decoded = rows.cast_column("image", ImageFeature())
        return [(np.asarray(row["image"].convert("L"), np.float64), int(row["label"])) for row in decoded]
    except Exception as error:  # the Hub, the file and its columns each fail in their own way
        raise UserError(f"source.path: {path} holds no test digits of USPS: {one_line(error)}") from None
