"""Classifiers on all splits of one source at once: an original counts if none of its perturbed images fools the
classifier.

The images of a split follow one classifier's gradient. If that is masked, its own split looks harmless, but the images
of other splits do not: so the worst case over all splits is harder to pass than FMR on the own split.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fmrgen.metrics.intervals import CONFIDENCE, Estimate, foundation_model_robustness, proportion, sign_test
from fmrgen.metrics.rows import valid_rows
from fmrgen.results.own_splits import common_ids, rows_of

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class WorstCase:
    """A classifier on several splits at once.

    Attributes:
        classifier: its name.
        splits: the splits' names.
        rows: number of originals that all splits have.
        perturbed_accuracy: the share of the originals with a valid image whose every valid image it names rightly.
        fmr: that by SA.
        fooled_more_by: the split, made for another classifier, whose images fool it more than those of its own split
            do, beyond chance: its own gradient is no guide. None if there is no such split, or it has no own one.
    """

    classifier: str
    splits: list[str]
    rows: int
    perturbed_accuracy: Estimate | None
    fmr: Estimate | None
    fooled_more_by: str | None


def worst_cases(answers: Mapping[str, Mapping[str, Columns]], own_splits: Mapping[str, str]) -> list[WorstCase]:
    """Return the worst case of each classifier, in the order of the classifiers: it ranks nobody.

    A classifier with a close relative among the others is fooled by the images of both.

    Args:
        answers: by split, by classifier: its columns as for `summarise`, and `id`; the ids are those of one source.
        own_splits: the split that was made for a classifier.

    Returns:
        Empty if there are fewer than two splits, or they have no ids in common.
    """
    if len(answers) < 2:
        return []
    common = common_ids([next(iter(by_classifier.values())) for by_classifier in answers.values()])
    if not len(common):
        return []
    cases = []
    for classifier in next(iter(answers.values())):
        aligned = {split: rows_of(by_classifier[classifier], common) for split, by_classifier in answers.items()}
        valid = {}
        right = {}
        never_fooled, any_valid = np.ones(len(common), bool), np.zeros(len(common), bool)
        for split, columns in aligned.items():
            valid[split] = valid_rows(columns)
            right[split] = columns["prediction"] == columns["label"]
            never_fooled &= right[split] | ~valid[split]
            any_valid |= valid[split]
        first = next(iter(aligned.values()))
        fmr = None
        if "original_prediction" in first:
            original = first["original_prediction"] == first["label"]
            fmr = foundation_model_robustness(never_fooled, any_valid, original)
        cases.append(
            WorstCase(
                classifier=classifier,
                splits=list(aligned),
                rows=len(common),
                perturbed_accuracy=proportion(never_fooled[any_valid]),
                fmr=fmr,
                fooled_more_by=_fooled_more_by(own_splits.get(classifier), valid, right),
            )
        )
    return cases


def _fooled_more_by(
    own_split: str | None, valid: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]
) -> str | None:
    """Return the split that fools a classifier most beyond its own, by a sign test over the rows valid in both.

    The tests, one for each other split, share the chance of a false positive.
    """
    if own_split is None or own_split not in right:
        return None
    chances = []
    for other in right.keys() - {own_split}:
        both = valid[own_split] & valid[other]
        only_by_other = int((both & right[own_split] & ~right[other]).sum())
        only_by_own = int((both & right[other] & ~right[own_split]).sum())
        if only_by_other > only_by_own:
            chances.append((sign_test(only_by_other, only_by_own), other))
    if not chances:
        return None
    chance, split = min(chances)
    return split if chance < (1 - CONFIDENCE) / (len(right) - 1) else None
