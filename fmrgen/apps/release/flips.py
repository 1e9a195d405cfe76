"""Flips between the answers of two classifiers to the same real images: what the new one broke, and what it fixed.

A *negative flip* is an image that OLD has right and NEW wrong, a *positive flip* the reverse (positive-congruent
training, Yan et al. 2021). Nothing here imports torch, `datasets` or pandas.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit
from scipy.stats import binom, false_discovery_control

from fmrgen.apps.explain.betting import ERROR
from fmrgen.apps.release.predictions import Predictions, matched, predictions_of_columns
from fmrgen.errors import UserError
from fmrgen.metrics.intervals import (
    CONFIDENCE,
    Estimate,
    expected_calibration_error,
    paired_difference,
    wilson,
)

Verdict = Literal["broke more", "fixed more", "no worse", "undecided"]
_FEWEST_OF_A_GROUP = 10  # images
_MOST_GROUPS = 200  # values of a column that it may group by; of more it is an id or a measure


@dataclass(frozen=True)
class FlippedGroup:
    """Images of one kind: of a class, of a pair of true class and answer, or of one value of a column.

    Attributes:
        name: of the kind.
        images: how many there are; of a pair, of the true class.
        broke, fixed: negative and positive flips among them.
        p_value: of the exact test that they are as likely.
        is_worse: whether more broke than were fixed, with 5 % false discoveries among all kinds that were tested
            (Benjamini and Yekutieli 2001).
    """

    name: str
    images: int
    broke: int
    fixed: int
    p_value: float
    is_worse: bool = False


@dataclass(frozen=True)
class Flip:
    """An image that one of the two has right and the other wrong; confidences are of the answers, None if unknown."""

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
        verdict: `broke more` or `fixed more`: the exact test finds a difference; `no worse`: NEW loses at most
            `margin` points; `undecided`: neither.
        images: how many there are.
        trainings: of OLD; the figures of OLD are means over them.
        margin: points of accuracy that NEW may lose.
        old_accuracy, new_accuracy: on the images.
        drop: accuracy of OLD less that of NEW, in points, with a paired interval; with several trainings of OLD that
            of another training.
        broke, fixed: negative and positive flip rate.
        old_flips: negative flip rate between two trainings of OLD, on average; None for one.
        p_value: of McNemar's exact test, two-sided; with several trainings of OLD, that NEW is another of them.
        images_needed: about how many images would tell a drop of `margin` points.
        classes, pairs: those with flips, the worst first.
        groups: for each column that groups, its values, the worst first.
        old_calibration, new_calibration: expected calibration error in points; None without confidences.
        broken, mended: negative and positive flips, the surest answers of NEW first.
        doubted: images that OLD and NEW agree about, against the label, the surest first: is the label right?
    """

    verdict: Verdict
    images: int
    trainings: int
    margin: float
    old_accuracy: Estimate
    new_accuracy: Estimate
    drop: Estimate
    broke: Estimate
    fixed: Estimate
    old_flips: float | None
    p_value: float
    images_needed: int
    classes: list[FlippedGroup]
    pairs: list[FlippedGroup]
    groups: dict[str, list[FlippedGroup]]
    old_calibration: Estimate | None
    new_calibration: Estimate | None
    broken: list[Flip] = field(default_factory=list)
    mended: list[Flip] = field(default_factory=list)
    doubted: list[Flip] = field(default_factory=list)

    def __repr__(self) -> str:
        return (
            f"Flips({self.verdict}: {len(self.broken)} of {self.images} broke, {len(self.mended)} fixed; accuracy "
            f"{self.old_accuracy.value:.2f} → {self.new_accuracy.value:.2f} %, drop {self.drop} points)"
        )


def flips(
    old: Any, new: Any, labels: Sequence[Any] | None = None, *, margin: float = 1.0, by: Sequence[str] = ()
) -> Flips:
    """Return what NEW broke and fixed, of two classifiers' predictions on the same images.

    Args:
        old: an array of predictions [N], or a data frame or mapping with columns `id`, `label` and `prediction`; or a
            list of these, of several trainings of one recipe.
        new: likewise, of one classifier.
        labels: the true classes [N], if `old` and `new` are arrays.
        margin: points of accuracy that NEW may lose.
        by: columns to group the images by; by default all with few values.

    Raises:
        UserError: the two are not about the same images, or have no predictions.
    """
    trainings = old if isinstance(old, list) and len(old) and not np.isscalar(old[0]) else [old]
    of_old = [_predictions(f"old {number}", values, labels) for number, values in enumerate(trainings, 1)]
    return compare_predictions(of_old, _predictions("new", new, labels), margin=margin, by=by)


