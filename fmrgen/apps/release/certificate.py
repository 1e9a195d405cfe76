"""Is a failure fixed? What a certificate takes, and its verdict, from the answers of the networks to real images.

All evidence is by betting: the verdict is wrong in at most 5 % of cases whenever one stops to label more images, and
their order does not matter. Nothing here imports torch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from fmrgen.apps.explain.betting import ERROR, fastest_growth, log_capital_of
from fmrgen.apps.release.flips import OF_ANOTHER_SEED_IN_A_CLASS, Flip
from fmrgen.metrics.intervals import Estimate, proportion

Verdict = Literal["fixed", "fixed but broke", "broke", "not fixed", "undecided", "invalid"]
State = Literal["holds", "fails", "open", "not asked"]
Unit = Literal["%", "points"]

SCHEMA = "fmrgen-certificate/1"

# Percent: NEW has to make so many errors of the kind fewer than OLD and than each control. Trainings of one recipe
# that differ in their seed alone are apart too: docs/results/repairs.md has the measurements.
LEAST_REDUCTION = 25.0
OF_KIND, OTHERS, ORIGINALS = "images of that kind", "other images", "originals"
MADE = "moved, changed and made images"  # the requirement that only asks that nothing speaks against it
MOST_LISTED = 24  # images of each sort
_SHARE_OF_KIND = 0.2  # of the images: those that have most of an attribute
_MOST_OF_KIND = 0.4
_CLEAR = math.log(2 / ERROR)  # capital at which either end of an interval is passed
_FEWEST_TIMES = -9.0  # a reduction: ten times as many errors; of more the bound is not searched
_HALVINGS = 16  # of an interval in which a bound is searched


@dataclass(frozen=True)
class Requirement:
    """One thing that a certificate takes.

    Attributes:
        name: of what NEW may have no more, or must have fewer, and than whom: `errors elsewhere than OLD`.
        asked_on: what images: `images of that kind`, `other images`, or `originals` that are changed or searched.
        state: whether it is shown to hold, shown to fail, open, or could not be asked.
        images: that it rests on.
        measure: with its 95 % interval, which holds whenever one stops; None if it was not asked.
        unit: of the measure and of the limit.
        limit: `%`: the reduction that it has to exceed. `points`: the loss that it has to stay below.
        more: about how many more images would show that it holds, at the present rate; None if no number would, or it
            needs none.
        shown: what it rests on, of a requirement that no figure measures.
    """

    name: str
    asked_on: str
    state: State
    images: int = 0
    measure: Estimate | None = None
    unit: Unit = "points"
    limit: float = 0.0
    more: int | None = None
    shown: str = ""


@dataclass(frozen=True)
class Cut:
    """Which images have most of an attribute, so that later images are of the kind by the same measure.

    Attributes:
        sign: 1 for those that have most, -1 for least, 0 for those furthest from the middle.
        middle: of the measures that it was made by; 0 for other signs.
        least: an image is of the kind whose measure, times the sign or apart from the middle, is at least this.
    """

    sign: int
    middle: float
    least: float

    @classmethod
    def of_most(cls, measures: np.ndarray, sign: int) -> "Cut":
        """Return the cut that a fifth of the images pass, or fewer where many have none, by their measures [N]."""
        from fmrgen.apps.explain.interventions import amounts_of

        middle = float(np.median(measures)) if sign == 0 else 0.0
        amounts = amounts_of(measures, sign, middle)
        least = float(np.quantile(amounts, 1 - _SHARE_OF_KIND))
        if (amounts >= least).mean() > _MOST_OF_KIND:  # most images have the same amount, as an empty corner
            more = amounts[amounts > least]
            least = float(more.min()) if len(more) else math.inf
        return cls(sign, middle, least)

    def holds(self, measures: np.ndarray) -> np.ndarray:
        """Return which images pass it, bool [N], by their measures [N]."""
        from fmrgen.apps.explain.interventions import amounts_of

        passes: np.ndarray = amounts_of(measures, self.sign, self.middle) >= self.least
        return passes


@dataclass(frozen=True)
class Certificate:
    """Whether a failure of OLD is fixed in NEW, and what that cost.

    Attributes:
        verdict: `fixed`: all that was asked is shown. `fixed but broke`: it is fixed, and something else is worse than
            allowed. `broke`: something else is, and whether it is fixed is open. `not fixed`: NEW is shown to lack the
            reduction, beside OLD or a control. `undecided`: the images do not tell, or there is no control. `invalid`:
            a network does not work.
        claim: the kind of images, in words.
        images: number of real images in all.
        of_kind: how many of them are of the kind.
        margin: points that NEW may lose elsewhere.
        errors: on images of the kind, in percent, by network: OLD, NEW and the controls; of a pair of classes those
            errors alone.
        elsewhere: errors on all other images, likewise.
        flips: negative flips from OLD on all images, in percent, by network.
        repair: requirements on the failure: errors fell, and by more than in each control.
        cost: requirements on all else.
        notes: cautions; the faults if the verdict is `invalid`.
        cut: by which images were measured to be of the kind; None if they were not measured.
        mended: images of the kind that OLD alone has wrong, the surest answers of NEW first, a few.
        left: images of the kind that NEW has wrong, likewise.
    """

    verdict: Verdict
    claim: str
    images: int
    of_kind: int
    margin: float
    errors: dict[str, Estimate]
    elsewhere: dict[str, Estimate]
    flips: dict[str, Estimate]
    repair: list[Requirement]
    cost: list[Requirement]
    notes: list[str] = field(default_factory=list)
    cut: Cut | None = None
    mended: list[Flip] = field(default_factory=list)
    left: list[Flip] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Certificate({self.verdict}: {self.claim}, {self.of_kind} of {self.images} images)"

    @property
    def broken(self) -> list[Requirement]:
        """What is shown to be worse than allowed."""
        return [requirement for requirement in self.cost if requirement.state == "fails"]

    @property
    def open(self) -> list[Requirement]:
        """What neither holds nor fails, of all that was asked."""
        return [requirement for requirement in (*self.repair, *self.cost) if requirement.state == "open"]

    def with_more(
        self, *, repair: Sequence[Requirement], cost: Sequence[Requirement], notes: Sequence[str]
    ) -> "Certificate":
        """Return the certificate with more requirements and cautions, and the verdict over all of them."""
        repair, cost = [*self.repair, *repair], [*self.cost, *cost]
        verdict = "invalid" if self.verdict == "invalid" else _verdict(repair, cost)
        return replace(self, repair=repair, cost=cost, verdict=verdict, notes=[*self.notes, *notes])


class Errors(NamedTuple):
    """Errors of one network, bool [N] each, on the same images.

    Attributes:
        of_kind: on images of the kind; the errors that are claimed.
        elsewhere: all other errors.
    """

    of_kind: np.ndarray
    elsewhere: np.ndarray


class Shift(NamedTuple):
    """Images of another place, bool [M] each: which OLD and NEW have wrong."""

    old: np.ndarray
    new: np.ndarray


def certify_errors(
    claim: str,
    errors: Mapping[str, Errors],
    is_of_kind: np.ndarray,
    is_elsewhere: np.ndarray,
    labels: np.ndarray,
    *,
    margin: float,
    shifts: Mapping[str, Shift] | None = None,
    notes: Sequence[str] = (),
) -> Certificate:
    """Return the certificate of a claim on real images.

    Args:
        claim: the kind of images, in words.
        errors: by network, on the same N images: `OLD`, `NEW`, and the controls, that of another seed first.
        is_of_kind: which images are of the kind, bool [N]; some are.
        is_elsewhere: on which all other errors are counted, bool [N]; of a pair of classes these are all images.
        labels: the true classes, [N].
        margin: points that NEW may lose elsewhere.
        shifts: images of other places, by name.
        notes: cautions to begin with.
    """
    old, new = errors["OLD"], errors["NEW"]
    controls = [name for name in errors if name not in ("OLD", "NEW")]
    repair = []
    for name in ["OLD", *controls]:
        words = f"errors of that kind than {name}"
        repair.append(reduction(words, OF_KIND, errors[name].of_kind[is_of_kind], new.of_kind[is_of_kind]))
    if not controls:
        words = "errors of that kind than a control"
        repair.append(Requirement(words, OF_KIND, "not asked", unit="%", limit=LEAST_REDUCTION))
    cost = [_loss("errors elsewhere than OLD", old.elsewhere[is_elsewhere], new.elsewhere[is_elsewhere], margin)]
    cost += _worst_class(labels[is_elsewhere], old.elsewhere[is_elsewhere], new.elsewhere[is_elsewhere], margin)
    for name, shift in (shifts or {}).items():
        cost.append(_loss(f"errors on {name} than OLD", shift.old, shift.new, margin))
    if not shifts:
        cost.append(Requirement("errors on images of another place", OTHERS, "not asked", limit=margin))
    flipped = {name: _flips(old, others) for name, others in errors.items() if name != "OLD"}
    if controls:
        first = controls[0]
        cost.append(_loss(f"negative flips than {first}", flipped[first], flipped["NEW"], margin))
    else:
        cost.append(Requirement("negative flips than a control", OTHERS, "not asked", limit=margin))
    cautions = list(notes)
    of_kind = {name: _share(of_network.of_kind[is_of_kind]) for name, of_network in errors.items()}
    elsewhere = {name: _share(of_network.elsewhere[is_elsewhere]) for name, of_network in errors.items()}
    if of_kind["OLD"].value <= elsewhere["OLD"].value:
        cautions.append(
            f"OLD errs no more on real images of that kind ({of_kind['OLD'].value:.1f} %) than elsewhere "
            f"({elsewhere['OLD'].value:.1f} %): the failure was not seen on real images"
        )
    return Certificate(
        verdict=_verdict(repair, cost),
        claim=claim,
        images=len(labels),
        of_kind=int(is_of_kind.sum()),
        margin=margin,
        errors=of_kind,
        elsewhere=elsewhere,
        flips={name: _share(flips) for name, flips in flipped.items()},
        repair=repair,
        cost=cost,
        notes=cautions,
    )


def _verdict(repair: Sequence[Requirement], cost: Sequence[Requirement]) -> Verdict:
    of_repair = {requirement.state for requirement in repair}
    of_cost = {requirement.state for requirement in cost}
    is_fixed = of_repair == {"holds"}  # without a control nothing is
    if "fails" in of_repair:
        return "not fixed"
    if "fails" in of_cost:
        return "fixed but broke" if is_fixed else "broke"
    return "fixed" if is_fixed and "open" not in of_cost else "undecided"


def _share(hits: np.ndarray) -> Estimate:
    """Return the share of hits in percent; nan for no images."""
    return proportion(hits) or Estimate(math.nan, None, None)


def _flips(old: Errors, new: Errors) -> np.ndarray:
    """Return which images OLD has right and the other network wrong, bool [N]."""
    old_wrong, new_wrong = (errors.of_kind | errors.elsewhere for errors in (old, new))
    flips: np.ndarray = new_wrong & ~old_wrong
    return flips


def _pairs(reference: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return how many images both have wrong, the reference alone, NEW alone, and neither, [4]."""
    both = int((reference & new).sum())
    return np.array([both, int(reference.sum()) - both, int(new.sum()) - both, int((~reference & ~new).sum())])


