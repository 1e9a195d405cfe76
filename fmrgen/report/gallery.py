"""Rows of a split as a gallery shows them: small images as text, and the answers of each classifier."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from fmrgen.image_files import open_rgb
from fmrgen.results.evaluation import Evaluation
from fmrgen.results.samples import Sample

_THUMBNAIL = 224  # pixels; larger images are shown smaller
_AS_STORED = 96  # pixels; images up to this side are shown as they are, every pixel of them
_QUALITY = 82  # of WebP, in percent
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Gallery:
    """The shown rows of a split, as the page's script reads them.

    Attributes:
        split: its name.
        class_names: by label.
        classifiers: whose answers the rows have.
        rows: each has `id`, `label`, `image` and `original` (data addresses), `said` (for each classifier its answers
            to the original and to the perturbed image, None if unknown), and if the split has them `reason`,
            `iterations`, `probability`, `score`, `valid`, and `judges` (judge → the class that it sees, below 0 for
            none).
        missed: ids of originals that no classifier names right.
    """

    split: str
    class_names: list[str]
    classifiers: list[str]
    rows: list[dict[str, Any]]
    missed: list[int] = field(default_factory=list)


def galleries(evaluation: Evaluation) -> list[Gallery]:
    """Return a gallery for every split, with the answers of each classifier."""
    names = [classifier.name for classifier in evaluation.classifiers]
    predictions = evaluation.checked_predictions()
    split_galleries = []
    for split in evaluation.splits:
        of_split = predictions.filter(pc.equal(predictions["split"].cast("string"), split.name))
        answers = []
        for name in names:
            table = of_split.filter(pc.equal(of_split["classifier"].cast("string"), name))
            answers.append((table["original_prediction"].to_pylist(), table["prediction"].to_pylist()))
        rows = []
        for sample in evaluation.samples[split.name]:
            sample_answers = [[before[sample.row], after[sample.row]] for before, after in answers]
            rows.append(_row(sample, sample_answers))
        split_galleries.append(Gallery(split.name, split.class_names, names, rows, split.missed_by_all or []))
    return split_galleries


def stored_gallery(split: str, class_names: Sequence[str], classifier: str, samples: Sequence[Sample]) -> Gallery:
    """Return a gallery with the answers that the split itself stores of its classifier.

    Args:
        split: its title.
        class_names: by label.
        classifier: the name of the split's classifier.
        samples: the rows to show.
    """
    rows = []
    has_answers = False
    for sample in samples:
        answers = []
        if "prediction" in sample.columns:
            answers.append([sample.columns.get("original_prediction"), sample.columns["prediction"]])
            has_answers = True
        rows.append(_row(sample, answers))
    return Gallery(split, list(class_names), [classifier] if has_answers else [], rows)


def _row(sample: Sample, answers: list[list[int | None]]) -> dict[str, Any]:
    columns = sample.columns
    valid = columns.get("valid")
    score = None
    from fmrgen.storage.schema import SCORE_COLUMNS  # brings `datasets`, which a page without a gallery does not need

    for name in SCORE_COLUMNS:
        if name in columns:
            score = columns[name]
            break
    return {
        "id": columns.get("id", sample.row),
        "label": columns["label"],
        "image": data_address(sample.image),
        "original": None if sample.original is None else data_address(sample.original),
        "said": answers,
        "reason": columns.get("stop_reason"),
        "iterations": columns.get("iterations"),
        "probability": _rounded(columns.get("oracle_probability")),
        "score": _rounded(score),
        "valid": None if valid is None else bool(valid),
        "judges": columns.get("judges", {}),
    }


def _rounded(value: float | None) -> float | None:
    if value is None or not np.isfinite(value):
        return None
    return round(value, 4)


def data_address(image: bytes | str) -> str:
    """Return an image as a `data:` address: a small PNG as it is stored, a larger one as a WebP thumbnail."""
    picture = open_rgb(image)
    if max(picture.size) <= _AS_STORED:
        content = image if isinstance(image, bytes) and image.startswith(_PNG) else _encoded(picture, "PNG")
        return f"data:image/png;base64,{base64.b64encode(content).decode()}"
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    return f"data:image/webp;base64,{base64.b64encode(_encoded(picture, 'WEBP')).decode()}"


def _encoded(image: Image.Image, file_format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, quality=_QUALITY)
    return buffer.getvalue()