def _predictions(name: str, values: Any, labels: Sequence[Any] | None) -> Predictions:
    if isinstance(values, Predictions):
        return values
    if isinstance(values, Mapping):
        columns = dict(values)
    elif hasattr(values, "columns"):
        columns = {str(column): values[column].to_numpy() for column in values.columns}
    elif labels is None:
        raise UserError(f"{name}: has predictions alone; give labels too, or a table with label and prediction")
    else:
        if len(labels) != len(values):
            raise UserError(f"{name}: has {len(values)} predictions for {len(labels)} labels")
        columns = {"label": np.asarray(labels), "prediction": np.asarray(values)}
    return predictions_of_columns(name, columns)


def compare_predictions(
    old: Sequence[Predictions], new: Predictions, *, margin: float = 1.0, by: Sequence[str] = ()
) -> Flips:
    """Return the comparison of NEW with OLD, one training or several.

    Args:
        old: predictions of each training of OLD.
        new: those of NEW, on the same images.
        margin: points of accuracy that NEW may lose.
        by: columns to group the images by; by default all with few values.

    Raises:
        UserError: the images or their labels are not the same, or there is no such column.
    """
    if not 0 < margin < 100:
        raise UserError(f"margin: must be points above 0 and below 100, not {margin:g}")
    pairs = [matched(new, training) for training in old]
    new = pairs[0][0]
    trainings = [pair[1] for pair in pairs]
    first = trainings[0]
    new_right = new.answers == new.labels
    old_right = np.array([training.answers == training.labels for training in trainings])  # [T, N]
    worse, better = old_right & ~new_right, ~old_right & new_right
    broke, fixed = worse[0], better[0]
    if len(trainings) == 1:
        drop = paired_difference(old_right[0], new_right)
        p_value = mcnemar(int(broke.sum()), int(fixed.sum()))
    else:
        drop, p_value = _drop_of_trainings(old_right, new_right)
    discordant = float((worse | better).mean())
    return Flips(
        verdict=_verdict(drop, p_value, margin),
        images=len(new),
        trainings=len(trainings),
        margin=margin,
        old_accuracy=_mean_share(old_right),
        new_accuracy=_mean_share(new_right[None]),
        drop=drop,
        broke=_mean_share(worse),
        fixed=_mean_share(better),
        old_flips=_flips_between(old_right),
        p_value=p_value,
        images_needed=_images_needed(discordant, len(new), margin),
        classes=_worst_first(_groups(new.labels, broke, fixed)),
        pairs=_worst_first(_pairs(new.labels, first.answers, new.answers, broke, fixed)),
        groups=_groups_by_columns({**first.columns, **new.columns}, broke, fixed, by),
        old_calibration=_calibration(first, old_right[0]),
        new_calibration=_calibration(new, new_right),
        broken=_flipped(first, new, broke),
        mended=_flipped(first, new, fixed),
        doubted=_flipped(first, new, ~old_right[0] & ~new_right & (first.answers == new.answers)),
    )


def mcnemar(broke: int, fixed: int) -> float:
    """Return the two-sided p-value of McNemar's exact test, which no order of the images changes.

    Args:
        broke: number of images that one network alone has right.
        fixed: number of images that the other alone has right.
    """
    count = broke + fixed
    if not count:
        return 1.0
    return float(min(1.0, 2 * binom.cdf(min(broke, fixed), count, 0.5)))


def _drop_of_trainings(old_right: np.ndarray, new_right: np.ndarray) -> tuple[Estimate, float]:
    """Return the mean accuracy of OLD's trainings less that of NEW, with the interval of another training of OLD.

    Its error has two parts: how far trainings differ, by Student's t, and the images.

    Args:
        old_right: bool [T, N].
        new_right: bool [N].
    """
    count = len(old_right)
    accuracies = old_right.mean(axis=1)
    differences = old_right.mean(axis=0) - new_right
    of_images = differences.var(ddof=1) / len(new_right)
    of_trainings = accuracies.var(ddof=1) * (1 + 1 / count)
    error = math.sqrt(of_images + of_trainings)
    value = float(differences.mean())
    # Welch and Satterthwaite: the images' part is known well, the trainings' from so few.
    freedom = (of_images + of_trainings) ** 2 / (of_images**2 / (len(new_right) - 1) + of_trainings**2 / (count - 1))
    if error == 0:
        return Estimate(0.0, None, None), 1.0
    reach = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    p_value = 2 * float(stdtr(freedom, -abs(value) / error))
    return Estimate(100 * value, 100 * (value - reach), 100 * (value + reach)), p_value


