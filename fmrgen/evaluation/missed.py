"""Originals that no classifier names right: either they are hard for all, or their label is wrong."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

_FEWEST = 3  # classifiers that an image must mislead all of
_NAMED = 12  # rows in a note


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
