"""A hypothesis tried: originals are changed along it, against it, and as much in another way, as far as the oracle sees
their class, and one counts where the classifier errs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fmrgen.apps.explain.attributes import Attribute
from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.models import row_seed
from fmrgen.engine.updates import normal
from fmrgen.metrics.sequential_test import log_capital

DOSES = (0.25, 0.5, 0.75, 1.0)
FALSE_DISCOVERIES = 0.05  # the share of names that are wrong, on average
WAYS = ("along", "against", "otherwise")
_TOGETHER = 64
_TRIES = 4  # to make a control as long as its change: to one or two percent

Answers = Callable[[Tensor, np.ndarray], np.ndarray]
Sees = Callable[[Tensor, np.ndarray], np.ndarray]
Move = Callable[[Tensor, np.ndarray, float], Tensor]


@dataclass(frozen=True, eq=False)
class Change:
    """Something that originals can have more or less of.

    Attributes:
        name: for tables.
        words: how an image looks that has more of it (1), less (-1), or another amount (0): each is a hypothesis.
        move: of originals [B, 3, H, W], their places [B] and an amount from -1 to 1, images with so much more of it.
        otherwise: of the same, images changed as much in another way; by default with the same waves elsewhere.
        own_waves: whether that default takes the waves of the image instead, for a change that is of waves itself.
    """

    name: str
    words: Mapping[int, str]
    move: Move
    otherwise: Move | None = None
    own_waves: bool = False

    @classmethod
    def of(cls, attribute: Attribute) -> "Change":
        """Of an attribute, both ways and either."""
        words = {1: attribute.more, -1: attribute.less, 0: attribute.other}
        return cls(
            attribute.name,
            words,
            lambda images, at, amount: attribute.change(images, amount),
            own_waves=attribute.is_of_waves,
        )


@dataclass(frozen=True)
class Hypothesis:
    """That a classifier errs where images have more of something than their originals (1), less (-1), or where they
    have another amount (0): of these, half are given more, half less."""

    change: Change
    sign: int

    @property
    def words(self) -> str:
        return self.change.words[self.sign]


@dataclass(frozen=True)
class Moved:
    """What became of N originals that were changed in one way, dose by dose, as long as the oracle accepted them.

    `said` [N, 1 + D] is what the classifier says of the original, which is right, and at each of the `DOSES`; -1 from
    the first on that the oracle does not accept.
    """

    said: np.ndarray

    @property
    def doses(self) -> np.ndarray:
        """How many the oracle accepts, [N]."""
        found: np.ndarray = (self.said >= 0).sum(1) - 1
        return found

    @property
    def answers(self) -> np.ndarray:
        """What the classifier says at the last of them, [N]; of the original where there is none."""
        found: np.ndarray = np.take_along_axis(self.said, self.doses[:, None], 1)[:, 0]
        return found

    @property
    def by_dose(self) -> list[tuple[int, int]]:
        """Of each dose, how many images the oracle accepts there, and how many of these are wrong."""
        accepted = self.said[:, 1:] >= 0
        wrong = accepted & (self.said[:, 1:] != self.said[:, :1])
        return list(zip(accepted.sum(0).tolist(), wrong.sum(0).tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class Trial:
    """What became of originals under one hypothesis, in each of `WAYS`; there is nothing `against` one of sign 0.

    `signs` [N] is the way along it of each original. `e_value` is the evidence against "errors are no more frequent
    along it than against it, or than otherwise".
    """

    hypothesis: Hypothesis
    moved: dict[str, Moved]
    signs: np.ndarray
    e_value: float

    @property
    def area(self) -> float:
        """How far the curve along it, errors by dose, lies above that of the control that errs more: the mean over all
        doses, in points."""
        means = {
            way: float(np.mean([wrong / max(accepted, 1) for accepted, wrong in of.by_dose]))
            for way, of in self.moved.items()
        }
        return 100 * (means.pop("along") - max(means.values()))

    @classmethod
    def of(cls, hypothesis: Hypothesis, moved: dict[str, Moved], signs: np.ndarray) -> "Trial":
        wrong = {way: of.answers != of.said[:, 0] for way, of in moved.items()}
        evidence = min(_e_value(wrong["along"], wrong[other]) for other in moved if other != "along")
        return cls(hypothesis, moved, signs, evidence)


class Originals:
    """Originals [N, 3, H, W] in [0, 1] that a classifier has right and whose class the oracle sees.

    Args:
        images: the originals.
        ids: [N], which seed what is random.
        labels: [N].
        answers: of images [B, 3, H, W] and the places [B] of their originals, the classifier's labels, [B].
        sees: of the same, whether the oracle accepts them, bool [B].
    """

    def __init__(self, images: Tensor, ids: Sequence[int], labels: np.ndarray, answers: Answers, sees: Sees) -> None:
        self.images, self.ids, self.labels, self._answers, self._sees = images, ids, labels, answers, sees

    def try_out(self, change: Change) -> list[Trial]:
        """Moves them either way, and as much otherwise; one trial for each hypothesis."""
        along = {sign: self._move(partial(self.along, change, sign)) for sign in (1, -1)}
        signs = [sign for sign in (1, -1) if sign in change.words or 0 in change.words]
        control = {sign: self._move(partial(self.otherwise, change, sign)) for sign in signs}
        trials = []
        for sign in change.words:
            if sign:
                moved = dict(zip(WAYS, (along[sign], along[-sign], control[sign]), strict=True))
                drawn = np.full(len(self.ids), sign)
            else:
                drawn = np.array([1 if row_seed(0, i, "either way") % 2 else -1 for i in self.ids])
                moved = {
                    way: Moved(np.where(drawn[:, None] > 0, of[1].said, of[-1].said))
                    for way, of in (("along", along), ("otherwise", control))
                }
            trials.append(Trial.of(Hypothesis(change, sign), moved, drawn))
        return trials

    def along(self, change: Change, sign: int, images: Tensor, at: np.ndarray, dose: float) -> Tensor:
        """Those `images` that are at `at`, with more of a change or less."""
        return on_byte_grid(change.move(images, at, sign * dose))

    def otherwise(self, change: Change, sign: int, images: Tensor, at: np.ndarray, dose: float) -> Tensor:
        """Likewise, changed as much in another way."""
        if change.otherwise is not None:
            return on_byte_grid(change.otherwise(images, at, sign * dose))
        ids = [self.ids[place] for place in at]
        return otherwise(images, self.along(change, sign, images, at, dose), ids, own_waves=change.own_waves)

    def _move(self, move: Callable[[Tensor, np.ndarray, float], Tensor]) -> Moved:
        said = np.full((len(self.labels), 1 + len(DOSES)), -1)
        said[:, 0] = self.labels
        going_on = np.arange(len(self.labels))
        for number, dose in enumerate(DOSES, start=1):
            accepted_of_all = []
            for at in np.split(going_on, range(_TOGETHER, len(going_on), _TOGETHER)):
                changed = move(self.images[torch.from_numpy(at).to(self.images.device)], at, dose)
                accepted = self._sees(changed, at)
                accepted_of_all.append(at[accepted])
                if accepted.any():
                    answers = self._answers(changed[torch.from_numpy(accepted).to(changed.device)], at[accepted])
                    said[at[accepted], number] = answers
            going_on = np.concatenate(accepted_of_all)
            if not len(going_on):
                break
        return Moved(said)


def otherwise(images: Tensor, changed: Tensor, ids: Sequence[int], *, own_waves: bool = False) -> Tensor:
    """Images with another change of equal length [B, 3, H, W]: the same waves as in `changed` minus `images`, lying
    elsewhere, which `ids` seed; where black and white cut it short, waves that are so much stronger. With `own_waves`
    they are those of the images."""
    height, width = images.shape[-2:]
    noise = torch.stack([normal([height, width], row_seed(0, i, "otherwise")) for i in ids])
    phases = torch.fft.rfft2(noise.to(images)).angle().unsqueeze(1)
    wanted = _length(changed - images)
    strong = torch.fft.rfft2(images - images.mean((2, 3), keepdim=True) if own_waves else changed - images).abs()
    change = torch.fft.irfft2(torch.polar(strong, phases.expand(-1, images.shape[1], -1, -1)), s=(height, width))
    strength = wanted / _length(change).clamp(min=1e-6) if own_waves else torch.ones_like(wanted)
    for _ in range(_TRIES):
        moved = (images + strength * change).clamp(0, 1)
        strength = strength * wanted / _length(moved - images).clamp(min=1e-6)
    return on_byte_grid((images + strength * change).clamp(0, 1))


def _length(change: Tensor) -> Tensor:
    return change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _e_value(more: np.ndarray, less: np.ndarray) -> float:
    """Against "`more` [N] is True no more often than `less`", of the same rows."""
    if not len(more):
        return 1.0
    capital, _ = log_capital(more.astype(np.int8) - less.astype(np.int8), 0.0)
    return math.exp(min(float(capital[-1]), 700.0))


def proven(trials: Sequence[Trial]) -> list[Trial]:
    """Those that stand, the strongest evidence first: on average at most `FALSE_DISCOVERIES` of them are false, however
    the trials hang together (e-BH, Wang and Ramdas 2022)."""
    ordered = sorted(trials, key=lambda trial: -trial.e_value)
    kept = 0
    for rank, trial in enumerate(ordered, start=1):
        if trial.e_value >= len(trials) / (FALSE_DISCOVERIES * rank):
            kept = rank
    return ordered[:kept]


def fewest_errors(rows: int, hypotheses: int) -> int | None:
    """How many of so many originals a change must make wrong, where nothing else makes any wrong, to be proven alone;
    None where all of them are too few."""
    for errors in range(1, rows + 1):
        more = np.arange(rows) < errors
        if _e_value(more, np.zeros(rows, bool)) >= hypotheses / FALSE_DISCOVERIES:
            return errors
    return None