def _verdict(drop: Estimate, p_value: float, margin: float) -> Verdict:
    if p_value <= ERROR:
        return "broke more" if drop.value > 0 else "fixed more"
    return "no worse" if drop.ends[1] <= margin else "undecided"


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
    share = max(discordant, wilson(0, images)[1] / 100 / 2)
    errors = float(ndtri((1 + CONFIDENCE) / 2))  # standard errors on either side of the interval
    return math.ceil((errors / (margin / 100)) ** 2 * share)


def _groups(values: np.ndarray, broke: np.ndarray, fixed: np.ndarray) -> list[FlippedGroup]:
    """Return the images of each value [N], with their flips."""
    names, group = np.unique(values, return_inverse=True)
    counts = np.bincount(group)
    of_broke, of_fixed = np.bincount(group, weights=broke), np.bincount(group, weights=fixed)
    groups = []
    for place, name in enumerate(names.tolist()):
        lost, won = int(of_broke[place]), int(of_fixed[place])
        groups.append(FlippedGroup(str(name), int(counts[place]), lost, won, mcnemar(lost, won)))
    return groups


def _pairs(
    labels: np.ndarray, old: np.ndarray, new: np.ndarray, broke: np.ndarray, fixed: np.ndarray
) -> list[FlippedGroup]:
    """Return each true class and wrong answer, with how often NEW broke so, and fixed what OLD had so."""
    images = Counter(labels.tolist())
    lost = Counter(zip(labels[broke].tolist(), new[broke].tolist(), strict=True))
    won = Counter(zip(labels[fixed].tolist(), old[fixed].tolist(), strict=True))
    pairs = []
    for label, answer in sorted(lost.keys() | won.keys()):
        counts = lost[label, answer], won[label, answer]
        pairs.append(FlippedGroup(f"{label} → {answer or 'none'}", images[label], *counts, mcnemar(*counts)))
    return pairs


def _worst_first(groups: Sequence[FlippedGroup]) -> list[FlippedGroup]:
    """Return the groups with flips, those that are worse for certain first, then by broke less fixed."""
    judged = _with_false_discoveries(groups)
    flipped = [group for group in judged if group.broke or group.fixed]
    return sorted(flipped, key=lambda group: (not group.is_worse, group.fixed - group.broke, group.name))


def _with_false_discoveries(groups: Sequence[FlippedGroup]) -> list[FlippedGroup]:
    """Return the groups judged: whether each is worse, with at most 5 % false discoveries on average."""
    if not groups:
        return []
    adjusted = false_discovery_control([group.p_value for group in groups], method="by")
    judged = []
    for group, p_value in zip(groups, adjusted, strict=True):
        judged.append(replace(group, is_worse=bool(p_value <= ERROR) and group.broke > group.fixed))
    return judged


def _groups_by_columns(
    columns: Mapping[str, np.ndarray], broke: np.ndarray, fixed: np.ndarray, by: Sequence[str]
) -> dict[str, list[FlippedGroup]]:
    """Return the groups of each column; of columns that were not named, those with few values of enough images."""
    for name in by:
        if name not in columns:
            names = ", ".join(columns) or "none"
            raise UserError(f"by: there is no column {name} (there are: {names})")
    groups = {}
    for name, column in columns.items():
        values = np.array([str(value) for value in column])
        distinct = np.unique(values)
        is_measure = len(distinct) > _MOST_GROUPS or len(values) < _FEWEST_OF_A_GROUP * len(distinct)
        if name in by or (not by and len(distinct) > 1 and not is_measure):
            groups[name] = _worst_first(_groups(values, broke, fixed))
    return groups


def _calibration(predictions: Predictions, right: np.ndarray) -> Estimate | None:
    if predictions.confidence is None:
        return None
    usable = np.isfinite(predictions.confidence)
    if not usable.any():
        return None
    return expected_calibration_error(predictions.confidence[usable], right[usable])


def _flipped(old: Predictions, new: Predictions, rows: np.ndarray) -> list[Flip]:
    """Return the images of the rows, bool [N], those first of which NEW is surest; without confidences in order."""
    places = np.flatnonzero(rows)
    if new.confidence is not None:
        places = places[np.argsort(-np.nan_to_num(new.confidence[places]), kind="stable")]
    flipped = []
    for place in places.tolist():
        flip = Flip(
            id=str(new.ids[place]),
            label=str(new.labels[place]),
            old=str(old.answers[place]),
            new=str(new.answers[place]),
            old_confidence=None if old.confidence is None else float(old.confidence[place]),
            new_confidence=None if new.confidence is None else float(new.confidence[place]),
        )
        flipped.append(flip)
    return flipped
