"""Which class NEW takes each class for next, where OLD does not: two classes that were mixed up while it was trained.

Where a tenth of the labels of two classes were swapped, a network still answers right, and no error shows it. But
after the right class it finds the other likeliest, on nearly all images. Ranks alone count, so that a network that is
less sure of everything (trained with smoothed labels, distilled) is not suspected for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

_FEWEST = 8  # images of a class
_ERROR = 0.01  # two trainings of one recipe do differ in some ranks, so this asks for more than chance
_SHARE = 0.5  # of them, at least, on which NEW's next choice is the other class


@dataclass(frozen=True)
class Confusion:
    """A class that NEW finds likeliest after the label, on most images of a class, and OLD on few.

    Attributes:
        label: the class of the images.
        other: the next choice.
        images: of the class.
        new, old: numbers of images on which it is the next choice of either.
        p_value: of an exact sign test, two-sided, times the number of pairs of classes.
    """

    label: str
    other: str
    images: int
    new: int
    old: int
    p_value: float

    @property
    def phrase(self) -> str:
        """What it says, as a part of a sentence."""
        return f"on {self.new} of {self.images} images of {self.label} its next choice is {self.other}"

    @property
    def line(self) -> str:
        """What it says, in a sentence."""
        return (
            f"NEW may mix up {self.label} and {self.other}: {self.phrase}, after the label (OLD's on {self.old}, p "
            f"{self.p_value:.2g}): are training images of the two labelled wrong?"
        )


def confusions_of(labels: np.ndarray, old: np.ndarray, new: np.ndarray, names: Sequence[str]) -> list[Confusion]:
    """Return the pairs of classes that NEW may mix up and OLD does not, the surest first.

    Args:
        labels: of the images, [N], from 0 to K - 1.
        old: the class that OLD finds likeliest besides the label, [N].
        new: likewise of NEW.
        names: of the K classes.
    """
    confusions = []
    classes = [label for label in range(len(names)) if (labels == label).sum() >= _FEWEST]
    pairs = len(classes) * (len(names) - 1)
    for label in classes:
        members = labels == label
        of_old, of_new = old[members], new[members]
        other = int(np.bincount(of_new).argmax())
        count, count_of_old = int((of_new == other).sum()), int((of_old == other).sum())
        gained = int(((of_new == other) & (of_old != other)).sum())
        lost = int(((of_old == other) & (of_new != other)).sum())
        if count < _SHARE * len(of_new) or gained <= lost:
            continue
        p_value = min(1.0, pairs * float(binomtest(gained, gained + lost).pvalue))
        if p_value <= _ERROR:
            confusions.append(Confusion(names[label], names[other], len(of_new), count, count_of_old, p_value))
    return sorted(confusions, key=lambda confusion: confusion.p_value)
