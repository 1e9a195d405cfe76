"""Whether a classifier is right more often if its images are prepared in another way.

A network that is fed blue for red, or images of another scale than in training, fails on plain images of every class.
To prepare them as in training costs nothing, so it is the first thing to try.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fmrgen.apps.explain.betting import ERROR, drops_of, e_value
from fmrgen.apps.explain.rows import JudgedImages

Change = Callable[[Tensor], Tensor]

# What goes wrong in preparing images: channels in another order, mirrored or turned arrays, a negative.
MISTAKES: dict[str, Change] = {
    "red and blue exchanged": lambda images: images.flip(1),
    "left and right exchanged": lambda images: images.flip(3),
    "top and bottom exchanged": lambda images: images.flip(2),
    "a quarter turn to the left": lambda images: images.rot90(1, (2, 3)),
    "a quarter turn to the right": lambda images: images.rot90(-1, (2, 3)),
    "light and dark exchanged": lambda images: 1 - images,
}


def _normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> Change:
    def change(images: Tensor) -> Tensor:
        means, deviations = (images.new_tensor(values).view(3, 1, 1) for values in (mean, std))
        return (images - means) / deviations

    return change


# Scales that networks are trained with; the images of a job are from 0 to 1.
SCALES: dict[str, Change] = {
    "pixels from 0 to 255": lambda images: 255 * images,
    "pixels from -1 to 1": lambda images: 2 * images - 1,
    "ImageNet's mean and deviation": _normalised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CLIP's mean and deviation": _normalised((0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)),
}


@dataclass(frozen=True)
class Preparation:
    """A way to prepare images by which the classifier is right more often.

    Attributes:
        words: the way, as "red and blue exchanged".
        images: number of originals.
        before: accuracy on them as they are, in percent.
        after: accuracy prepared so.
    """

    words: str
    images: int
    before: float
    after: float

    @property
    def line(self) -> str:
        """What it says, in a sentence."""
        return (
            f"the classifier has {self.after:.1f} % of {self.images:,} originals right with {self.words}, and "
            f"{self.before:.1f} % as they are: prepare images as in training"
        )


def preparations_of(rows: JudgedImages) -> list[Preparation]:
    """Return the ways by which the classifier is right more often, the best first.

    On average at most 5 % of classifiers that are fed correctly get one.

    Args:
        rows: originals, with the classifier.
    """
    ways = {**MISTAKES, **SCALES}
    right = rows.answers(rows.originals) == rows.labels
    preparations = []
    for words, change in ways.items():
        changed = rows.answers(change(rows.originals)) == rows.labels
        if e_value(drops_of(changed, right), 0.0) >= len(ways) / ERROR:
            preparations.append(Preparation(words, len(rows), 100 * float(right.mean()), 100 * float(changed.mean())))
    return sorted(preparations, key=lambda preparation: -preparation.after)
