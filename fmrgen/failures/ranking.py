"""Of several changes that make a classifier err, which accounts for the errors of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from fmrgen.failures.interventions import DOSES, Change, Originals, Trial

_MOST = 64  # originals that are looked at
_FREEDOM = 0.01  # of the model, scikit-learn's C: so little that one of two that go together is left out


@dataclass(frozen=True)
class _Changed:
    """Images [M, 3, H, W] that were made of originals, whose places [M] those are; whether each is wrong, [M]."""

    images: Tensor
    places: np.ndarray
    wrong: np.ndarray


def accounts(originals: Originals, trials: Sequence[Trial]) -> list[float | None]:
    """How much of what makes changed images wrong each hypothesis accounts for, beside all others.

    A classifier that errs on small shapes errs on thin strokes perhaps, for small shapes have such. So a sparse
    logistic model is fitted to all images that were made, whatever was changed in them: by how much each has more, and
    less, of every measure than its original, and whether it is wrong.

    Args:
        originals: that were tried.
        trials: of all changes.

    Returns:
        For each trial its share of the model's weights, from 0 to 1; None where all images are right, or the model
        finds nothing. A hypothesis of another amount has the shares of more and of less.
    """
    changed = [part for trial in trials for part in _changed(originals, trial)]
    wrong = np.concatenate([part.wrong for part in changed]) if changed else np.zeros(0, bool)
    changes = {trial.hypothesis.change.name: trial.hypothesis.change for trial in trials}
    if wrong.all() or not wrong.any():
        return [None] * len(trials)
    first = originals.images[:_MOST]
    before = {name: _measured(change, first, np.arange(len(first))) for name, change in changes.items()}
    moves: dict[str, list[np.ndarray]] = {name: [] for name in changes}
    for of in changed:  # of each images all measures, since several may go by one encoding
        for name, change in changes.items():
            moves[name].append(_measured(change, of.images, of.places) - before[name][of.places])
    columns: dict[tuple[str, int], np.ndarray] = {}
    for name, parts_of in moves.items():
        moved = np.concatenate(parts_of)
        moved = moved / (moved.std() or 1)
        columns |= {(name, sign): np.maximum(sign * moved, 0) for sign in (1, -1)}
    parts = np.stack(list(columns.values()), axis=1)
    model = LogisticRegression(l1_ratio=1, C=_FREEDOM, solver="liblinear", class_weight="balanced", random_state=0).fit(
        parts, wrong
    )
    weights = dict(zip(columns, model.coef_[0].clip(min=0), strict=True))  # of a standard deviation of its measure
    if (total := sum(weights.values())) == 0:
        return [None] * len(trials)
    found: list[float | None] = []
    for trial in trials:
        name, sign = trial.hypothesis.change.name, trial.hypothesis.sign
        found.append(float(sum(weights[name, one] for one in ((sign,) if sign else (1, -1))) / total))
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
