"""Which images without labels to label next: those that have most of what a classifier fails on."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fmrgen.apps.explain.attributes import ATTRIBUTES, Attribute, measured_photos
from fmrgen.apps.explain.interventions import amounts_of, hypothesis_of
from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb

_LISTED = 50  # images of each kind


@dataclass(frozen=True)
class ToLabel:
    """An image to label.

    Attributes:
        words: of the finding that it is of.
        place: among those of the finding, from 1.
        file: its path.
        amount: what the attribute measures in it.
    """

    words: str
    place: int
    file: str
    amount: float


def to_label_next(
    words: Sequence[str], folder: Path, side: int, attributes: Sequence[Attribute] = ATTRIBUTES
) -> list[ToLabel]:
    """Return for each finding the images of a folder that have most of it, 50 at most.

    Args:
        words: of the findings.
        folder: of images, in folders at any depth.
        side: in pixels, at which images are measured.
        attributes: that were tried.

    Raises:
        UserError: the folder has no image that can be read.
    """
    hypotheses = []
    for text in words:
        hypothesis = hypothesis_of(text, attributes)
        if hypothesis is not None:
            hypotheses.append(hypothesis)
    readable: list[str] = []
    measures = measured_photos([hypothesis.attribute for hypothesis in hypotheses], _photos(folder, readable), side)
    if not readable:
        raise UserError(f"{folder}: has no image that can be read; name a folder of images without labels")
    listed = []
    for hypothesis, of_hypothesis in zip(hypotheses, measures, strict=True):
        order = np.argsort(-amounts_of(of_hypothesis, hypothesis.sign), kind="stable")
        for place, row in enumerate(order[:_LISTED].tolist(), start=1):
            listed.append(ToLabel(hypothesis.words, place, readable[row], float(of_hypothesis[row])))
    return listed


def _photos(folder: Path, readable: list[str]) -> Iterator[Image.Image]:
    """Yield the images of a folder that can be read, and add their paths to `readable`."""
    for path in _image_files(folder):
        try:
            photo = open_rgb(str(path))
        except UserError:
            continue
        readable.append(str(path))
        yield photo


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder; name one of images without labels")
    endings = set(Image.registered_extensions())
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())


def to_csv(images: Sequence[ToLabel]) -> bytes:
    """Return the list as CSV, with a column `label` to fill in."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["finding", "place", "file_name", "amount", "label"])
    for image in images:
        writer.writerow([image.words, image.place, image.file, f"{image.amount:.4g}", ""])
    return text.getvalue().encode()
