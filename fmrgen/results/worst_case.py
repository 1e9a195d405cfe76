"""Classifiers on all splits of one source at once: an original counts where none of its perturbed images fools one.

A split is found along one classifier's gradient. If that is masked, its own split looks harmless, and the images of the
others do not: so the worst case over all of them is harder to get away with than FMR on the own split.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy.special import bdtrc

from fmrgen.metrics.intervals import CONFIDENCE, RESAMPLES, Estimate, foundation_model_robustness, proportion
from fmrgen.results.own_splits import rows_of

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class WorstCase:
    """A classifier on `splits` at once, over the `rows` originals that all of them have.

    `perturbed_accuracy` is the share of the originals, of those with a valid image, whose every valid image it names
    rightly; `fmr` that by SA. `fooled_more_by` is the split, made for another, whose images fool it more than those of
    its own do, beyond chance: its own gradient does not show the way. None where there is no such split, or no own one.
    """

    classifier: str
    splits: list[str]
    rows: int
    perturbed_accuracy: Estimate | None
    fmr: Estimate | None
    fooled_more_by: str | None


def worst_cases(
    found: Mapping[str, Mapping[str, Columns]], own: Mapping[str, str], *, resamples: int = RESAMPLES
) -> list[WorstCase]:
    """The worst case of each classifier, by falling FMR.

    Args:
        found: by split, by classifier: its columns as for `summarise`, and `id`; the ids are those of one source.
        own: the split that was made for a classifier.
        resamples: of the bootstrap.

    Returns:
        Empty where there are no two splits, or they have no ids in common.
    """
    if len(found) < 2 or any("id" not in columns for of_split in found.values() for columns in of_split.values()):
        return []
    common = reduce(np.intersect1d, (next(iter(of_split.values()))["id"] for of_split in found.values()))
    if not len(common):
        return []
    cases = []
    for classifier in next(iter(found.values())):
        aligned = {split: rows_of(of_split[classifier], common) for split, of_split in found.items()}
        first = next(iter(aligned.values()))
        valid = {split: _valid(columns) for split, columns in aligned.items()}
        right = {split: columns["prediction"] == columns["label"] for split, columns in aligned.items()}
        never_fooled = np.all([right[split] | ~valid[split] for split in aligned], axis=0)
        any_valid = np.any(list(valid.values()), axis=0)
        fmr = None
        if "original_prediction" in first:
            original = first["original_prediction"] == first["label"]
            fmr, _ = foundation_model_robustness(never_fooled, any_valid, original, resamples=resamples)
        cases.append(
            WorstCase(
                classifier=classifier,
                splits=list(aligned),
                rows=len(common),
                perturbed_accuracy=proportion(never_fooled[any_valid]),
                fmr=fmr,
                fooled_more_by=_fooled_more_by(own.get(classifier), valid, right),
            )
        )
    return sorted(cases, key=lambda case: np.inf if case.fmr is None else -case.fmr.value)


def _valid(columns: Columns) -> np.ndarray:
    return columns["valid"].astype(bool) if "valid" in columns else np.ones(len(columns["label"]), bool)


def _fooled_more_by(own: str | None, valid: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> str | None:
    """The split that fools a classifier most beyond its own, by a sign test over the rows that are valid in both; as
    many tests as there are other splits share the chance of a false one."""
    if own is None or own not in right:
        return None
    chances = {}
    for other in right.keys() - {own}:
        both = valid[own] & valid[other]
        there, here = (int((both & right[one] & ~right[two]).sum()) for one, two in ((own, other), (other, own)))
        if there > here:
            chances[other] = float(bdtrc(there - 1, there + here, 0.5))  # an exact sign test
    least = min(chances, key=lambda other: (chances[other], other), default=None)
    return least if least is not None and chances[least] < (1 - CONFIDENCE) / (len(right) - 1) else None
