"""Whether a ranking holds under other conditions, as other generators (paper §4.3, Table 3): which classifiers keep
their order and which change places, Kendall's tau of each two conditions, and W of all."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from scipy.optimize import lsq_linear

from fmrgen.errors import UserError
from fmrgen.metrics.intervals import Estimate, foundation_model_robustness
from fmrgen.results.evaluation import Evaluation
from fmrgen.results.own_splits import fmr_and_influence, rows_of
from fmrgen.results.simultaneous import above

_MOST_VERTICES = 1 << 14
_FEWEST_CLASSIFIERS = 3  # two have but one order and the other


@dataclass(frozen=True)
class PairAgreement:
    """Kendall's tau of the rankings under two generators, from -1 to 1 (1: the same order)."""

    first: str
    second: str
    tau: Estimate


@dataclass(frozen=True)
class OrderOfTwo:
    """Two classifiers: under which generators the first is above the other beyond chance, and under which below.

    All of these, of all pairs and generators, hold at once with 95 % confidence.
    """

    first: str
    second: str
    above: list[str]
    below: list[str]

    @property
    def turns(self) -> bool:
        """Whether they change places from one generator to another, beyond chance."""
        return bool(self.above and self.below)


@dataclass(frozen=True)
class Agreement:
    """Classifiers on their own splits under several generators.

    Attributes:
        generators: by the names of their recipes.
        classifiers: that all of them were used on.
        rows: images that all splits have.
        fmr: of each generator the classifiers' FMR, in percent.
        orders: of each two classifiers.
        pairs: tau of each two generators.
        concordance: Kendall's W of all rankings, from 0 to 1 (1: one order under all).
    """

    generators: list[str]
    classifiers: list[str]
    rows: int
    fmr: list[list[Estimate]]
    orders: list[OrderOfTwo]
    pairs: list[PairAgreement]
    concordance: Estimate

    @property
    def kept(self) -> list[OrderOfTwo]:
        """The pairs that have one order under all generators, beyond chance."""
        return [order for order in self.orders if len(self.generators) in (len(order.above), len(order.below))]

    @property
    def verdict(self) -> str:
        """On "the order is one under all generators", as of claims."""
        if any(order.turns for order in self.orders):
            return "does not hold"
        return "holds" if len(self.kept) == len(self.orders) else "not decided"

    def ranks(self) -> list[list[int]]:
        """Of each generator the classifiers' ranks, the highest FMR first."""
        return [[1 + sum(other.value > one.value for other in row) for one in row] for row in self.fmr]


def agreement(evaluations: Mapping[str, Evaluation], *, seed: int = 0) -> Agreement:
    """Which classifiers keep their order under all conditions (`compare --with`, `--robust-to`, `--oracle`).

    For whether two measures rank alike, as FMR and a fixed benchmark, see the command `agree`.

    Chance in the images disorders what is close, so drawing them again makes rankings agree less than the true ones do.
    Instead, each two classifiers are told apart under each condition, or not, all at once with 95 % confidence; the
    intervals of tau and W are what all orders that these leave possible would give. Those of FMR are as everywhere.

    Args:
        evaluations: of each generator, by its name: what `compare` returned, of one source and the same classifiers.
        seed: of the draws that tell classifiers apart.

    Returns:
        Figures of the classifiers that have an FMR under all of them.

    Raises:
        UserError: fewer than two generators or three such classifiers, or no images in common.
    """
    own = {name: _own_splits(found) for name, found in evaluations.items()}
    classifiers = [name for name in next(iter(own.values()), {}) if all(name in of for of in own.values())]
    check_many_enough(len(evaluations), len(classifiers))
    tables = [
        [found.predictions_of(own[name][classifier], classifier) for classifier in classifiers]
        for name, found in evaluations.items()
    ]
    common = tables[0][0]["id"]
    for row in tables:
        for table in row:
            common = np.intersect1d(common, table["id"])
    if not len(common):
        raise UserError("the splits have no images in common; use one source in their recipes")
    rows = [[rows_of(table, common) for table in row] for row in tables]
    labels = [of["label"] for row in rows for of in row]
    if any(not np.array_equal(other, labels[0]) for other in labels[1:]):
        raise UserError("the splits have different labels for the same ids; use one source in their recipes")
    known = [[fmr_and_influence(of) for of in row] for row in rows]
    if any(one is None for row in known for one in row):
        raise UserError("a classifier has no FMR on the images in common; none of its rows there is valid")
    values = [np.array([one[0] for one in row if one is not None]) for row in known]
    influences = [np.stack([one[1] for one in row if one is not None]) for row in known]
    signs = np.stack(
        [above_others.astype(int) - above_others.T for above_others in above(values, influences, seed)]
    )  # [G, C, C]; 0: unknown
    observed = np.stack([np.sign(own[:, None] - own) for own in values])
    names = list(evaluations)
    return Agreement(
        generators=names,
        classifiers=classifiers,
        rows=len(common),
        fmr=[[_fmr(of) for of in row] for row in rows],
        orders=[
            OrderOfTwo(
                classifiers[a],
                classifiers[b],
                [name for name, own in zip(names, signs[:, a, b], strict=True) if own > 0],
                [name for name, own in zip(names, signs[:, a, b], strict=True) if own < 0],
            )
            for a, b in combinations(range(len(classifiers)), 2)
        ],
        pairs=[
            PairAgreement(names[a], names[b], _tau(observed[[a, b]], signs[[a, b]]))
            for a, b in combinations(range(len(names)), 2)
        ],
        concordance=_concordance(observed, signs),
    )