def reduction(name: str, asked_on: str, reference: np.ndarray, new: np.ndarray) -> Requirement:
    """Return the requirement that NEW makes fewer errors than a reference: by a share, in percent of its errors.

    Args:
        name: of the requirement.
        asked_on: what images.
        reference: which of them the reference has wrong, bool [N].
        new: which NEW has wrong, bool [N].
    """
    counts = _pairs(reference, new)

    def outcomes(share: float) -> np.ndarray:
        """Return by how much NEW's errors are below those of the reference less a share, for each of the four."""
        return np.array([-share, 1 - share, -1, 0])

    if not reference.any():
        return Requirement(name, asked_on, "open", len(new), unit="%", limit=LEAST_REDUCTION)
    low = _last(lambda share: log_capital_of(outcomes(share), counts) >= _CLEAR, _FEWEST_TIMES, 1.0)
    high = -_last(lambda share: log_capital_of(-outcomes(-share), counts) >= _CLEAR, -1.0, -_FEWEST_TIMES)
    value = 1 - float(new.sum() / reference.sum())
    limit = LEAST_REDUCTION / 100
    measure = Estimate(100 * value, 100 * low, 100 * high)
    return _requirement(name, asked_on, measure, "%", LEAST_REDUCTION, outcomes(limit), counts)


