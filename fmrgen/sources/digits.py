"""Digits of other writers and scanners, placed as MNIST's are: a real shift for what has learned MNIST."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import scipy  # whose ndimage is imported where it is first used
from PIL import Image

from fmrgen.errors import UserError, one_line
from fmrgen.labels import make_labels
from fmrgen.sources._selection import select
from fmrgen.sources.base import RawExample, Source, SourceConfig
from fmrgen.sources.mnist import DIGITS

_SIDE, _BOX = 32, 20  # pixels: of the canvas, and of the square that a digit just fits in
_INK = 0.2  # of the brightest pixel: what is darker is paper


class Config(SourceConfig):
    """`of: uci` is scikit-learn's 1,797 digits of 8 px; `usps` the 2,007 test digits of 16 px in `path`."""

    PLACES = ("path",)

    kind: str = "digits"
    of: Literal["uci", "usps"]
    path: str = "flwrlabs/usps"
    """For usps: a dataset of the Hub with a split `test`, or a parquet file."""

    def build(self, device: object = "cpu") -> "Digits":
        return Digits(_uci() if self.of == "uci" else _usps(self.path), self)


class Digits(Source):
    """White on black, [32, 32]; ids count from 0."""

    def __init__(self, images: list[tuple[np.ndarray, int]], config: SourceConfig) -> None:
        self.labels = make_labels(config.classes, DIGITS)
        labelled = ((i, image, self.labels.from_source(digit)) for i, (image, digit) in enumerate(images))
        found = (RawExample(i, placed(image), label) for i, image, label in labelled if label is not None)
        self._examples = select(found, self.labels, config)

    def __len__(self) -> int:
        return len(self._examples)

    def read(self, start: int, stop: int) -> Iterator[RawExample]:
        yield from self._examples[start:stop]


def placed(image: np.ndarray) -> Image.Image:
    """A digit [H, W], bright on dark, as MNIST places it (LeCun 1998): its ink scaled to fit a box of 20 pixels, the
    centre of mass in the middle of the canvas."""
    ink = image - image.min()
    rows, columns = (np.flatnonzero((ink > _INK * ink.max()).any(axis)) for axis in (1, 0))
    if not len(rows):
        return Image.fromarray(np.zeros((_SIDE, _SIDE), np.uint8))
    cut = Image.fromarray((255.0 / ink.max() * ink)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = _BOX / max(cut.size)
    width, height = (max(1, round(scale * side)) for side in cut.size)
    digit = np.asarray(cut.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 255)
    down, right = (round(_SIDE / 2 - 0.5 - at) for at in scipy.ndimage.center_of_mass(digit))
    down, right = min(max(down, 0), _SIDE - height), min(max(right, 0), _SIDE - width)
    canvas = np.zeros((_SIDE, _SIDE), np.uint8)
    canvas[down : down + height, right : right + width] = digit.round()
    return Image.fromarray(canvas)


def _uci() -> list[tuple[np.ndarray, int]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("source.of uci reads the digits of scikit-learn: pip install 'fmrgen[demo]'") from None

    found = load_digits()
    return list(zip(found.images, map(int, found.target), strict=True))


def _usps(path: str) -> list[tuple[np.ndarray, int]]:
    from datasets import Image as ImageFeature
    from datasets import load_dataset

    try:
        rows = (
            load_dataset("parquet", data_files=path, split="train")
            if path.endswith(".parquet")
            else load_dataset(path, split="test")
        )
        decoded = rows.cast_column("image", ImageFeature())
        return [(np.asarray(row["image"].convert("L"), np.float64), int(row["label"])) for row in decoded]
    except Exception as error:  # the Hub, the file and its columns: each in words of its own
        raise UserError(f"source.path: {path} holds no test digits of USPS: {one_line(error)}") from None
