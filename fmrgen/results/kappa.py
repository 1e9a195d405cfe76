"""How far judges agree beyond chance: Cohen's kappa of two, Krippendorff's alpha of any number.

Both depend only on how many images there are of each combination of answers. So resampling the images is drawing these
numbers, no matter how many images there are.
"""

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from fmrgen.metrics.intervals import Estimate, between_percentiles, most_unseen, with_width

_RESAMPLES = 1_000
_AT_ONCE = 100  # resamples, to bound memory: there may be as many combinations as images

# From the number of images of each combination [R, P] to the observed and the expected disagreement, [R] each.
_Disagreement = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def cohen_kappa(ours: np.ndarray, theirs: np.ndarray) -> Estimate | None:
    """Return Cohen's kappa of two judges.

    Args:
        ours: labels by one judge, int [N].
        theirs: labels by the other judge for the same images, int [N].

    Returns:
        At most 1, which is full agreement, with a bootstrap interval; None for fewer than two images, or if all have
        the same label.
    """
    pairs, counts = np.unique(np.stack([ours, theirs]), axis=1, return_counts=True)
    is_different = pairs[0] != pairs[1]
    our_votes, their_votes = _votes(pairs[:1], pairs), _votes(pairs[1:], pairs)

    def disagreement(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total = images.sum(1)
        agreement_by_chance = ((images @ our_votes) * (images @ their_votes)).sum(1) / total**2
        return images @ is_different / total, 1 - agreement_by_chance

    return _coefficient(counts, disagreement)


def krippendorff_alpha(labels: np.ndarray, unasked: int) -> Estimate | None:
    """Return Krippendorff's alpha of any number of judges, for labels without an order.

    Args:
        labels: labels by each judge for each image, int [J, N].
        unasked: the label that stands for no answer.

    Returns:
        At most 1, which is full agreement, with a bootstrap interval; None if fewer than two images were seen by
        several judges, or all have the same label.
    """
    seen_by_several = np.sort(labels[:, (labels != unasked).sum(0) > 1], axis=0)
    combinations, counts = np.unique(seen_by_several, axis=1, return_counts=True)
    judges, votes = (combinations != unasked).sum(0), _votes(combinations, combinations, unasked)
    apart = (judges**2 - votes.power(2).sum(1)) / (judges - 1)

    def disagreement(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total, by_label = images @ judges, images @ votes
        return images @ apart / total, (total**2 - (by_label**2).sum(1)) / (total * (total - 1))

    return _coefficient(counts, disagreement)


def _votes(labels: np.ndarray, all_labels: np.ndarray, unasked: int | None = None) -> csr_array:
    """Return how many judges give each label in each column of `labels` [J, P], as [P, distinct `all_labels`]."""
    distinct = np.unique(all_labels)
    judges, columns = np.nonzero(labels != unasked)
    places = np.searchsorted(distinct, labels[judges, columns])
    return csr_array((np.ones(len(places)), (columns, places)), shape=(labels.shape[1], len(distinct)))


def _coefficient(counts: np.ndarray, disagreement: _Disagreement) -> Estimate | None:
    """Return 1 less observed by expected disagreement, with percentiles of resamples.

    If all resamples are the same, the interval allows for as many deviating images as Wilson's interval does when none
    was seen.
    """
    images = int(counts.sum())
    if images < 2:
        return None
    random = np.random.default_rng(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [disagreement(counts[None])]
        for _ in range(0, _RESAMPLES, _AT_ONCE):
            parts.append(disagreement(random.multinomial(images, counts / images, _AT_ONCE)))
        observed, by_chance = np.concatenate(parts, axis=1)
        coefficient = between_percentiles(1 - observed / by_chance)
    if coefficient is None:
        return None
    unseen = most_unseen(images) / 100 / float(by_chance[0])
    return with_width(coefficient, unseen, -1, 1)
