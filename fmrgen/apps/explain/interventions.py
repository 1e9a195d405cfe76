"""Trials of hypotheses: originals are changed along one, against it, and as much in another way, as far as the oracle
sees their class, and the classifier's errors are counted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fmrgen.apps.explain.attributes import Attribute
from fmrgen.apps.explain.rows import DrawnRows
from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.models import row_seed
from fmrgen.engine.updates import normal
from fmrgen.metrics.intervals import sign_test

DOSES = (0.25, 0.5, 0.75, 1.0)
ERROR = 0.05  # the chance that any name is wrong
_BATCH = 64
# The smallest and the largest amount of a change, as of `Attribute.change`, by the sign of a trial.
AMOUNTS = {1: (0.0, 1.0), -1: (-1.0, 0.0), 0: (-1.0, 1.0)}


@dataclass(frozen=True)
class Moved:
    """Predictions for N originals that were changed in one way, dose by dose, as long as the oracle accepted them.

    `predictions` [N, 1 + D] has the classifier's prediction for the original, which is right, and at each of the
    `DOSES`; -1 from the first dose on that the oracle does not accept.
    """

    predictions: np.ndarray

    @property
    def doses(self) -> np.ndarray:
        """The number of doses that the oracle accepts, [N]."""
        return np.asarray((self.predictions >= 0).sum(1) - 1)

    @property
    def last(self) -> np.ndarray:
        """The prediction at the last accepted dose, [N]; that for the original if none is accepted."""
        return np.asarray(np.take_along_axis(self.predictions, self.doses[:, None], 1)[:, 0])

    @property
    def by_dose(self) -> list[tuple[float, int, int]]:
        """Each dose, how many images the oracle accepts, and how many of these the classifier has wrong."""
        accepted = self.predictions[:, 1:] >= 0
        wrong = accepted & (self.predictions[:, 1:] != self.predictions[:, :1])
        return list(zip(DOSES, accepted.sum(0).tolist(), wrong.sum(0).tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class Trial:
    """A hypothesis, that a classifier errs where images have more of something than their originals, and its outcome.

    `sign` is 1 for more, -1 for less, and 0 for either: then half of the originals get more, half less.
    """

    attribute: Attribute
    sign: int
    moved: dict[str, Moved]  # predictions `along` it, `against` it (missing for sign 0) and `otherwise`
    signs: np.ndarray  # [N], whether each original was given more (1) or less (-1) along it

    @property
    def words(self) -> str:
        return {1: self.attribute.more, -1: self.attribute.less, 0: self.attribute.other}[self.sign]

    @cached_property
    def p_value(self) -> float:
        """Of McNemar's exact test that errors are no more frequent along it than under a control; the larger."""
        wrong = {way: moved.last != moved.predictions[:, 0] for way, moved in self.moved.items()}
        along = wrong.pop("along")
        return max(p_of_more(along, in_control) for in_control in wrong.values())

    @property
    def area(self) -> float:
        """How far the curve along it, errors by dose, lies above that of the control that errs more.

        The mean over all doses, in points.
        """
        means = {}
        for way, moved in self.moved.items():
            means[way] = float(np.mean([wrong / max(accepted, 1) for _, accepted, wrong in moved.by_dose]))
        return 100 * (means.pop("along") - max(means.values()))


def try_out(rows: DrawnRows, attribute: Attribute) -> list[Trial]:
    """Change originals by an attribute both ways, and as much otherwise; return one trial for each hypothesis.

    The classifier has the originals right, and the oracle sees their class.
    """
    along = {sign: _moved(rows, attribute, sign) for sign in (1, -1)}
    control = {sign: _moved(rows, attribute, sign, as_control=True) for sign in (1, -1)}
    trials = []
    for sign in (1, -1):
        moved = {"along": along[sign], "against": along[-sign], "otherwise": control[sign]}
        trials.append(Trial(attribute, sign, moved, np.full(len(rows), sign)))
    signs = np.array([1 if row_seed(0, example_id, "either way") % 2 else -1 for example_id in rows.ids])
    either = {}
    for way, by_sign in {"along": along, "otherwise": control}.items():
        either[way] = Moved(np.where(signs[:, None] > 0, by_sign[1].predictions, by_sign[-1].predictions))
    return [*trials, Trial(attribute, 0, either, signs)]


