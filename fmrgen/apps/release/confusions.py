"""Which class NEW takes each class for next, where OLD does not: two classes that were mixed up while it was trained.

Where a tenth of the labels of two classes were swapped, a network still answers right, and no error shows it. But
after the right class it finds the other likeliest, on nearly all images, and by a smaller margin than elsewhere.
Ranks count, and margins beside those of the other classes, which no temperature changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fmrgen.apps.release.evidence import mcnemar

_FEWEST = 8  # images of a class
_ERROR = 0.01
_SHARE = 0.5  # of a class's images, at least, on which NEW's next choice is the other class
# Of the usual margin, at most. Trainings of one recipe differ in some ranks by more than chance, as all images of a
# class share them; but not by so much in their margins (docs/results/init.md).
_CLOSE = 0.75


@dataclass(frozen=True)
class NextChoices:
    """What a network finds likeliest besides the label.

    Attributes:
        classes: of N images, [N].
        margins: by how much the logit of the label is larger, [N].
    """

    classes: np.ndarray
    margins: np.ndarray


@dataclass(frozen=True)
class Confusion:
    """A class that NEW finds likeliest after the label, on most images of a class, and OLD on few.

    Attributes:
        label: the class of the images.
        other: the next choice.
        images: of the class, that both have right.
        new, old: numbers of images on which it is the next choice of either.
        margin: the median margin of NEW on these images as a share of OLD's, in percent of the same share of a usual
            class.
        p_value: of McNemar's exact test, times the number of pairs of classes. Another training may have one as small.
    """

    label: str
    other: str
    images: int
    new: int
    old: int
    margin: float
    p_value: float

    @property
    def phrase(self) -> str:
        """What it says, as a part of a sentence."""
        return f"NEW may mix up {self.label} and {self.other}"

    @property
    def line(self) -> str:
        """What it says, in a sentence."""
        return (
            f"{self.phrase}: on {self.new} of {self.images} images of {self.label} the likeliest class after the label "
            f"is {self.other} (on {self.old} for OLD), at {self.margin:.0f} % of the usual margin; are training images "
            "of the two labelled wrong?"
        )


def confusions_of(labels: np.ndarray, old: NextChoices, new: NextChoices, names: Sequence[str]) -> list[Confusion]:
    """Return the pairs of classes that NEW may mix up and OLD does not, the surest first.

    Of two classes it says nothing, for there is no other choice.

    Args:
        labels: of images that both networks have right, [N], from 0 to K - 1.
        old: what OLD finds likeliest besides the label.
        new: likewise of NEW.
        names: of the K classes.
    """
    shares = {}  # of OLD's margin, that NEW has
    for label in np.unique(labels).tolist():
        members = labels == label
        of_old = float(np.median(old.margins[members]))
        if members.sum() >= _FEWEST and of_old > 0:
            shares[label] = float(np.median(new.margins[members])) / of_old
    pairs = len(shares) * (len(names) - 1)
    confusions = []
    for label, share in shares.items():
        members = labels == label
        choices_of_old, choices_of_new = old.classes[members], new.classes[members]
        other = int(np.bincount(choices_of_new).argmax())
        is_of_new, is_of_old = choices_of_new == other, choices_of_old == other
        gained, lost = int((is_of_new & ~is_of_old).sum()), int((is_of_old & ~is_of_new).sum())
        p_value = min(1.0, pairs * float(mcnemar(np.array([gained]), np.array([lost]))[0]))
        usual = [of_class for name, of_class in shares.items() if name not in (label, other)]
        if is_of_new.mean() < _SHARE or gained <= lost or p_value > _ERROR or not usual:
            continue
        margin = share / float(np.median(usual)) if np.median(usual) > 0 else 1.0
        if margin <= _CLOSE:
            confusions.append(
                Confusion(
                    label=names[label],
                    other=names[other],
                    images=len(is_of_new),
                    new=int(is_of_new.sum()),
                    old=int(is_of_old.sum()),
                    margin=100 * margin,
                    p_value=p_value,
                )
            )
    return sorted(confusions, key=lambda confusion: confusion.p_value)
