"""How far judges agree beyond chance: Cohen's kappa of two, Krippendorff's alpha of any number.

Either depends only on how many images there are of each combination of answers. So drawing images anew is drawing these
numbers, whatever the number of images is.
"""

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from fmrgen.metrics.intervals import CONFIDENCE, Estimate, apart_by, has_no_width, most_unseen

_RESAMPLES = 1_000
_AT_ONCE = 100  # there may be as many combinations as images

# Of numbers of images of each combination, [R, P]: the disagreement that there is, and the one by chance, [R] each.
_Disagreement = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def cohen_kappa(ours: np.ndarray, theirs: np.ndarray) -> Estimate | None:
    """Cohen's kappa of two judges.

    Args:
        ours: what one says of the images, int [N].
        theirs: what the other says of the same images, int [N].

    Returns:
        At most 1, which is always the same, with the bootstrap's interval; None for fewer than two images, or where all
        are said to be the same.
    """
    pairs, counts = np.unique(np.stack([ours, theirs]), axis=1, return_counts=True)
    differ, (by_one, by_other) = pairs[0] != pairs[1], (_numbers_of(labels[None], pairs) for labels in pairs)

    def disagreement(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total = images.sum(1)
        by_chance = ((images @ by_one) * (images @ by_other)).sum(1) / total**2
        return images @ differ / total, 1 - by_chance

    return _coefficient(counts, disagreement)


def krippendorff_alpha(labels: np.ndarray, unasked: int) -> Estimate | None:
    """Krippendorff's alpha of any number of judges, for labels without an order.

    Args:
        labels: what each says of each image, int [J, N].
        unasked: stands for nothing said.

    Returns:
        At most 1, which is always the same, with the bootstrap's interval; None where fewer than two images were seen
        by several, or all are said to be the same.
    """
    several = np.sort(labels[:, (labels != unasked).sum(0) > 1], axis=0)
    said, counts = np.unique(several, axis=1, return_counts=True)
    judges, votes = (said != unasked).sum(0), _numbers_of(said, said, unasked)
    apart = (judges**2 - votes.power(2).sum(1)) / (judges - 1)

    def disagreement(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total, by_label = images @ judges, images @ votes
        return images @ apart / total, (total**2 - (by_label**2).sum(1)) / (total * (total - 1))

    return _coefficient(counts, disagreement)


def _numbers_of(said: np.ndarray, all_said: np.ndarray, unasked: int | None = None) -> csr_array:
    """How often each of the labels in `all_said` stands in each column of `said` [J, P]: [P, labels]."""
    known = np.unique(all_said)
    judges, columns = np.nonzero(said != unasked)
    places = np.searchsorted(known, said[judges, columns])
    return csr_array((np.ones(len(places)), (columns, places)), shape=(said.shape[1], len(known)))


def _coefficient(counts: np.ndarray, disagreement: _Disagreement) -> Estimate | None:
    """1 less the disagreement over the one expected by chance, with percentiles of resamples.

    Where all of these are the same, as many images may be otherwise as Wilson's interval leaves where none is.
    """
    images = int(counts.sum())
    if images < 2:
        return None
    random = np.random.default_rng(0)
    drawn = (random.multinomial(images, counts / images, _AT_ONCE) for _ in range(0, _RESAMPLES, _AT_ONCE))
    with np.errstate(invalid="ignore", divide="ignore"):
        there, by_chance = np.concatenate([disagreement(of) for of in (counts[None], *drawn)], axis=1)
        value, *resampled = 1 - there / by_chance
    if np.isnan(value):
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(resampled, [tail, 100 - tail])
    found = Estimate(float(value), float(low), float(high))
    if has_no_width(found):
        return apart_by(found.value, most_unseen(images) / 100 / float(by_chance[0]), -1, 1)
    return found
