"""Digits of other writers and scanners, placed as MNIST's are: a real shift for a classifier that learned MNIST."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import scipy  # its ndimage is imported on first use
from PIL import Image, ImageDraw

from fmrgen.errors import UserError, one_line
from fmrgen.files import open_plain
from fmrgen.labels import make_labels
from fmrgen.sources._selection import select
from fmrgen.sources.base import RawExample, Source, SourceConfig
from fmrgen.sources.mnist import DIGITS

_SIDE = 32  # pixels of the canvas
_BOX = 20  # pixels of the square that a digit just fits in
_INK = 0.2  # of the brightest pixel: anything darker is paper
_UCI_SIDE = 8  # pixels
# Of pen digits: the points of each, and the margin and the width of a pen on a canvas of 100 pixels, on which MNIST's
# strokes are as wide.
_PEN_POINTS, _PEN_EDGE, _PEN_WIDTH = 8, 10, 12


class Config(SourceConfig):
    """Digits of other writers.

    `of: uci` is scikit-learn's 1,797 digits of 8 px; `usps` the 2,007 test digits of 16 px in `path`. The next two are
    in files of numbers with commas, a digit in each line, as the archives of UCI and KEEL have them: `uci-train` is
    what `path` (optdigits) has besides scikit-learn's, 3,823 digits of 30 other writers; `pen` the digits that were
    drawn on a tablet, eight points of each, in `path` (pendigits, penbased).
    """

    PLACES = ("path",)

    kind: str = "digits"
    of: Literal["uci", "usps", "uci-train", "pen"]
    path: str = "flwrlabs/usps"
    """For usps a dataset of the Hub with a split `test`, or a parquet file; for uci-train and pen a file of numbers."""

    def build(self, device: object = "cpu") -> "Digits":
        match self.of:
            case "uci":
                images = _uci()
            case "usps":
                images = _usps(self.path)
            case "uci-train":
                images = _uci_train(self.path)
            case "pen":
                images = _pen(self.path)
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


def _uci_train(path: str) -> list[tuple[np.ndarray, int]]:
    """Return the digits [8, 8] of a file that scikit-learn does not have, and their classes."""
    in_scikit_learn = {(image.tobytes(), digit) for image, digit in _uci()}
    digits = []
    for numbers in _numbers_in(path, _UCI_SIDE**2 + 1):
        image = np.array(numbers[:-1], np.float64).reshape(_UCI_SIDE, _UCI_SIDE)
        if (image.tobytes(), numbers[-1]) not in in_scikit_learn:
            digits.append((image, numbers[-1]))
    return digits


def _pen(path: str) -> list[tuple[np.ndarray, int]]:
    """Return drawings of the points in a file, large enough to be reduced, and their classes."""
    digits = []
    for numbers in _numbers_in(path, 2 * _PEN_POINTS + 1):
        xs, ys = numbers[0:-1:2], numbers[1:-1:2]  # from 0 to 100, y upwards
        points = [(_PEN_EDGE + x, _PEN_EDGE + 100 - y) for x, y in zip(xs, ys, strict=True)]
        canvas = Image.new("L", (100 + 2 * _PEN_EDGE,) * 2)
        drawing = ImageDraw.Draw(canvas)
        drawing.line(points, fill=255, width=_PEN_WIDTH, joint="curve")
        for x, y in (points[0], points[-1]):  # round ends
            reach = _PEN_WIDTH / 2
            drawing.ellipse((x - reach, y - reach, x + reach, y + reach), fill=255)
        digits.append((np.asarray(canvas, np.float64), numbers[-1]))
    return digits


def _numbers_in(path: str, count: int) -> list[list[int]]:
    """Return the lines of a file, each so many whole numbers, the last a digit; KEEL's head (@) is left out.

    Raises UserError if it holds anything else, or nothing.
    """
    rows = []
    try:
        with open_plain(Path(path)) as file:
            lines = file.read().decode().splitlines()
        for line in lines:
            if line.strip() and not line.startswith("@"):
                rows.append([int(number) for number in line.split(",")])
    except (OSError, ValueError) as error:
        raise UserError(f"source.path: {path} is not a file of digits: {one_line(error)}") from None
    if not rows or any(len(numbers) != count or not 0 <= numbers[-1] <= 9 for numbers in rows):
        raise UserError(f"source.path: {path} does not hold {count} numbers in each line, the last of them a digit")
    return rows


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
