"""Which images without labels to label next: those that have most of what a classifier fails on."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fmrgen.apps.explain.attributes import ATTRIBUTES, Attribute
from fmrgen.apps.explain.interventions import hypothesis_of
from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb, resize

_LISTED = 50  # images of each kind
_BATCH = 64


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
    files = _image_files(folder)
    hypotheses = [hypothesis for text in words if (hypothesis := hypothesis_of(text, attributes)) is not None]
    measures: list[list[np.ndarray]] = [[] for _ in hypotheses]
    readable: list[str] = []
    for start in range(0, len(files), _BATCH):
        batch = []
        for path in files[start : start + _BATCH]:
            try:
                batch.append(resize(open_rgb(str(path)), side, "crop"))
            except UserError:
                continue
            readable.append(str(path))
        if batch:
            images = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 255
            for hypothesis, of_hypothesis in zip(hypotheses, measures, strict=True):
                of_hypothesis.append(hypothesis.attribute.measure(images).double().numpy())
    if not readable:
        raise UserError(f"{folder}: has no image that can be read; name a folder of images without labels")
    listed = []
    for hypothesis, of_hypothesis in zip(hypotheses, measures, strict=True):
        amounts = np.concatenate(of_hypothesis)
        distance = np.abs(amounts - np.median(amounts)) if hypothesis.sign == 0 else hypothesis.sign * amounts
        for place, row in enumerate(np.argsort(-distance, kind="stable")[:_LISTED].tolist(), start=1):
            listed.append(ToLabel(hypothesis.words, place, readable[row], float(amounts[row])))
    return listed


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
