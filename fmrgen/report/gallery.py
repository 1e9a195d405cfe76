"""Rows of a split as a gallery shows them: small images as text, and who said what."""

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
from fmrgen.storage.schema import SCORE_COLUMNS

_THUMBNAIL = 224  # pixels; larger images are shown smaller
_AS_STORED = 96  # pixels; images up to this side are shown as they are, every pixel of them
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Gallery:
    """The shown rows of a split, as the page's script reads them.

    Each row has `id`, `label`, `image` and `original` (data addresses), `said` (the class before and after of each of
    the classifiers, None where not known), and where the split has them `reason`, `iterations`, `probability`,
    `score`, `valid`, and `judges` (judge → the class that it sees, below 0 for none).
    """

    split: str
    class_names: list[str]
    classifiers: list[str]
    rows: list[dict[str, Any]]
    missed: list[int] = field(default_factory=list)  # ids of originals that no classifier names right


def galleries(evaluation: Evaluation) -> list[Gallery]:
    """A gallery for every split, with what each classifier said."""
    names = [classifier.name for classifier in evaluation.classifiers]
    predictions = evaluation.checked_predictions()
    found = []
    for split in evaluation.splits:
        of_split = predictions.filter(pc.equal(predictions["split"].cast("string"), split.name))
        said = []
        for name in names:
            table = of_split.filter(pc.equal(of_split["classifier"].cast("string"), name))
            said.append((table["original_prediction"].to_pylist(), table["prediction"].to_pylist()))
        rows = [
            _row(sample, [[before[sample.row], after[sample.row]] for before, after in said])
            for sample in evaluation.samples[split.name]
        ]
        found.append(Gallery(split.name, split.class_names, names, rows, split.missed_by_all or []))
    return found


def stored_gallery(split: str, class_names: Sequence[str], classifier: str, samples: Sequence[Sample]) -> Gallery:
    """A gallery with what the split itself says that its classifier said."""
    rows = []
    for sample in samples:
        known = [sample.columns.get(name) for name in ("original_prediction", "prediction")]
        rows.append(_row(sample, [known] if "prediction" in sample.columns else []))
    return Gallery(split, list(class_names), [classifier] if any(row["said"] for row in rows) else [], rows)


def _row(sample: Sample, said: list[list[int | None]]) -> dict[str, Any]:
    columns = sample.columns
    return {
        "id": columns.get("id", sample.row),
        "label": columns["label"],
        "image": data_address(sample.image),
        "original": None if sample.original is None else data_address(sample.original),
        "said": said,
        "reason": columns.get("stop_reason"),
        "iterations": columns.get("iterations"),
        "probability": _rounded(columns.get("oracle_probability")),
        "score": _rounded(next((columns[name] for name in SCORE_COLUMNS if name in columns), None)),
        "valid": None if columns.get("valid") is None else bool(columns["valid"]),
        "judges": columns.get("judges", {}),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, 4)


def data_address(image: bytes | str) -> str:
    """An image inside a `data:` address: a small PNG as it is stored, a larger one as a WebP thumbnail."""
    opened = open_rgb(image)
    if max(opened.size) <= _AS_STORED:
        stored = image if isinstance(image, bytes) and image.startswith(_PNG) else _encoded(opened, "PNG")
        return f"data:image/png;base64,{base64.b64encode(stored).decode()}"
    opened.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    return f"data:image/webp;base64,{base64.b64encode(_encoded(opened, 'WEBP')).decode()}"


def _encoded(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, quality=82)
    return buffer.getvalue()
