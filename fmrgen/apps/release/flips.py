"""Flips between the predictions of two classifiers for the same real images: negative and positive.

A *negative flip* is an image that OLD has right and NEW wrong, a *positive flip* the reverse (positive-congruent
training, Yan et al. 2021). Nothing here imports torch, `datasets` or pandas.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np
from scipy.special import stdtr, stdtrit

from fmrgen.apps.release.evidence import ERROR_OF_REAL, Evidence, evidence_of, p_of_loss, shares_of_error
from fmrgen.apps.release.predictions import Predictions, matched
from fmrgen.errors import UserError
from fmrgen.metrics.grouping import Grouping
from fmrgen.metrics.intervals import CONFIDENCE, Estimate, Z, most_unseen, paired_difference, paired_ends, wilson

_FEWEST_OF_A_GROUP = 10  # images
_FAR = 30.0  # points beyond what is allowed on a class, which leave a verdict open
OF_ANOTHER_SEED_IN_A_CLASS = 5.0  # points by which trainings of one recipe are apart: docs/results/diff.md
_MOST_LISTED = 10_000  # images of a side, or kinds, the worst or most confident first
_MOST_GROUPS = 200  # values of a column that it may group by; of more it is an id or a measure


@dataclass(frozen=True)
class FlippedGroup:
    """Images of one kind: of a class, of a pair of true class and prediction, or of one value of a column.

    `p_worse` is the chance of such a loss of a NEW that loses what is allowed, times the number of groups that can be
    shown to be worse; None for pairs, for columns that were not named, and for several trainings.
    """

    name: str
    images: int  # how many there are; of a pair, of the true class
    negative: int  # negative flips among them
    positive: int  # positive flips among them
    p_worse: float | None = None
    is_worse: bool = False  # whether NEW is worse on it, by the verdict's own test
    another_seed: int | None = None  # right by OLD's first training, wrong by its second; None for one, and for pairs

    @property
    def most_lost(self) -> float:
        """The points that NEW may have lost, the high end of a 95 % interval."""
        return 100 * paired_ends(self.negative, self.positive, self.images)[1]


@dataclass(frozen=True)
class Flip:
    """An image that one of the two has right and the other wrong; confidences are None if unknown."""

    id: str
    label: str
    old: str
    new: str
    old_confidence: float | None
    new_confidence: float | None


@dataclass(frozen=True)
class Flips:
    """The comparison of two classifiers on the same labelled images. Shares are percent of the images.

    Attributes:
        images: how many there are.
        trainings: of OLD; the figures of OLD are means over them.
        old_accuracy, new_accuracy: on the images.
        drop: accuracy of OLD less that of NEW, in points, with a paired interval; with several trainings of OLD that
            of another training.
        negative, positive: negative and positive flip rate.
        old_flips: negative flip rate between two trainings of OLD, on average; None for one.
        images_needed: about how many images would tell a drop of the margin, or of 1 point without a margin.
        classes, pairs: those with flips, the worst first; 10,000 at most.
        groups: for each column that groups, its values, the worst first.
        negatives, positives: negative and positive flips, the most confident predictions of NEW first; 10,000 at most.
        lost_most: the class on which NEW may have lost the most points, of those that lost three images or more, and
            most of them if they have fewer than ten; None if there is none, and for several trainings.
    """

    images: int
    trainings: int
    old_accuracy: Estimate
    new_accuracy: Estimate
    drop: Estimate
    negative: Estimate
    positive: Estimate
    old_flips: float | None
    images_needed: int
    classes: list[FlippedGroup]
    pairs: list[FlippedGroup]
    groups: dict[str, list[FlippedGroup]]
    negatives: list[Flip] = field(default_factory=list)
    positives: list[Flip] = field(default_factory=list)
    lost_most: FlippedGroup | None = None

    def has_suspect(self, margin: float) -> bool:
        """Return whether NEW may have lost far more on a class than the margin, in points, allows."""
        far = margin + OF_ANOTHER_SEED_IN_A_CLASS + _FAR
        return self.lost_most is not None and self.lost_most.most_lost > far


def compare_predictions(
    old: Sequence[Predictions], new: Predictions, *, margin: float, by: Sequence[str] = (), images: str = "images"
) -> tuple[Flips, list[Evidence]]:
    """Return the flips between OLD, one training or several, and NEW, and the evidence that they give.

    The evidence is on all images and, of one training, on the class with the smallest p-value, and on such a group of
    each column that is named. NEW may lose `margin` points of accuracy. `by` names columns to group the images by,
    `COLUMN` or `COLUMN:BOUND,…`; by default all with few values. `images` says what the images are, in words. Raises
    UserError if the images or their labels are not the same, or there is no such column.
    """
    trainings = [matched(new, training) for training in old]
    first = trainings[0]
    new_right = new.predicted == new.labels
    old_right = np.array([training.predicted == training.labels for training in trainings])  # [T, N]
    worse, better = old_right & ~new_right, ~old_right & new_right
    negative, positive = worse[0], better[0]
    another_seed = old_right[0] & ~old_right[1] if len(trainings) > 1 else None
    kinds = _kinds({**first.columns, **new.columns}, by)
    groups = {name: _groups(values, negative, positive, another_seed) for name, values in kinds.items()}
    if len(trainings) == 1:
        drop, old_flips = paired_difference(old_right[0], new_right), None
        evidence = [evidence_of("originals", images, negative, positive, margin)]
        classes, of_classes = groups_tested(new.labels, negative, positive, f"{images} of class {{name}}", margin)
        evidence += of_classes
        for name in groups if by else ():
            words = f"{images} of {name} {{name}}"
            groups[name], of_group = groups_tested(kinds[name], negative, positive, words, margin)
            evidence += of_group
    else:
        classes = _groups(new.labels, negative, positive, another_seed)
        evidence = [_evidence_of_trainings(old_right, new_right, margin, images)]
        drop = evidence[0].drop
        old_flips = 100 * float(np.mean([(first & ~second).mean() for first, second in permutations(old_right, 2)]))
    level = ERROR_OF_REAL / len(evidence)
    classes = _worst_first(classes, level)
    outcome = Flips(
        images=len(new),
        trainings=len(trainings),
        old_accuracy=_mean_share(old_right),
        new_accuracy=_mean_share(new_right[None]),
        drop=drop,
        negative=_mean_share(worse),
        positive=_mean_share(better),
        old_flips=old_flips,
        images_needed=_images_needed(float((worse | better).mean()), len(new), margin),
        classes=classes,
        pairs=_worst_first(_pairs(new.labels, first.predicted, new.predicted, negative, positive)),
        groups={name: _worst_first(of_column, level) for name, of_column in groups.items()},
        negatives=_listed_flips(first, new, negative),
        positives=_listed_flips(first, new, positive),
        lost_most=_lost_most(classes) if len(trainings) == 1 else None,
    )
    return outcome, evidence


def groups_tested(
    values: np.ndarray,
    negative: np.ndarray,
    positive: np.ndarray,
    images: str,
    margin: float,
    of_another_seed: float = OF_ANOTHER_SEED_IN_A_CLASS,
) -> tuple[list[FlippedGroup], list[Evidence]]:
    """Return the group of each value, and the evidence on that with the smallest p-value; no tests for a single group.

    `values` are the images' classes, or those of a column, [N]; `negative` and `positive` say whether each is such a
    flip, bool [N]. `images` says what they are, in words, with {name} for that of the group. On a group NEW may lose
    `margin` points, and `of_another_seed` more, by which another seed may be apart.
    """
    groups = _groups(values, negative, positive)
    if len(groups) < 2:
        return groups, []
    allowed = margin + of_another_seed
    shares = shares_of_error(np.array([group.images for group in groups]), allowed, ERROR_OF_REAL / 2)
    tested = []
    for group in groups:
        p_worse = p_of_loss(group.negative, group.positive, group.images, allowed / 100)
        tested.append(replace(group, p_worse=min(1.0, shares * p_worse)))
    worst = min(tested, key=lambda group: (group.p_worse, (group.positive - group.negative) / group.images))
    assert worst.p_worse is not None
    members = values == worst.name
    of_worst = images.replace("{name}", worst.name)
    evidence = evidence_of("class", of_worst, negative[members], positive[members], margin, of_another_seed)
    return tested, [replace(evidence, p_worse=worst.p_worse, p_better=1.0)]


def _lost_most(classes: Sequence[FlippedGroup]) -> FlippedGroup | None:
    """Return the class on which NEW may have lost the most points, of those that lost enough images.

    A class of few images counts if most of them are lost. Fewer than three are lost by chance in some of many classes.
    """
    seen = []
    for group in classes:
        lost = group.negative - group.positive
        if lost >= 3 and (group.images >= _FEWEST_OF_A_GROUP or 2 * lost > group.images):
            seen.append(group)
    return max(seen, key=lambda group: group.most_lost, default=None)


def _evidence_of_trainings(old_right: np.ndarray, new_right: np.ndarray, margin: float, images: str) -> Evidence:
    """Return the evidence that NEW is worse than another training of OLD.

    The error of the difference has two parts: how far trainings differ, and the images, whose part is no less than that
    of one image. Student's t with a degree of freedom less than there are trainings makes it wide for few. `old_right`
    is bool [T, N], T ≥ 2, and `new_right` bool [N].
    """
    count, images_in_all = old_right.shape
    differences = old_right.mean(axis=0) - new_right
    value = float(differences.mean())
    of_images = max(float(differences.var()), 1 / images_in_all) / images_in_all
    of_trainings = float(old_right.mean(axis=1).var(ddof=1)) * (1 + 1 / count)
    error = math.sqrt(of_images + of_trainings)
    reach = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * error
    drop = Estimate(100 * value, 100 * (value - reach), 100 * (value + reach))
    p_worse = float(stdtr(count - 1, (margin / 100 - value) / error))
    p_better = float(stdtr(count - 1, value / error))
    shares = _mean_share(old_right & ~new_right), _mean_share(~old_right & new_right)
    return Evidence("originals", images, len(new_right), *shares, drop, margin, p_worse, p_better)


def _mean_share(hits: np.ndarray) -> Estimate:
    """Return the share of True in `hits` [T, N]; its interval is that of the images of one training."""
    share = float(hits.mean())
    return Estimate(100 * share, *wilson(share * hits.shape[1], hits.shape[1]))


def _images_needed(discordant: float, images: int, margin: float) -> int:
    """Return about how many images would tell a drop of `margin` points, given the share that flips either way."""
    margin = max(margin, 0.001) if margin else 1.0  # points
    share = max(discordant, most_unseen(images) / 100 / 2)
    return math.ceil((Z / (margin / 100)) ** 2 * share)


def _groups(
    values: np.ndarray, negative: np.ndarray, positive: np.ndarray, another_seed: np.ndarray | None = None
) -> list[FlippedGroup]:
    """Return the group of each value [N], with the numbers of its flips."""
    names, group, images = np.unique(values, return_inverse=True, return_counts=True)
    flips = (negative, positive) if another_seed is None else (negative, positive, another_seed)
    counts = [np.bincount(group[of_kind], minlength=len(names)).tolist() for of_kind in flips]
    groups = []
    for name, size, lost, won, *seeds in zip(names.tolist(), images.tolist(), *counts, strict=True):
        groups.append(FlippedGroup(name, size, lost, won, another_seed=seeds[0] if seeds else None))
    return groups


def _pairs(
    labels: np.ndarray, old: np.ndarray, new: np.ndarray, negative: np.ndarray, positive: np.ndarray
) -> list[FlippedGroup]:
    """Return each true class and wrong prediction, with how often NEW errs so, and OLD did."""
    images = Counter(labels.tolist())
    lost = Counter(zip(labels[negative].tolist(), new[negative].tolist(), strict=True))
    won = Counter(zip(labels[positive].tolist(), old[positive].tolist(), strict=True))
    groups = []
    for label, prediction in sorted(lost.keys() | won.keys()):
        name, pair = f"{label} → {prediction or 'none'}", (label, prediction)
        groups.append(FlippedGroup(name, images[label], lost[pair], won[pair]))
    return groups


def _worst_first(groups: Sequence[FlippedGroup], level: float = 0.0) -> list[FlippedGroup]:
    """Return the groups with flips, those that are worse for certain first, then by negative less positive flips.

    Of those that are tested, one is worse with a p-value up to `level`.
    """
    flipped = []
    for group in groups:
        if group.negative + group.positive:
            flipped.append(replace(group, is_worse=group.p_worse is not None and group.p_worse <= level))
    return sorted(flipped, key=lambda group: (not group.is_worse, group.positive - group.negative))[:_MOST_LISTED]


def _kinds(columns: Mapping[str, np.ndarray], by: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the group of each image by each column; of columns that are not named, those with few values of enough
    images."""
    kinds = {}
    for grouping in map(Grouping.of_short_form, by):
        if grouping.column not in columns:
            names = ", ".join(columns) or "none"
            raise UserError(f"by: there is no column {grouping.column} (there are: {names})")
        kinds[grouping.column] = np.array(grouping.names(columns[grouping.column].tolist()))
    if by:
        return kinds
    for name, column in columns.items():
        values = np.array([str(value) for value in column])
        distinct = len(np.unique(values))
        is_measure = distinct > _MOST_GROUPS or len(column) < _FEWEST_OF_A_GROUP * distinct
        if distinct > 1 and not is_measure:
            kinds[name] = values
    return kinds


def _listed_flips(old: Predictions, new: Predictions, rows: np.ndarray) -> list[Flip]:
    """Return the images of the rows, bool [N], the most confident of NEW first; without confidences in order."""
    places = np.flatnonzero(rows)
    if new.confidence is not None:
        places = places[np.argsort(-np.nan_to_num(new.confidence[places]), kind="stable")]
    return [
        Flip(
            id=str(new.ids[place]),
            label=str(new.labels[place]),
            old=str(old.predicted[place]),
            new=str(new.predicted[place]),
            old_confidence=None if old.confidence is None else float(old.confidence[place]),
            new_confidence=None if new.confidence is None else float(new.confidence[place]),
        )
        for place in places[:_MOST_LISTED].tolist()
    ]