def check_many_enough(generators: int, classifiers: int) -> None:
    """Raises UserError where there are too few for rankings to agree or differ."""
    if generators < 2:
        raise UserError("generators: an agreement needs at least two")
    if classifiers < _FEWEST_CLASSIFIERS:
        raise UserError(
            f"classifiers: rankings of {classifiers} can't be compared; give {_FEWEST_CLASSIFIERS} or more that "
            "have an FMR under all generators"
        )


def _own_splits(evaluation: Evaluation) -> dict[str, str]:
    """The own split of each classifier that has an FMR on it."""
    ranking = [] if evaluation.own is None else evaluation.own.ranking
    return {place.classifier: place.split for place in ranking if place.best is not None}


def _fmr(columns: Mapping[str, np.ndarray]) -> Estimate:
    """As everywhere, with an interval where none or all are right too."""
    label, valid = columns["label"], columns["valid"].astype(bool)
    original = columns["original_prediction"] == label
    found, _ = foundation_model_robustness(columns["prediction"] == label, valid, original)
    assert found is not None  # else the classifier would have no rank
    return found


def _tau(observed: np.ndarray, known: np.ndarray) -> Estimate:
    """Kendall's tau of two orders by the signs of all pairs [2, C, C], and its least and highest value where just
    those that are `known` are known."""
    upper = np.triu_indices(observed.shape[1], 1)
    one, other = (signs[upper] for signs in observed)
    together = known[0][upper] * known[1][upper]
    certain, open_ = float(together.sum()), float((together == 0).sum())
    untied = np.sqrt(float((one != 0).sum()) * float((other != 0).sum()))
    value = float((one * other).sum()) / untied if untied else 0.0
    return _within(value, (certain - open_) / len(together), (certain + open_) / len(together))


def _concordance(observed: np.ndarray, known: np.ndarray) -> Estimate:
    """Kendall's W of the orders under G generators by the signs of all pairs [G, C, C], and what it may be where just
    those that are `known` are known.

    The sum of a classifier's ranks grows by one with each other and generator under which that is above it. So W is a
    quadratic form of how many generators put the first of a pair above the second, each of which may be anything that
    the known signs leave. Its least value is over all such numbers, orders or not, its highest at one of their ends.
    """
    generators, classifiers, _ = observed.shape
    pairs = list(combinations(range(classifiers), 2))
    effect = np.zeros((classifiers, len(pairs)))  # on twice the sums of ranks, less their mean
    for column, (a, b) in enumerate(pairs):
        effect[a, column], effect[b, column] = -1, 1
    alike = (observed == 0).sum(2)  # how many have each one's figure
    ties = float((alike**2 - 1).sum())
    most = generators**2 * (classifiers**3 - classifiers) / 3  # of true orders, which have no ties
    untied = most - generators * ties / 3
    found = np.array([observed[:, a, b].sum() for a, b in pairs])
    certain = np.array([known[:, a, b].sum() for a, b in pairs], dtype=float)
    open_ = np.array([(known[:, a, b] == 0).sum() for a, b in pairs], dtype=float)
    free = np.flatnonzero(open_)
    fixed = effect @ certain
    value = float(((effect @ found) ** 2).sum()) / untied if untied else 0.0
    if not len(free):
        return _within(value, *[float((fixed**2).sum()) / most] * 2)
    least = lsq_linear(effect[:, free], -fixed, bounds=(-open_[free], open_[free]))
    highest = 1.0
    if 2 ** len(free) <= _MOST_VERTICES:
        ends = np.array(list(product((-1, 1), repeat=len(free)))) * open_[free]
        highest = min(1.0, float(((effect[:, free] @ ends.T + fixed[:, None]) ** 2).sum(0).max()) / most)
    return _within(value, 2 * float(least.cost) / most, highest)


def _within(value: float, low: float, high: float) -> Estimate:
    """What was observed lies in its interval, but for rounding."""
    return Estimate(value, min(low, value), max(high, value))
