"""Which class NEW takes each class for next, where OLD does not: two classes that were mixed up while it was trained.

Where a tenth of the labels of two classes were swapped, a network still answers right, and no error shows it. But
after the right class it finds the other likeliest, on nearly all images, and by a smaller margin than elsewhere.
Ranks count, and margins beside those of the other classes, so that a network that is less sure of everything (trained
with smoothed labels, distilled) is not suspected for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

_FEWEST = 8  # images of a class
_ERROR = 0.01  # two trainings of one recipe do differ in some ranks, so this asks for more than chance
_SHARE = 0.5  # of a class's images, at least, on which NEW's next choice is the other class
_CLOSE = 0.75  # of the usual margin, at most; two trainings of one recipe have 0.9 and more


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
        images: of the class.
        new, old: numbers of images on which it is the next choice of either.
        margin: the median margin of NEW on these images in percent of OLD's, divided by the same of a usual class.
        p_value: of an exact sign test, two-sided, times the number of pairs of classes.
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
            f"is {self.other} (on {self.old} for OLD, p {self.p_value:.2g}), at {self.margin:.0f} % of the usual "
            "margin; are training images of the two labelled wrong?"
        )


def confusions_of(labels: np.ndarray, old: NextChoices, new: NextChoices, names: Sequence[str]) -> list[Confusion]:
    """Return the pairs of classes that NEW may mix up and OLD does not, the surest first.

    Args:
        labels: of the images, [N], from 0 to K - 1.
        old: what OLD finds likeliest besides the label.
        new: likewise of NEW.
        names: of the K classes.
    """
    margins = {}  # of NEW beside OLD
    for label in np.unique(labels).tolist():
        members = labels == label
        of_old = np.median(old.margins[members])
        if members.sum() >= _FEWEST and of_old > 0:
            margins[label] = float(np.median(new.margins[members]) / of_old)
    if not margins:
        return []
    usual = float(np.median(list(margins.values())))
    pairs = len(margins) * (len(names) - 1)
    confusions = []
    for label, margin in margins.items():
        members = labels == label
        choices_of_old, choices_of_new = old.classes[members], new.classes[members]
        other = int(np.bincount(choices_of_new).argmax())
        is_of_new, is_of_old = choices_of_new == other, choices_of_old == other
        gained, lost = int((is_of_new & ~is_of_old).sum()), int((is_of_old & ~is_of_new).sum())
        if is_of_new.mean() < _SHARE or gained <= lost or margin > _CLOSE * usual:
            continue
        p_value = min(1.0, pairs * float(binomtest(gained, gained + lost).pvalue))
        if p_value <= _ERROR:
            confusions.append(
                Confusion(
                    label=names[label],
                    other=names[other],
                    images=len(is_of_new),
                    new=int(is_of_new.sum()),
                    old=int(is_of_old.sum()),
                    margin=100 * margin / usual,
                    p_value=p_value,
                )
            )
    return sorted(confusions, key=lambda confusion: confusion.p_value)
