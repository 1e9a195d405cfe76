"""Originals that no classifier names right: either they are hard for all, or their label is wrong."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fmrgen.evaluation.classified import Classified
from fmrgen.image_files import png_bytes
from fmrgen.results.samples import Sample
from fmrgen.split.judged import labels_of_row

_FEWEST = 3  # classifiers that an image must mislead all of
_NAMED, _SHOWN = 12, 24  # rows in a note, and in a gallery


class Missed(NamedTuple):
    """Originals that all classifiers miss: their rows, and their ids, or the rows again if there are no ids."""

    rows: list[int]
    ids: list[int]


def missed_by_all(
    columns_of_classifiers: Sequence[Mapping[str, np.ndarray]], columns: Mapping[str, np.ndarray]
) -> Missed | None:
    """Return the originals that all classifiers miss; None if there are fewer than three, or no originals.

    Args:
        columns_of_classifiers: the columns of each one's summary; those at chance are left out by the caller.
        columns: of the split.
    """
    if len(columns_of_classifiers) < _FEWEST:
        return None
    wrong = np.ones(len(columns["label"]), bool)
    for own in columns_of_classifiers:
        if "original_prediction" not in own:
            return None
        wrong &= own["original_prediction"] != own["label"]
    rows = np.flatnonzero(wrong).tolist()
    ids = columns["id"][wrong].tolist() if "id" in columns else rows
    return Missed(rows, ids)


def about_missed(missed: Missed | None, classifiers: int) -> list[str]:
    """Return a note on them, if there are any; `classifiers` is how many were measured."""
    if missed is None or not missed.ids:
        return []
    ids = ",".join(map(str, missed.ids[:_NAMED]))
    if len(missed.ids) > _NAMED:
        ids += ",…"
    return [
        f"none of {classifiers} classifiers is right on {len(missed.ids)} of the originals: look at their labels "
        f"(fmrgen show --ids {ids})"
    ]


def samples_of(classified: Classified, rows: Sequence[int]) -> list[Sample]:
    """Return the first of some rows as a gallery shows them, without those that it shows already.

    Their images are those that were decoded for the classifiers; [] if these were not kept.
    """
    pixels: dict[str, np.ndarray] = {}
    for name in classified.split.image_columns:
        if name in classified.images:
            decoded = classified.images[name].pixels
            if decoded is None:
                return []
            pixels[name] = decoded
    shown = {sample.row for sample in classified.samples}
    columns = classified.columns
    samples = []
    for row in [row for row in rows if row not in shown][:_SHOWN]:
        files = {name: png_bytes(np.asarray(images[row])) for name, images in pixels.items()}
        values = {name: column[row].item() for name, column in columns.items() if column.dtype != object}
        if classified.judges:
            values["later_judges"] = labels_of_row(classified.judges, row)
        samples.append(Sample(row, files["image"], files.get("original"), values))
    return samples