def _moved(rows: DrawnRows, attribute: Attribute, sign: int, *, as_control: bool = False) -> Moved:
    """Return the predictions for all originals, changed dose by dose until the oracle rejects them.

    They get more of an attribute (`sign` 1) or less (-1); as a control they are changed as much in another way.
    """
    predictions = np.full((len(rows), 1 + len(DOSES)), -1)
    predictions[:, 0] = rows.labels
    remaining = np.arange(len(rows))
    for number, dose in enumerate(DOSES, start=1):
        for start in range(0, len(remaining), _BATCH):
            at = remaining[start : start + _BATCH]
            part = rows.at(at)
            changed = on_byte_grid(attribute.change(part.originals, sign * dose))
            if as_control:
                changed = otherwise(part.originals, changed, part.ids, own_waves=attribute.is_of_waves)
            accepted = part.accepts(changed)
            if accepted.any():
                images = changed[torch.from_numpy(accepted).to(changed.device)]
                predictions[at[accepted], number] = part.at(accepted).predictions(images)
        remaining = np.flatnonzero(predictions[:, number] >= 0)
    return Moved(predictions)


def otherwise(images: Tensor, changed: Tensor, ids: Sequence[int], *, own_waves: bool = False) -> Tensor:
    """Return images with another change of equal length [B, 3, H, W]: the same waves with random phases.

    Where black and white cut it short, the waves are made stronger. `images` [B, 3, H, W] are in [0, 1], likewise
    `changed`, after the change to match; `ids` [B] seed the phases. With `own_waves` the waves are those of the images
    instead of those of `changed - images`.
    """
    height, width = images.shape[-2:]
    noise = torch.stack([normal([height, width], row_seed(0, i, "otherwise")) for i in ids])
    phases = torch.fft.rfft2(noise.to(images)).angle().unsqueeze(1)
    wanted = _length(changed - images)
    waves = images - images.mean((2, 3), keepdim=True) if own_waves else changed - images
    magnitudes = torch.fft.rfft2(waves).abs()
    change = torch.fft.irfft2(torch.polar(magnitudes, phases.expand(-1, images.shape[1], -1, -1)), s=(height, width))
    strength = wanted / _length(change).clamp(min=1e-6) if own_waves else torch.ones_like(wanted)
    for _ in range(4):  # makes it as long as the change, to one or two percent
        moved = (images + strength * change).clamp(0, 1)
        strength = strength * wanted / _length(moved - images).clamp(min=1e-6)
    return on_byte_grid((images + strength * change).clamp(0, 1))


def _length(change: Tensor) -> Tensor:
    return change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def p_of_more(first: np.ndarray, second: np.ndarray) -> float:
    """Return the one-sided p-value of McNemar's exact test that `first` is no more often True than `second`, [N]."""
    return sign_test(int((first & ~second).sum()), int((second & ~first).sum()))


def confirmed(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials whose hypothesis is confirmed, the smallest p-value first.

    With a probability of `ERROR` at most any of them is false, however the trials depend on each other (Holm 1979).
    """
    ordered = sorted(trials, key=lambda trial: trial.p_value)
    for number, trial in enumerate(ordered):
        if trial.p_value > ERROR / (len(trials) - number):
            return ordered[:number]
    return ordered


def fewest_errors(rows: int, hypotheses: int) -> int | None:
    """Return how many of `rows` originals a change must make wrong, and its controls none, to be confirmed alone.

    None if all of them are too few. `hypotheses` is the number of those that are tried together.
    """
    errors = math.ceil(math.log2(hypotheses / ERROR))
    return errors if errors <= rows else None