def _loss(name: str, reference: np.ndarray, new: np.ndarray, margin: float) -> Requirement:
    """Return the requirement that NEW has fewer of something than a reference, or more by less than the margin.

    Args:
        name: of the requirement.
        reference: which images count for the reference, bool [N].
        new: which count for NEW, bool [N].
        margin: in points.
    """
    if not len(new):
        return Requirement(name, OTHERS, "not asked", limit=margin)
    counts = _pairs(reference, new)
    differences = np.array([0.0, -1.0, 1.0, 0.0])
    low = _last(lambda mean: log_capital_of(differences - mean, counts) >= _CLEAR, -1.0, 1.0)
    high = -_last(lambda mean: log_capital_of(-mean - differences, counts) >= _CLEAR, -1.0, 1.0)
    value = float(differences @ counts) / len(new)
    measure = Estimate(100 * value, 100 * low, 100 * high)
    return _requirement(name, OTHERS, measure, "points", margin, margin / 100 - differences, counts)


def _requirement(
    name: str, asked_on: str, measure: Estimate, unit: Unit, limit: float, outcomes: np.ndarray, counts: np.ndarray
) -> Requirement:
    """Return a requirement that its measure is above the limit, in percent, or below it, in points.

    Args:
        name: of the requirement.
        asked_on: what images.
        measure: with its interval.
        unit: of the measure and of the limit.
        limit: that the whole interval has to be beyond.
        outcomes: values whose mean is above 0 if it holds, [4].
        counts: how often each occurred, [4].
    """
    low, high = measure.ends
    holds, fails = (low > limit, high < limit) if unit == "%" else (high < limit, low > limit)
    images = int(counts.sum())
    if holds:
        return Requirement(name, asked_on, "holds", images, measure, unit, limit)
    if fails:
        return Requirement(name, asked_on, "fails", images, measure, unit, limit)
    return Requirement(name, asked_on, "open", images, measure, unit, limit, _more_images(outcomes, counts))


