"""Flips between the predictions of two classifiers for the same real images: negative and positive.

A *negative flip* is an image that OLD has right and NEW wrong, a *positive flip* the reverse (positive-congruent
training, Yan et al. 2021). Nothing here imports torch, `datasets` or pandas.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from fmrgen.apps.release.evidence import ERROR_OF_REAL, Evidence, evidence_of, p_of_loss, shares_of_error
from fmrgen.apps.release.predictions import Predictions, matched
from fmrgen.errors import UserError
from fmrgen.metrics.grouping import Grouping
from fmrgen.metrics.intervals import (
    CONFIDENCE,
    Estimate,
    paired_difference,
    paired_ends,
    wilson,
)

_FEWEST_OF_A_GROUP = 10  # images
_FAR = 30.0  # points beyond what is allowed on a class, which leave a verdict open
_FEWEST_LOST = 3  # images of the class: fewer are lost by chance in some of many classes
OF_ANOTHER_SEED_IN_A_CLASS = 5.0  # points by which trainings of one recipe are apart: docs/results/diff.md
_FINEST_MARGIN = 0.001  # points
_USUAL_MARGIN = 1.0  # points that images should tell where the user names none
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
    old: Sequence[Predictions],
    new: Predictions,
    *,
    margin: float,
    by: Sequence[str] = (),
    images: str = "images",
) -> tuple[Flips, list[Evidence]]:
    """Return the flips between OLD, one training or several, and NEW, and the evidence that they give.

    The evidence is on all images and, of one training, on the class with the smallest p-value, and on such a group of
    each column that is named. NEW may lose `margin` points of accuracy. `by` names columns to group the images by,
    `COLUMN` or `COLUMN:BOUND,…`; by default all with few values. `images` says what the images are, in words. Raises
    UserError if the images or their labels are not the same, or there is no such column.
    """
    pairs = [matched(new, training) for training in old]
    new = pairs[0][0]
    trainings = [pair[1] for pair in pairs]
    first = trainings[0]
    new_right = new.predicted == new.labels
    old_right = np.array([training.predicted == training.labels for training in trainings])  # [T, N]
    worse, better = old_right & ~new_right, ~old_right & new_right
    negative, positive = worse[0], better[0]
    another_seed = old_right[0] & ~old_right[1] if len(trainings) > 1 else None
    kinds = _kinds({**first.columns, **new.columns}, by)
    counts = {name: _counts(values, negative, positive, another_seed) for name, values in kinds.items()}
    of_classes = _counts(new.labels, negative, positive, another_seed)
    tested = {"class": of_classes, **counts} if by else {"class": of_classes}
    p_values: dict[str, np.ndarray] = {}
    if len(trainings) == 1:
        drop = paired_difference(old_right[0], new_right)
        evidence = [evidence_of("originals", images, negative, positive, margin)]
        for name, groups in tested.items():
            if len(groups.names) > 1:
                values = new.labels if name == "class" else kinds[name]
                p_values[name] = _p_of_groups(groups, margin)
                worst = f"{images} of {name} {{name}}"
                evidence.append(_evidence_of_worst(groups, values, negative, positive, p_values[name], worst, margin))
    else:
        evidence = [_evidence_of_trainings(old_right, new_right, margin, images)]
        drop = evidence[0].drop
    level = ERROR_OF_REAL / len(evidence)
    classes = _worst_first(of_classes, p_values.get("class"), level)
    outcome = Flips(
        images=len(new),
        trainings=len(trainings),
        old_accuracy=_mean_share(old_right),
        new_accuracy=_mean_share(new_right[None]),
        drop=drop,
        negative=_mean_share(worse),
        positive=_mean_share(better),
        old_flips=_flips_between(old_right),
        images_needed=_images_needed(float((worse | better).mean()), len(new), margin),
        classes=classes,
        pairs=_worst_first(_counts_of_pairs(new.labels, first.predicted, new.predicted, negative, positive)),
        groups={name: _worst_first(groups, p_values.get(name), level) for name, groups in counts.items()},
        negatives=listed_flips(first, new, negative),
        positives=listed_flips(first, new, positive),
        lost_most=_lost_most(classes) if len(trainings) == 1 else None,
    )
    return outcome, evidence


def evidence_of_classes(
    labels: np.ndarray,
    negative: np.ndarray,
    positive: np.ndarray,
    images: str,
    margin: float,
    of_another_seed: float = OF_ANOTHER_SEED_IN_A_CLASS,
) -> list[Evidence]:
    """Return the evidence on the class with the smallest p-value, as one of all that can be shown to be worse; none if
    there is one class.

    `labels` are those of the images, [N]; `negative` and `positive` say whether each is such a flip, bool [N]. `images`
    says what they are, in words, with {name} for that of the class. On a class NEW may lose `margin` points, and
    `of_another_seed` more, by which another seed may be apart.
    """
    counts = _counts(labels, negative, positive)
    if len(counts.names) < 2:
        return []
    p_values = _p_of_groups(counts, margin, of_another_seed)
    return [_evidence_of_worst(counts, labels, negative, positive, p_values, images, margin, of_another_seed)]


def _p_of_groups(counts: "_Counts", margin: float, of_another_seed: float = OF_ANOTHER_SEED_IN_A_CLASS) -> np.ndarray:
    """Return the p-value of a loss on each group, times the number of groups that can be shown to be worse, [G]."""
    allowed = margin + of_another_seed
    p_values = []
    for lost, won, size in zip(counts.negative.tolist(), counts.positive.tolist(), counts.images.tolist(), strict=True):
        p_values.append(p_of_loss(lost, won, size, allowed / 100))
    return np.minimum(1.0, shares_of_error(counts.images, allowed, ERROR_OF_REAL / 2) * np.array(p_values))


def _evidence_of_worst(
    counts: "_Counts",
    values: np.ndarray,
    negative: np.ndarray,
    positive: np.ndarray,
    p_values: np.ndarray,
    images: str,
    margin: float,
    of_another_seed: float = OF_ANOTHER_SEED_IN_A_CLASS,
) -> Evidence:
    """Return the evidence on the group with the smallest p-value; arguments as of `evidence_of_classes`."""
    place = int(np.lexsort([(counts.positive - counts.negative) / counts.images, p_values])[0])
    members = values == counts.names[place]
    of_group = images.format(name=counts.names[place])
    evidence = evidence_of("class", of_group, negative[members], positive[members], margin, of_another_seed)
    return replace(evidence, p_worse=float(p_values[place]), p_better=1.0)


def _lost_most(classes: Sequence[FlippedGroup]) -> FlippedGroup | None:
    """Return the class on which NEW may have lost the most points, of those that lost enough images.

    A class of few images counts if most of them are lost.
    """
    seen = []
    for group in classes:
        lost = group.negative - group.positive
        if lost >= _FEWEST_LOST and (group.images >= _FEWEST_OF_A_GROUP or 2 * lost > group.images):
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
    negative, positive = old_right & ~new_right, ~old_right & new_right
    return Evidence(
        "originals",
        images,
        len(new_right),
        _mean_share(negative),
        _mean_share(positive),
        drop,
        margin,
        p_worse,
        p_better,
    )


def _mean_share(hits: np.ndarray) -> Estimate:
    """Return the share of True in `hits` [T, N]; its interval is that of the images of one training."""
    share = float(hits.mean())
    return Estimate(100 * share, *wilson(share * hits.shape[1], hits.shape[1]))


def _flips_between(old_right: np.ndarray) -> float | None:
    """Return the mean negative flip rate, in percent, from one training of OLD to another; None for one training."""
    count = len(old_right)
    if count < 2:
        return None
    rates = []
    for first in range(count):
        for second in range(count):
            if first != second:
                rates.append((old_right[first] & ~old_right[second]).mean())
    return 100 * float(np.mean(rates))


def _images_needed(discordant: float, images: int, margin: float) -> int:
    """Return about how many images would tell a drop of `margin` points, given the share that flips either way."""
    margin = max(margin, _FINEST_MARGIN) if margin else _USUAL_MARGIN
    share = max(discordant, wilson(0, images)[1] / 100 / 2)
    errors = float(ndtri((1 + CONFIDENCE) / 2))  # standard errors on either side of the interval
    return math.ceil((errors / (margin / 100)) ** 2 * share)


class _Counts(NamedTuple):
    """Images and flips by kind, [G] each."""

    names: np.ndarray
    images: np.ndarray
    negative: np.ndarray
    positive: np.ndarray
    another_seed: np.ndarray | None = None


def _counts(
    values: np.ndarray, negative: np.ndarray, positive: np.ndarray, another_seed: np.ndarray | None = None
) -> _Counts:
    """Return the images of each value [N], with their flips."""
    names, group = np.unique(values, return_inverse=True)
    size = len(names)
    of_negative, of_positive = (np.bincount(group[flips], minlength=size) for flips in (negative, positive))
    between_seeds = None if another_seed is None else np.bincount(group[another_seed], minlength=size)
    return _Counts(names, np.bincount(group, minlength=size), of_negative, of_positive, between_seeds)


def _counts_of_pairs(
    labels: np.ndarray, old: np.ndarray, new: np.ndarray, negative: np.ndarray, positive: np.ndarray
) -> _Counts:
    """Return each true class and wrong prediction, with how often NEW errs so, and OLD did."""
    images = Counter(labels.tolist())
    lost = Counter(zip(labels[negative].tolist(), new[negative].tolist(), strict=True))
    won = Counter(zip(labels[positive].tolist(), old[positive].tolist(), strict=True))
    pairs = sorted(lost.keys() | won.keys())
    return _Counts(
        np.array([f"{label} → {prediction or 'none'}" for label, prediction in pairs], dtype=object),
        np.array([images[label] for label, _ in pairs], dtype=np.int64),
        np.array([lost[pair] for pair in pairs], dtype=np.int64),
        np.array([won[pair] for pair in pairs], dtype=np.int64),
    )


def _worst_first(counts: _Counts, p_values: np.ndarray | None = None, level: float = 0.0) -> list[FlippedGroup]:
    """Return the groups with flips, those that are worse for certain first, then by negative less positive flips.

    `p_values` are those of `_p_of_groups`, None if the groups are not tested; up to `level` a group is worse.
    """
    is_worse = np.zeros(len(counts.names), bool) if p_values is None else p_values <= level
    order = np.lexsort([counts.positive - counts.negative, ~is_worse])
    flipped = order[(counts.negative + counts.positive)[order] > 0]
    groups = []
    for place in flipped[:_MOST_LISTED].tolist():
        group = FlippedGroup(
            str(counts.names[place]),
            int(counts.images[place]),
            int(counts.negative[place]),
            int(counts.positive[place]),
            None if p_values is None else float(p_values[place]),
            bool(is_worse[place]),
            None if counts.another_seed is None else int(counts.another_seed[place]),
        )
        groups.append(group)
    return groups


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


def listed_flips(old: Predictions, new: Predictions, rows: np.ndarray) -> list[Flip]:
    """Return the images of the rows, bool [N], the most confident of NEW first; without confidences in order."""
    places = np.flatnonzero(rows)
    if new.confidence is not None:
        places = places[np.argsort(-np.nan_to_num(new.confidence[places]), kind="stable")]
    flipped = []
    for place in places[:_MOST_LISTED].tolist():
        flip = Flip(
            id=str(new.ids[place]),
            label=str(new.labels[place]),
            old=str(old.predicted[place]),
            new=str(new.predicted[place]),
            old_confidence=None if old.confidence is None else float(old.confidence[place]),
            new_confidence=None if new.confidence is None else float(new.confidence[place]),
        )
        flipped.append(flip)
    return flipped
