"""The verdict of a diff, and what it rests on: how many originals broke and were fixed, on each kind of images.

An original *broke* if OLD is right and NEW wrong on one of its images of that kind, and was *fixed* if it is the other
way round. Nothing here imports torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import bdtrc, gammaln, ndtr, xlogy

from fmrgen.metrics.intervals import Estimate, format_estimate, paired_difference, proportion, sign_test

Verdict = Literal["broke more", "fixed more", "no worse", "undecided", "invalid"]
Kind = Literal["originals", "class", "perturbed", "transformed"]
BROKE, FIXED = "broke", "fixed"  # the two sides of a diff, and of its splits
_MOST_EXACT = 60  # originals, up to which a p-value is exact
_SHARES_TRIED = 100
_ROUNDING = 1e-9
ERROR_OF_REAL, _ERROR_OF_OTHERS, _ERROR_OF_BETTER = 0.025, 0.01, 0.015
Counts = int | np.ndarray


@dataclass(frozen=True)
class Evidence:
    """How two classifiers fare on images of one kind.

    Attributes:
        kind: of the images.
        images: what they show, as in "of 300 …".
        originals: how many there are.
        broke: share of originals that broke, in percent.
        fixed: share that was fixed, in percent.
        drop: `broke` less `fixed` in points, with a paired 95 % interval.
        margin: points that NEW may lose on these images.
        p_worse: the chance of such a loss, or a larger one, of a NEW that loses `margin` points.
        p_better: the chance of such a gain of a NEW that gains no more than another seed may.
        is_worse, is_better: whether NEW is: see `judged`.
    """

    kind: Kind
    images: str
    originals: int
    broke: Estimate
    fixed: Estimate
    drop: Estimate
    margin: float
    p_worse: float
    p_better: float
    is_worse: bool = False
    is_better: bool = False

    @property
    def can_excuse(self) -> bool:
        """Whether such images can show that NEW is no worse: a class alone can only show that it is worse."""
        return self.kind != "class"

    @property
    def line(self) -> str:
        """What broke and was fixed, as a part of a sentence."""
        return (
            f"of {self.originals:,} {self.images} {format_estimate(self.broke)} % broke and "
            f"{format_estimate(self.fixed)} % were fixed"
        )


def evidence_of(
    kind: Kind, images: str, broke: np.ndarray, fixed: np.ndarray, margin: float, of_another_seed: float = 0.0
) -> Evidence:
    """Return what images of one kind show.

    Args:
        kind: of the images.
        images: what they show.
        broke: whether each original broke, bool [N], N ≥ 1.
        fixed: whether it was fixed, bool [N].
        margin: points that NEW may lose, by the user.
        of_another_seed: points by which another seed may be apart on these images; it may lose so many more.
    """
    allowed = margin + of_another_seed
    broke_alone, fixed_alone = int((broke & ~fixed).sum()), int((fixed & ~broke).sum())
    of_broke, of_fixed = proportion(broke), proportion(fixed)
    assert of_broke is not None
    assert of_fixed is not None
    return Evidence(
        kind,
        images,
        len(broke),
        of_broke,
        of_fixed,
        paired_difference(broke, fixed),
        allowed,
        p_worse=p_of_loss(broke_alone, fixed_alone, len(broke), allowed / 100),
        p_better=p_of_loss(fixed_alone, broke_alone, len(broke), of_another_seed / 100),
    )


def p_of_loss(broke: int, fixed: int, originals: int, margin: float) -> float:
    """Return the one-sided p-value of "broke less fixed is at most the margin".

    Without a margin the test is McNemar's, exact. With one it is the score test of paired proportions (Tango 1998):
    exact for up to 60 originals, over all networks that lose the margin (Sidik 2003). Of more originals it is that of
    large samples, which is too small by up to a factor of four where few differ: so there is a correction for
    continuity by one original, and it is no less than the exact p-value for networks that fix nothing.

    Args:
        broke: number of originals that broke, and were not fixed too.
        fixed: number of originals that were fixed, and did not break too.
        originals: number of originals in all.
        margin: a share, from 0 to less than 1.
    """
    if margin == 0:
        return sign_test(broke, fixed)
    difference = broke - fixed
    if originals <= _MOST_EXACT and difference > originals * margin:
        return _exact_p_of_loss(broke, fixed, originals, margin)
    by_score = ndtr(-(difference - originals * margin - 1) / _error(broke, fixed, originals, margin))
    if_none_fixed = bdtrc(difference - 1, originals, margin) if difference > 0 else 1.0
    return float(max(by_score, if_none_fixed))


def _error(broke: Counts, fixed: Counts, originals: int, margin: float) -> np.ndarray:
    """Return the standard error of broke less fixed, in originals, if its expectation were the margin."""
    # The likeliest share that was fixed solves a q² + b q + c = 0.
    a = 2 * originals
    b = (2 * originals - broke + fixed) * margin - broke - fixed
    c = -fixed * margin * (1 - margin)
    share = (np.sqrt(b * b - 4 * a * c) - b) / (2 * a)
    error: np.ndarray = np.sqrt(originals * (2 * share + margin * (1 - margin)))
    return error


def _exact_p_of_loss(broke: int, fixed: int, originals: int, margin: float) -> float:
    """Return the largest chance, for a NEW that loses the margin, of a score that is as high as the observed one."""
    counts = np.arange(originals + 1)
    all_broke, all_fixed = (axis.ravel() for axis in np.meshgrid(counts, counts))
    is_possible = all_broke + all_fixed <= originals
    all_broke, all_fixed = all_broke[is_possible], all_fixed[is_possible]
    difference = all_broke - all_fixed - originals * margin
    score = difference / _error(all_broke, all_fixed, originals, margin)
    observed = (broke - fixed - originals * margin) / _error(broke, fixed, originals, margin)
    as_high = score >= observed - _ROUNDING
    all_broke, all_fixed = all_broke[as_high], all_fixed[as_high]
    alike = originals - all_broke - all_fixed
    ways = gammaln(originals + 1) - gammaln(all_broke + 1) - gammaln(all_fixed + 1) - gammaln(alike + 1)
    share = np.linspace(0, (1 - margin) / 2, _SHARES_TRIED)[:, None]  # that is fixed: unknown, so the worst counts
    logarithms = ways + xlogy(all_broke, share + margin) + xlogy(all_fixed, share)
    logarithms += xlogy(alike, np.clip(1 - 2 * share - margin, 0, 1))
    return float(min(1.0, np.exp(logarithms).sum(axis=1).max()))


def shares_of_error(images: np.ndarray, allowed: float, error: float) -> int:
    """Return among how many groups an error is shared out: those that can be shown to be worse at all (Tarone 1990).

    A group that would not be worse for certain if NEW had every image of it wrong needs no share.

    Args:
        images: number of images in each group, [G].
        allowed: points that NEW may lose on a group.
        error: of all groups together.
    """
    least = np.sort([p_of_loss(count, 0, count, allowed / 100) for count in images.tolist()])
    for shares in range(1, len(least) + 1):
        if np.searchsorted(least, error / shares, side="right") <= shares:
            return shares
    return len(least)


def judged(
    of_real: Sequence[Evidence], of_others: Sequence[Evidence] = (), *, has_suspects: bool = False
) -> tuple[Verdict, list[Evidence]]:
    """Return the verdict over all evidence, and the evidence with what each shows.

    Equal networks are called different in at most 5 % of cases: real images show a loss in 2.5 %, whatever others are
    beside them; these show one in 1 %; and any show a gain in 1.5 %. Each error is shared out evenly among its lines
    (Bonferroni).
    NEW is *no worse* if on every kind its loss is below the margin by a 95 % interval, which needs no correction, and
    no class may have lost far more; it *fixed more* if besides it is better on some kind.

    Args:
        of_real: on real images as they are.
        of_others: on perturbed or transformed images.
        has_suspects: whether a class of real images may have lost far more than is allowed.
    """
    lines = []
    for entries, error in ((of_real, ERROR_OF_REAL), (of_others, _ERROR_OF_OTHERS)):
        for entry in entries:
            is_worse = entry.p_worse <= error / len(entries)
            is_better = entry.p_better <= _ERROR_OF_BETTER / (len(of_real) + len(of_others))
            lines.append(replace(entry, is_worse=is_worse, is_better=is_better))
    if any(entry.is_worse for entry in lines):
        return "broke more", lines
    is_excluded = all(entry.drop.ends[1] < entry.margin for entry in lines if entry.can_excuse)
    if has_suspects or not is_excluded:
        return "undecided", lines
    return ("fixed more" if any(entry.is_better for entry in lines) else "no worse"), lines
