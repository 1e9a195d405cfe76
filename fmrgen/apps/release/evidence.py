"""The verdict of a diff, and what it rests on: negative and positive flips, on each kind of images.

An original is a negative flip if OLD is right and NEW wrong on one of its images of that kind, a positive one if it is
the other way round. Nothing here imports torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.special import bdtrc, gammaln, ndtr, xlogy

from fmrgen.metrics.intervals import Estimate, format_estimate, paired_difference, proportion, sign_test

Verdict = Literal["worse", "better", "no worse", "undecided", "invalid"]
Kind = Literal["originals", "class", "perturbed", "transformed"]
NEGATIVE, POSITIVE = "negative", "positive"  # the two sides of a diff, and of its splits
ERROR_OF_REAL = 0.025
Counts = int | np.ndarray


@dataclass(frozen=True)
class Evidence:
    """How two classifiers fare on images of one kind.

    Attributes:
        kind: of the images.
        images: what they show, as in "of 300 …".
        originals: how many there are.
        negative: share of negative flips, in percent.
        positive: share of positive flips, in percent.
        drop: `negative` less `positive` in points, with a paired 95 % interval.
        margin: points that NEW may lose on these images.
        p_worse: the chance of such a loss, or a larger one, of a NEW that loses `margin` points.
        p_better: the chance of such a gain of a NEW that gains no more than another seed may.
        is_worse, is_better: whether NEW is: see `judged`.
    """

    kind: Kind
    images: str
    originals: int
    negative: Estimate
    positive: Estimate
    drop: Estimate
    margin: float
    p_worse: float
    p_better: float
    is_worse: bool = False
    is_better: bool = False

    @property
    def is_open(self) -> bool:
        """Whether NEW may lose more than is allowed on these images; a class alone can only show that it is worse."""
        return self.kind != "class" and self.drop.ends[1] >= self.margin

    @property
    def line(self) -> str:
        """The two shares, as a part of a sentence."""
        return (
            f"of {self.originals:,} {self.images} {format_estimate(self.negative)} % are negative flips and "
            f"{format_estimate(self.positive)} % positive"
        )


def evidence_of(
    kind: Kind, images: str, negative: np.ndarray, positive: np.ndarray, margin: float, of_another_seed: float = 0.0
) -> Evidence:
    """Return what images of one kind show.

    `images` says what they are. `negative` and `positive` say whether each original is such a flip, bool [N], N ≥ 1.
    NEW may lose `margin` points, by the user, and as many more as another seed may be apart on these images,
    `of_another_seed`.
    """
    allowed = margin + of_another_seed
    negative_alone, positive_alone = int((negative & ~positive).sum()), int((positive & ~negative).sum())
    of_negative, of_positive = proportion(negative), proportion(positive)
    assert of_negative is not None
    assert of_positive is not None
    return Evidence(
        kind,
        images,
        len(negative),
        of_negative,
        of_positive,
        paired_difference(negative, positive),
        allowed,
        p_worse=p_of_loss(negative_alone, positive_alone, len(negative), allowed / 100),
        p_better=p_of_loss(positive_alone, negative_alone, len(negative), of_another_seed / 100),
    )


@lru_cache(100_000)  # many classes have the same numbers
def p_of_loss(negative: int, positive: int, originals: int, margin: float) -> float:
    """Return the one-sided p-value of "negative less positive is at most the margin".

    Without a margin the test is McNemar's, exact. With one it is the score test of paired proportions (Tango 1998):
    exact for up to 60 originals, over all networks that lose the margin (Sidik 2003). Of more originals it is that of
    large samples, which is too small by up to a factor of four where few differ: so there is a correction for
    continuity by one original, and it is no less than the exact p-value for networks that fix nothing.

    `negative` and `positive` are the numbers of originals that are such flips alone, of `originals` in all. The margin
    is a share from 0; nobody loses more than all.
    """
    if margin >= 1:
        return 1.0
    if margin == 0:
        return sign_test(negative, positive)
    difference = negative - positive
    if originals <= 60 and difference > originals * margin:
        return _exact_p_of_loss(negative, positive, originals, margin)
    by_score = ndtr(-(difference - originals * margin - 1) / _error(negative, positive, originals, margin))
    if_none_fixed = bdtrc(difference - 1, originals, margin) if difference > 0 else 1.0
    return float(max(by_score, if_none_fixed))


def _error(negative: Counts, positive: Counts, originals: int, margin: float) -> np.ndarray:
    """Return the standard error of negative less positive, in originals, if its expectation were the margin."""
    # The likeliest share of positive flips solves a q² + b q + c = 0.
    a = 2 * originals
    b = (2 * originals - negative + positive) * margin - negative - positive
    c = -positive * margin * (1 - margin)
    share = (np.sqrt(b * b - 4 * a * c) - b) / (2 * a)
    return np.asarray(np.sqrt(originals * (2 * share + margin * (1 - margin))))


def _exact_p_of_loss(negative: int, positive: int, originals: int, margin: float) -> float:
    """Return the largest chance, for a NEW that loses the margin, of a score that is as high as the observed one."""
    counts = np.arange(originals + 1)
    all_negative, all_positive = (axis.ravel() for axis in np.meshgrid(counts, counts))
    is_possible = all_negative + all_positive <= originals
    all_negative, all_positive = all_negative[is_possible], all_positive[is_possible]
    difference = all_negative - all_positive - originals * margin
    score = difference / _error(all_negative, all_positive, originals, margin)
    observed = (negative - positive - originals * margin) / _error(negative, positive, originals, margin)
    as_high = score >= observed - 1e-9  # but for rounding
    all_negative, all_positive = all_negative[as_high], all_positive[as_high]
    alike = originals - all_negative - all_positive
    ways = gammaln(originals + 1) - gammaln(all_negative + 1) - gammaln(all_positive + 1) - gammaln(alike + 1)
    share = np.linspace(0, (1 - margin) / 2, 100)[:, None]  # of positive flips: unknown, so the worst counts
    logarithms = ways + xlogy(all_negative, share + margin) + xlogy(all_positive, share)
    logarithms += xlogy(alike, np.clip(1 - 2 * share - margin, 0, 1))
    return float(min(1.0, np.exp(logarithms).sum(axis=1).max()))


def shares_of_error(images: np.ndarray, allowed: float, error: float) -> int:
    """Return among how many groups an error is shared out: those that can be shown to be worse at all (Tarone 1990).

    A group that would not be worse for certain if NEW had every image of it wrong needs no share. `images` are the
    numbers of images in the groups, [G]. NEW may lose `allowed` points on a group. `error` is that of all groups
    together.
    """
    least = np.sort([p_of_loss(count, 0, count, allowed / 100) for count in images.tolist()])
    counts = range(1, len(least) + 1)
    return next(shares for shares in counts if np.searchsorted(least, error / shares, side="right") <= shares)


def judged(
    of_real: Sequence[Evidence], of_others: Sequence[Evidence] = (), *, has_suspect: bool = False
) -> tuple[Verdict, list[Evidence]]:
    """Return the verdict over all evidence, and the evidence with what each shows.

    Equal networks are called different in at most 5 % of cases: real images show a loss in 2.5 %, whatever others are
    beside them; these show one in 1 %; and any show a gain in 1.5 %. Each error is shared out evenly among its lines
    (Bonferroni). NEW is *no worse* if on every kind its loss is below the margin by a 95 % interval, which needs no
    correction, and no class may have lost far more; it is *better* if besides it is better on some kind.

    `of_others` is on perturbed or transformed images. `has_suspect` says whether a class of real images may have lost
    far more than is allowed.
    """
    lines = []
    for entries, error in ((of_real, ERROR_OF_REAL), (of_others, 0.01)):
        for entry in entries:
            is_worse = entry.p_worse <= error / len(entries)
            is_better = entry.p_better <= 0.015 / (len(of_real) + len(of_others))
            lines.append(replace(entry, is_worse=is_worse, is_better=is_better))
    if any(entry.is_worse for entry in lines):
        return "worse", lines
    if has_suspect or any(entry.is_open for entry in lines):
        return "undecided", lines
    return ("better" if any(entry.is_better for entry in lines) else "no worse"), lines
