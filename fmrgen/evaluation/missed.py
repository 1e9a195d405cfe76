"""Originals that no classifier names right: either they are hard for all, or their label is wrong."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fmrgen.image_files import png_bytes
from fmrgen.results.samples import Sample
from fmrgen.split.judged import labels_of_row
from fmrgen.split.rows import Classified

_FEWEST = 3  # classifiers that an image must mislead all of
_NAMED, _SHOWN = 12, 24  # rows in a note, and in a gallery


class Missed(NamedTuple):
    """Their rows, and the ids of these, or their numbers where they have none."""

    rows: list[int]
    ids: list[int]


def missed_by_all(answers: Sequence[Mapping[str, np.ndarray]], columns: Mapping[str, np.ndarray]) -> Missed | None:
    """Those of all classifiers that are not at chance, by their columns; None of too few."""
    if len(answers) < _FEWEST or any("original_prediction" not in of for of in answers):
        return None
    wrong = np.all([of["original_prediction"] != of["label"] for of in answers], axis=0)
    rows = np.flatnonzero(wrong).tolist()
    return Missed(rows, columns["id"][wrong].tolist() if "id" in columns else rows)


def about_missed(missed: Missed | None, classifiers: int) -> list[str]:
    """A note on them, so many classifiers having been asked."""
    if missed is None or not missed.ids:
        return []
    ids = ",".join(map(str, missed.ids[:_NAMED])) + (",…" if len(missed.ids) > _NAMED else "")
    return [
        f"none of {classifiers} classifiers is right on {len(missed.ids)} of the originals: look at their labels "
        f"(fmrgen show --ids {ids})"
    ]


def samples_of(passed: Classified, rows: Sequence[int]) -> list[Sample]:
    """The first of some rows as a gallery shows them, but for those that it shows already; their images are those that
    were decoded for the classifiers, where these were kept."""
    shown, columns = {sample.row for sample in passed.rows.sampler.samples}, passed.rows.columns
    pixels = {name: passed.images[name].pixels for name in passed.rows.images if name in passed.images}
    if any(of is None for of in pixels.values()):
        return []
    found = []
    for row in [row for row in rows if row not in shown][:_SHOWN]:
        stored = {name: png_bytes(np.asarray(of[row])) for name, of in pixels.items() if of is not None}
        known = {name: values[row].item() for name, values in columns.items() if values.dtype != object}
        if passed.judges:
            known["judges"] = labels_of_row(passed.judges, row)
        found.append(Sample(row, stored["image"], stored.get("original"), known))
    return found
