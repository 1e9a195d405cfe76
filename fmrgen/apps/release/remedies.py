"""Under which change of the originals NEW is right more often.

A network that was trained on blurred images, or is fed blue for red, fails on plain images of every class, and no
condition stands out among its errors. Changed the other way, its images are right again. OLD is the control.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor, nn

from fmrgen.apps.explain.attributes import ATTRIBUTES
from fmrgen.apps.explain.betting import ERROR
from fmrgen.apps.explain.preparation import MISTAKES
from fmrgen.apps.explain.rows import JudgedImages
from fmrgen.apps.release.evidence import p_of_loss
from fmrgen.engine.images import on_byte_grid

_DOSES = (0.5, 1.0)
_BATCH = 64


@dataclass(frozen=True)
class Remedy:
    """A change of the originals under which NEW is right more often, and gains more than OLD.

    Attributes:
        words: what the originals are changed to, as "blurred images".
        images: number of originals.
        new_before, new_after: accuracy of NEW in percent, on the originals as they are and changed.
        old_before, old_after: likewise of OLD.
        p_value: of two exact sign tests the larger, one of whether NEW gains and one of whether it gains more than OLD,
            times the number of changes that were tried.
    """

    words: str
    images: int
    new_before: float
    new_after: float
    old_before: float
    old_after: float
    p_value: float

    @property
    def phrase(self) -> str:
        """What it says, as a part of a sentence."""
        return (
            f"of {self.images:,} originals NEW has {self.new_after:.1f} % right with {self.words}, and "
            f"{self.new_before:.1f} % as they are"
        )

    @property
    def line(self) -> str:
        """What it says, in a sentence."""
        return (
            f"{self.phrase} (OLD {self.old_after:.1f} and {self.old_before:.1f} %, p {self.p_value:.2g}); perhaps it "
            "was trained on such images, or its images are prepared in another way"
        )


def remedies_of(rows: JudgedImages, old: nn.Module) -> list[Remedy]:
    """Return under which changes NEW is right more often, the largest gain first; of each the better strength.

    Args:
        rows: originals, judged by NEW.
        old: the network OLD, which answers in the same labels.
    """
    before = rows.judged_by(old)
    new_right = rows.answers(rows.originals) == rows.labels
    old_right = before.answers(before.originals) == before.labels
    changes = list(_changes())
    remedies: dict[str, Remedy] = {}
    for words, change in changes:
        new_changed = new_right.copy()
        new_changed[~new_right] = _right(rows.of(~new_right), change)
        if len(changes) * _p_of_gain(new_right, new_changed) > ERROR:  # even if it lost nothing
            continue
        new_changed[new_right] = _right(rows.of(new_right), change)
        p_value = len(changes) * _p_of_gain(new_right, new_changed)
        if p_value > ERROR:
            continue
        old_changed = _right(before, change)
        gains = (new_changed.astype(int) - new_right) - (old_changed.astype(int) - old_right)
        p_value = max(p_value, len(changes) * p_of_loss(int((gains > 0).sum()), int((gains < 0).sum()), len(rows), 0))
        remedy = Remedy(
            words,
            len(rows),
            new_before=100 * float(new_right.mean()),
            new_after=100 * float(new_changed.mean()),
            old_before=100 * float(old_right.mean()),
            old_after=100 * float(old_changed.mean()),
            p_value=p_value,
        )
        if p_value <= ERROR and (words not in remedies or remedies[words].new_after < remedy.new_after):
            remedies[words] = remedy
    return sorted(remedies.values(), key=lambda remedy: -remedy.new_after)


def _changes() -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    yield from MISTAKES.items()
    for attribute in ATTRIBUTES:
        for sign, words in ((1, attribute.more), (-1, attribute.less)):
            for dose in _DOSES:
                yield words, partial(attribute.change, amount=sign * dose)


def _right(rows: JudgedImages, change: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Return which changed originals the network has right, bool [N]."""
    right = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(rows), _BATCH):
        places = np.arange(start, min(start + _BATCH, len(rows)))
        batch = rows.at(places)
        right[places] = batch.answers(on_byte_grid(change(batch.originals))) == batch.labels
    return right


def _p_of_gain(before: np.ndarray, after: np.ndarray) -> float:
    """Return the one-sided p-value of a gain from `before` to `after`, bool [N], by an exact sign test."""
    return p_of_loss(int((after & ~before).sum()), int((before & ~after).sum()), len(before), 0)
