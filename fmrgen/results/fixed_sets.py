"""Fixed benchmarks beside FMR: labelled sets, alone or as corruptions in several severities (ImageNet-C's mCE)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from fmrgen.errors import UserError
from fmrgen.metrics.intervals import Estimate, independent_mean, mean, proportion, share


@dataclass(frozen=True)
class FixedResult:
    """One classifier on fixed sets.

    `mean_corruption_error` is mCE, the mean over sets of the error relative to the normaliser's, in percent.
    """

    name: str  # of the sets together
    classifier: str
    images: int  # number of images in all sets
    accuracy: Estimate  # mean over sets and severities, in percent
    mean_corruption_error: Estimate | None  # None without a normaliser
    by_set: dict[str, Estimate]  # accuracy on each set, by `SET` or `SET-SEVERITY`


@dataclass(frozen=True)
class FixedSetResults:
    """Classifiers on all fixed sets."""

    results: list[FixedResult]  # one for each set and classifier
    predictions: list[pa.Table]  # for each image, as `Evaluation.predictions` has them


def fixed_result(
    name: str,
    classifier: str,
    sets: Mapping[tuple[str, int | None], tuple[np.ndarray, np.ndarray]],
    normaliser: Mapping[str, float],
) -> FixedResult:
    """Return the accuracy of a classifier over sets taken together, and its mCE if there is a normaliser.

    If all sets have the same images, as corruptions of one test set have, an image's predictions stay together in the
    intervals: the sets are not independent samples.

    `sets` are the images' ids [N] and whether the classifier is right, bool [N], by the set's name and severity.
    `normaliser` is the error in percent, by set, that mCE is relative to; it may be empty. Raises UserError if a set
    contains no images.
    """
    ids = [set_ids for set_ids, _ in sets.values()]
    is_paired = all(np.array_equal(other, ids[0]) for other in ids[1:])
    images = sum(map(len, ids))
    accuracy_terms = []
    error_terms = []
    by_set = {}
    for (set_name, severity), (_, right) in sets.items():
        accuracy_terms.append((1 / len(sets), 100 * right))
        if normaliser:
            error_terms.append((100 / (len(sets) * normaliser[set_name]), 100.0 * ~right))
        by_set[set_name if severity is None else f"{set_name}-{severity}"] = _checked(proportion(right))
    accuracy = share(_weighted(accuracy_terms, is_paired), len(ids[0]) if is_paired else images)
    error = _weighted(error_terms, is_paired) if normaliser else None
    if error is not None and error.low is not None:
        error = replace(error, low=max(error.low, 0.0))
    return FixedResult(name, classifier, images, accuracy, error, by_set)


def _weighted(terms: Sequence[tuple[float, np.ndarray]], is_paired: bool) -> Estimate:
    """Return the weighted sum of the sets' means; `terms` are weights and values."""
    if is_paired:
        return _checked(mean(np.sum([weight * values for weight, values in terms], axis=0)))
    return independent_mean(terms)


def _checked(estimate: Estimate | None) -> Estimate:
    if estimate is None:
        raise UserError("a fixed set contains no images")
    return estimate
