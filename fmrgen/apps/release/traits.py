"""What the images that broke look like, beside those that were fixed.

Two trainings of one recipe break and fix the same kinds of images: those that are hard for both. So what was fixed is
the control: if what broke is darker, NEW fails on dark images, and not only because dark images are hard.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu
from torch import Tensor

from fmrgen.apps.explain.attributes import ATTRIBUTES, measured
from fmrgen.apps.explain.betting import ERROR

_FEWEST = 8  # images of each kind


@dataclass(frozen=True)
class Trait:
    """An attribute in which images that broke differ from images that were fixed.

    Attributes:
        words: what those that broke are, as "darker images".
        share: of all pairs of one that broke and one that was fixed, in which this holds, in percent; 50 by chance.
        p_value: of Mann and Whitney's test (1947), two-sided, times the number of attributes.
        broke, fixed: numbers of images.
    """

    words: str
    share: float
    p_value: float
    broke: int
    fixed: int

    @property
    def phrase(self) -> str:
        """What it says, as a part of a sentence."""
        return f"beside what was fixed, what broke are {self.words}"

    @property
    def line(self) -> str:
        """What it says, in a sentence."""
        return (
            f"{self.phrase}: in {self.share:.0f} % of all pairs of one of "
            f"{self.broke:,} and one of {self.fixed:,} (50 % by chance, p {self.p_value:.2g})"
        )


def measures_of(images: Tensor) -> np.ndarray:
    """Return the amount of each attribute in images [N, 3, H, W] in [0, 1], [N, A]."""
    return np.stack([measured(attribute, images) for attribute in ATTRIBUTES], axis=1)


def traits_of(broke: np.ndarray, fixed: np.ndarray) -> list[Trait]:
    """Return in which attributes what broke differs from what was fixed, the surest first; none for few images.

    Args:
        broke: measures [B, A] of images that OLD has right and NEW wrong.
        fixed: measures [F, A] of images of which it is the other way round.
    """
    if min(len(broke), len(fixed)) < _FEWEST:
        return []
    traits = []
    for attribute, of_broke, of_fixed in zip(ATTRIBUTES, broke.T, fixed.T, strict=True):
        test = mannwhitneyu(of_broke, of_fixed)
        share = 100 * float(test.statistic) / (len(of_broke) * len(of_fixed))
        words = attribute.more if share > 50 else attribute.less
        p_value = min(1.0, len(ATTRIBUTES) * float(test.pvalue))
        if np.isfinite(p_value) and p_value <= ERROR:
            traits.append(Trait(words, max(share, 100 - share), p_value, len(of_broke), len(of_fixed)))
    return sorted(traits, key=lambda trait: trait.p_value)
