"""Rows of splits as a gallery shows them: what the networks and the oracle say of each, and thumbnails on sheets."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from fmrgen.image_files import open_rgb
from fmrgen.metrics.rows import as_label
from fmrgen.report.thumbnails import make_sheets, most_side
from fmrgen.results.evaluation import Evaluation
from fmrgen.results.samples import Sample

AMPLIFIED = 4  # differences of two images on a page, by this factor
_MOST_WITH_STEPS = 1000  # rows that keep a figure for each step, and a picture of their difference
_SHARES = {"image": 1.0, "original": 1.0, "difference": 0.6, "steps": 1.0}  # of the letters of each kind of thumbnail
# What the page shows of a row is measured for it, or stands in the row itself, but for these.
_MEASURED = ("failed_at", "distance", "original_place", "difference_place", "steps")
_NOT_SHOWN = ("image", "original", "steps")
# Letters of the thumbnails of a page with so many rows or fewer, and with so many or more; between them in proportion.
_FEW_ROWS, _FEW_LETTERS = 300, 1.7e6
_MANY_ROWS, _MANY_LETTERS = 10_000, 3.5e6


@dataclass(frozen=True)
class Steps:
    """The path of a row, from the plain reconstruction to the stored image."""

    predictions: list[int]  # of the split's own classifier, at each step
    confidence: list[float]  # the probability that it gives the label, from 0 to 1
    oracle: list[float]  # that which the oracle gives it
    images: Mapping[int, bytes]  # of some steps, by number; empty if not decoded again


@dataclass(frozen=True)
class GalleryRow:
    """A row.

    `predictions` are those of each classifier of the gallery for the original and for the image, None if unknown; the
    label instead of any prediction that is right.
    """

    id: int | str  # of the example, or the name of the image
    label: int
    image: bytes | str  # a file's bytes, or its path
    original: bytes | str | None
    predictions: list[list[int | None]]
    reason: str | None = None  # why its steps ended
    iterations: int | None = None  # steps in the image
    probability: float | None = None  # that which the oracle gives the label
    loss: float | None = None  # of the split's own classifier on the image
    valid: bool | None = None  # whether the oracle accepted it
    judges: Mapping[str, int] = field(default_factory=dict)  # the class that each further judge sees, below 0 for none
    tags: Mapping[str, str] = field(default_factory=dict)  # values by which the page can filter, by their names
    notes: Sequence[str] = ()  # lines below the image
    steps: Steps | None = None  # its path; None if the split does not keep it

    @property
    def failed_at(self) -> int | None:
        """Return the first step at which the split's own classifier is wrong; None if it is never, or if no step was
        accepted."""
        if self.steps is None or self.valid is False:
            return None
        wrong = (step for step, prediction in enumerate(self.steps.predictions) if prediction != self.label)
        return next(wrong, None)


@dataclass(frozen=True)
class Gallery:
    """The shown rows of a split, or of a set of images."""

    split: str
    class_names: list[str]  # by label
    classifiers: list[str]  # whose predictions the rows have
    rows: list[GalleryRow]
    own: str = ""  # the classifier whose steps the rows have; empty if they have none
    judge: str = "the oracle"  # what accepts the steps
    total: int = 0  # rows of which these are some; 0 if they are all


def gallery_filter(
    *,
    split: str | None = None,
    network: str | None = None,
    label: int | None = None,
    prediction: int | None = None,
) -> str:
    """Return the part of a page's address, after #, that makes its gallery show some rows.

    `label` is their class, and `prediction` is what `network` takes them for.
    """
    values = {"split": split, "network": network, "class": label, "prediction": prediction}
    return urlencode({name: value for name, value in values.items() if value is not None})


def galleries(evaluation: Evaluation) -> list[Gallery]:
    """Return a gallery for every split, with the predictions of each classifier."""
    names = [classifier.name for classifier in evaluation.classifiers]
    predictions = evaluation.checked_predictions()
    split_galleries = []
    for split, results in zip(evaluation.splits, evaluation.matrix, strict=True):
        of_split = predictions.filter(pc.equal(predictions["split"].cast("string"), split.name))
        of_classifiers = []
        for name in names:
            table = of_split.filter(pc.equal(of_split["classifier"].cast("string"), name))
            of_classifiers.append((table["original_prediction"].to_pylist(), table["prediction"].to_pylist()))
        rows = []
        for sample in evaluation.samples[split.name]:
            of_sample = [[before[sample.row], after[sample.row]] for before, after in of_classifiers]
            rows.append(_row(sample, of_sample, {}))
        conditioned = [result.classifier for result in results if result.conditioned]
        own = conditioned[-1] if conditioned else "its own classifier"
        split_galleries.append(Gallery(split.name, split.class_names, names, rows, own, total=results[0].total.rows))
    return split_galleries


def stored_gallery(
    split: str,
    class_names: Sequence[str],
    classifier: str,
    samples: Sequence[Sample],
    step_images: Mapping[int, Mapping[int, bytes]],
    total: int,
) -> Gallery:
    """Return a gallery with the predictions that the split itself stores of its classifier.

    `split` is its title, and the names of classes are by label. `step_images` are, of some rows by their ids, images of
    steps by their numbers. `total` is the number of rows of the split; 0 if that is not known.
    """
    rows = []
    for sample in samples:
        predictions = []
        if "prediction" in sample.columns:
            predictions.append([sample.columns.get("original_prediction"), sample.columns["prediction"]])
        rows.append(_row(sample, predictions, step_images.get(sample.columns.get("id", sample.row), {})))
    classifiers = [classifier] if any(row.predictions for row in rows) else []
    return Gallery(split, list(class_names), classifiers, rows, classifier, total=total)


def _row(sample: Sample, predictions: list[list[int | None]], step_images: Mapping[int, bytes]) -> GalleryRow:
    columns = sample.columns
    valid = columns.get("valid")
    return GalleryRow(
        id=columns.get("id", sample.row),
        label=columns["label"],
        image=sample.image,
        original=sample.original,
        predictions=predictions,
        reason=columns.get("stop_reason"),
        iterations=columns.get("iterations"),
        probability=_rounded(columns.get("oracle_probability")),
        loss=_rounded(columns.get("loss")),
        valid=None if valid is None else bool(valid),
        judges=columns.get("later_judges", {}),
        steps=steps_of(columns, step_images),
    )


def steps_of(columns: Mapping[str, Any], images: Mapping[int, bytes]) -> Steps | None:
    """Return the path that a row stores; None if it stores none, or one with a value that is no number.

    Any prediction that is right becomes the label.
    """
    predictions = columns.get("step_predictions")
    losses, oracle = columns.get("step_losses"), columns.get("step_oracle_probabilities")
    if not predictions or not losses or not oracle:
        return None
    if None in predictions or None in losses or None in oracle or not np.isfinite([*losses, *oracle]).all():
        return None
    confidence = np.exp(-np.array(losses, dtype=np.float64))  # the loss is the cross-entropy
    accepted = columns.get("accepted_labels") or [columns["label"]]
    (predictions,) = as_label(np.array([predictions]), np.array([columns["label"]]), np.array([accepted]))
    return Steps(predictions.tolist(), confidence.round(3).tolist(), np.round(oracle, 3).tolist(), images)


def _rounded(value: float | None) -> float | None:
    if value is None or not np.isfinite(value):
        return None
    return round(value, 4)


def page_data(shown: Sequence[Gallery], short: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a page's galleries as its script reads them: a list for each column of rows, and sheets of thumbnails.

    `short` are their short names, by their names.
    """
    count = sum(len(gallery.rows) for gallery in shown)
    letters = float(np.interp(count, (_FEW_ROWS, _MANY_ROWS), (_FEW_LETTERS, _MANY_LETTERS)))
    galleries_data = []
    for gallery in shown:
        share = letters * len(gallery.rows) / max(count, 1)
        galleries_data.append(_gallery_data(gallery, short[gallery.split], share, is_short=count <= _MOST_WITH_STEPS))
    return galleries_data