def _worst_class(labels: np.ndarray, old: np.ndarray, new: np.ndarray, margin: float) -> list[Requirement]:
    """Return a requirement for the class that lost most surely, as one of all, if it lost more than another seed may.

    A class has too few images to show that it lost nothing.
    """
    names = np.unique(labels)
    allowed = margin + OF_ANOTHER_SEED_IN_A_CLASS
    worst = None
    for name in names:
        members = labels == name
        counts = _pairs(old[members], new[members])
        capital = log_capital_of(np.array([0.0, -1.0, 1.0, 0.0]) - allowed / 100, counts)
        if worst is None or capital > worst[0]:
            worst = (capital, name)
    if worst is None or worst[0] < _CLEAR + math.log(len(names)):
        return []
    members = labels == worst[1]
    requirement = _loss(f"errors elsewhere on class {worst[1]} than OLD", old[members], new[members], allowed)
    return [replace(requirement, state="fails", more=None)]


def _last(is_passed: Callable[[float], bool], low: float, high: float) -> float:
    """Return up to where something holds that holds for small numbers alone, at least `low` and at most `high`."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if is_passed(middle):
            low = middle
        else:
            high = middle
    return low


def _more_images(outcomes: np.ndarray, counts: np.ndarray) -> int | None:
    """Return about how many more images would show that the mean outcome is above 0; None if none would."""
    growth = fastest_growth(outcomes, counts)
    if growth <= 0:
        return None
    missing = _CLEAR - log_capital_of(outcomes, counts)
    return max(1, math.ceil(missing / growth))
