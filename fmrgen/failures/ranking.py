"""Of several changes that make a classifier err, which accounts for the errors of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from fmrgen.failures.interventions import DOSES, Change, Originals, Trial

_MOST = 64  # originals that are looked at


@dataclass(frozen=True)
class _Changed:
    """Images [M, 3, H, W] that were made of originals, whose places [M] those are; whether each is wrong, [M]."""

    images: Tensor
    places: np.ndarray
    wrong: np.ndarray


def accounts(originals: Originals, trials: Sequence[Trial], ranked: Sequence[Trial]) -> list[float | None]:
    """How well each of `ranked` tells, by its own measure alone, which of all changed images are wrong.

    A classifier that errs on thick strokes errs on blurred ones, and on larger ones; but whichever way images were
    changed, their strokes say best whether it errs.

    Args:
        originals: that were tried.
        trials: of all changes.
        ranked: those of interest.

    Returns:
        For each the area under its ROC curve: the share of pairs, of a wrong image and a right one, in which the wrong
        one has moved further this way; .5 tells nothing. None where all are right.
    """
    changed = [part for trial in trials for part in _changed(originals, trial)]
    wrong = np.concatenate([part.wrong for part in changed]) if changed else np.zeros(0, bool)
    if wrong.all() or not wrong.any():
        return [None] * len(ranked)
    measured: dict[str, np.ndarray] = {}
    found: list[float | None] = []
    for trial in ranked:
        change, sign = trial.hypothesis.change, trial.hypothesis.sign
        if change.name not in measured:
            before = _measured(change, originals.images[:_MOST], np.arange(min(_MOST, len(originals.images))))
            after = [_measured(change, part.images, part.places) - before[part.places] for part in changed]
            measured[change.name] = np.concatenate(after)
        moved = measured[change.name]
        found.append(float(roc_auc_score(wrong, sign * moved if sign else np.abs(moved))))
    return found


def _changed(originals: Originals, trial: Trial) -> list[_Changed]:
    """The images of a trial, along it and otherwise, at each dose that the oracle accepts."""
    if not trial.hypothesis.sign:  # its images are those of more and of less
        return []
    found = []
    for way, make in (("along", originals.along), ("otherwise", originals.otherwise)):
        said = trial.moved[way].said[:_MOST]
        for number, dose in enumerate(DOSES, start=1):
            places = np.flatnonzero(said[:, number] >= 0)
            if len(places):
                of = originals.images[torch.from_numpy(places).to(originals.images.device)]
                images = make(trial.hypothesis.change, trial.hypothesis.sign, of, places, dose)
                found.append(_Changed(images, places, said[places, number] != said[places, 0]))
    return found


def _measured(change: Change, images: Tensor, places: np.ndarray) -> np.ndarray:
    values: np.ndarray = change.measure(images, places).double().cpu().numpy()
    return values