def _gallery_data(gallery: Gallery, short: str, most_letters: float, *, is_short: bool) -> dict[str, Any]:
    """Return one gallery; unless it is short, its rows lack the figures of each step, and differences."""
    images: dict[str, list[Image.Image]] = {name: [] for name in _SHARES}
    columns: defaultdict[str, list[Any]] = defaultdict(list)
    side = most_side(2 * len(gallery.rows) + sum(len(row.steps.images) for row in gallery.rows if row.steps))
    for row in gallery.rows:
        for name, value in _row_data(row, images, side, is_short=is_short).items():
            columns[name].append(value)
    letters = {name: share * len(images[name]) for name, share in _SHARES.items()}
    sheets = {}
    for name, of_name in images.items():
        sheets[name] = make_sheets(of_name, most_letters * letters[name] / max(1, sum(letters.values())))
    return {
        "split": gallery.split,
        "short": short,
        "class_names": gallery.class_names,
        "classifiers": gallery.classifiers,
        "own": gallery.own,
        "judge": gallery.judge,
        "total": gallery.total,
        "amplified": AMPLIFIED,
        "columns": {name: values for name, values in columns.items() if _says_something(values)},
        "sheets": sheets,
    }


def _row_data(row: GalleryRow, images: dict[str, list[Image.Image]], side: int, *, is_short: bool) -> dict[str, Any]:
    """Return what the page has of a row, and add its images, of at most `side` pixels, to those of their kinds."""
    data: dict[str, Any] = dict.fromkeys(_MEASURED)
    data |= {field.name: getattr(row, field.name) for field in fields(row) if field.name not in _NOT_SHOWN}
    data["failed_at"] = row.failed_at
    image = open_rgb(row.image)
    images["image"].append(_within(image, side))
    if row.original is not None:
        original = open_rgb(row.original)
        data["original_place"] = len(images["original"])
        images["original"].append(_within(original, side))
        if original.size == image.size:
            data["distance"], difference = _difference(original, image)
            if is_short:
                data["difference_place"] = len(images["difference"])
                images["difference"].append(_within(difference, side // 2))
    if is_short and row.steps is not None:
        steps = row.steps
        data["steps"] = {
            "predictions": steps.predictions,
            "confidence": steps.confidence,
            "oracle": steps.oracle,
            "shown": list(steps.images),
            "first": len(images["steps"]),
        }
        images["steps"] += [_within(open_rgb(step_image), side) for step_image in steps.images.values()]
    return data


def _within(image: Image.Image, side: int) -> Image.Image:
    """Return an image of at most `side` pixels down and across."""
    if max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def _says_something(values: list[Any]) -> bool:
    """Return whether a column has any value: one that has none is left out."""
    return any(value is not None and value not in ([], {}, ()) for value in values)


def _difference(original: Image.Image, image: Image.Image) -> tuple[float, Image.Image]:
    """Return how far two images are apart, as the root mean square in grey levels, and their difference, amplified,
    on grey."""
    change = np.asarray(image, dtype=np.int16) - np.asarray(original, dtype=np.int16)  # [H, W, 3]
    distance = round(float(np.sqrt(np.square(change, dtype=np.float64).mean())), 2)
    amplified = np.clip(128 + AMPLIFIED * change, 0, 255).astype(np.uint8)
    return distance, Image.fromarray(amplified)
