"""Agreement of rankings under several conditions, as generators (paper §4.3, Table 3): which classifiers keep their
order and which change places, Kendall's tau of each two conditions, and W of all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from scipy.optimize import lsq_linear

from fmrgen.errors import UserError
from fmrgen.metrics.intervals import Estimate, foundation_model_robustness
from fmrgen.results.evaluation import Evaluation
from fmrgen.results.own_splits import fmr_and_influence, rows_of
from fmrgen.results.simultaneous import above

Columns = Mapping[str, np.ndarray]
_MOST_VERTICES = 1 << 14  # of the box of undecided signs; of a larger one W's highest value is taken to be 1
_FEWEST_CLASSIFIERS = 3  # two have only one order and its reverse


@dataclass(frozen=True)
class PairAgreement:
    """Kendall's tau of the rankings under two generators, from -1 to 1 (1: the same order)."""

    first: str
    second: str
    tau: Estimate


@dataclass(frozen=True)
class OrderOfTwo:
    """The order of two classifiers: the generators under which the first is above the second beyond chance, or below.

    All of these statements, over all pairs and generators, hold at once with 95 % confidence.
    """

    first: str
    second: str
    above: list[str]
    below: list[str]

    @property
    def turns(self) -> bool:
        """Return whether they change places from one generator to another, beyond chance."""
        return bool(self.above and self.below)


@dataclass(frozen=True)
class Agreement:
    """Classifiers on their own splits under several generators.

    Attributes:
        generators: the names of their recipes.
        classifiers: the classifiers that have an FMR under every generator.
        rows: the number of images that all splits have.
        fmr: for each generator, the classifiers' FMR in percent.
        orders: the order of each two classifiers.
        pairs: Kendall's tau of each two generators.
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
        """Return the pairs that have one order under all generators, beyond chance."""
        return [order for order in self.orders if len(self.generators) in (len(order.above), len(order.below))]

    @property
    def verdict(self) -> str:
        """Return the verdict on "the order is one under all generators", in the words used for claims."""
        if any(order.turns for order in self.orders):
            return "does not hold"
        if len(self.kept) == len(self.orders):
            return "holds"
        return "not decided"

    def ranks(self) -> list[list[int]]:
        """Return the classifiers' ranks under each generator; the highest FMR has rank 1, and equal ones share it."""
        ranks = []
        for estimates in self.fmr:
            values = [estimate.value for estimate in estimates]
            falling = sorted(values, reverse=True)
            ranks.append([1 + falling.index(value) for value in values])
        return ranks


def agreement(evaluations: Mapping[str, Evaluation], *, seed: int = 0) -> Agreement:
    """Return which classifiers keep their order under all conditions (`compare --with`, `--robust-to`, `--oracle`).

    For whether two measures rank alike, as FMR and a fixed benchmark, see the command `agree`.

    Chance in the images disorders classifiers that are close, so resampling the images makes rankings agree less than
    the true ones do. Instead, each two classifiers are told apart under each condition, or not, all at once with 95 %
    confidence; the intervals of tau and W span all orders that these decisions leave possible. Those of FMR are as
    everywhere.

    Args:
        evaluations: what `compare` returned for each generator, by its name, with one source and the same classifiers.
        seed: seed of the draws that tell classifiers apart.

    Returns:
        Figures of the classifiers that have an FMR under all generators.

    Raises:
        UserError: fewer than two generators or three such classifiers, or no images in common.
    """
    generators = list(evaluations)
    own_splits = [_own_splits(evaluation) for evaluation in evaluations.values()]
    classifiers = _in_all(own_splits)
    check_many_enough(len(generators), len(classifiers))
    all_rows = []
    for evaluation, split_of in zip(evaluations.values(), own_splits, strict=True):
        all_rows.append([evaluation.predictions_of(split_of[classifier], classifier) for classifier in classifiers])
    tables = _on_common_images(all_rows)
    values, influences = _values_and_influences(tables)
    is_above = np.stack(above(values, influences, seed))  # [G, C, C]
    signs = is_above.astype(int) - is_above.swapaxes(1, 2)  # 1 above, -1 below, 0 undecided
    fmr = np.stack(values)
    observed = np.sign(fmr[:, :, None] - fmr[:, None, :])
    estimates = []
    for row in tables:
        estimates.append([_fmr(columns) for columns in row])
    pairs = []
    for a, b in combinations(range(len(generators)), 2):
        pairs.append(PairAgreement(generators[a], generators[b], _tau(observed[[a, b]], signs[[a, b]])))
    return Agreement(
        generators=generators,
        classifiers=classifiers,
        rows=len(tables[0][0]["id"]),
        fmr=estimates,
        orders=_orders(generators, classifiers, signs),
        pairs=pairs,
        concordance=_concordance(observed, signs),
    )


def check_many_enough(generators: int, classifiers: int) -> None:
    """Raise UserError if there are too few of either for rankings to agree or differ."""
    if generators < 2:
        raise UserError("generators: an agreement needs at least two")
    if classifiers < _FEWEST_CLASSIFIERS:
        raise UserError(
            f"classifiers: rankings of {classifiers} can't be compared; give {_FEWEST_CLASSIFIERS} or more that "
            "have an FMR under all generators"
        )


def _own_splits(evaluation: Evaluation) -> dict[str, str]:
    """Return the own split of each classifier that has an FMR on it."""
    if evaluation.own is None:
        return {}
    return {place.classifier: place.split for place in evaluation.own.ranking if place.best is not None}


def _in_all(own_splits: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the classifiers that every generator has, in the order of the first one."""
    if not own_splits:
        return []
    common = set(own_splits[0]).intersection(*own_splits)
    return [classifier for classifier in own_splits[0] if classifier in common]


def _on_common_images(tables: Sequence[Sequence[Columns]]) -> list[list[Columns]]:
    """Return the rows of the images that all tables have, a row of tables for each generator, in the same order."""
    common = tables[0][0]["id"]
    for row in tables:
        for table in row:
            common = np.intersect1d(common, table["id"])
    if not len(common):
        raise UserError("the splits have no images in common; use one source in their recipes")
    aligned: list[list[Columns]] = []
    for row in tables:
        aligned.append([rows_of(table, common) for table in row])
    labels = aligned[0][0]["label"]
    for row in aligned:
        for table in row:
            if not np.array_equal(table["label"], labels):
                raise UserError("the splits have different labels for the same ids; use one source in their recipes")
    return aligned


def _values_and_influences(tables: Sequence[Sequence[Columns]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return for each generator the classifiers' FMR [C], and the influence of every row on it [C, N]."""
    values = []
    influences = []
    for row in tables:
        row_values = []
        row_influences = []
        for table in row:
            fmr = fmr_and_influence(table)
            if fmr is None:
                raise UserError("a classifier has no FMR on the images in common; none of its rows there is valid")
            row_values.append(fmr[0])
            row_influences.append(fmr[1])
        values.append(np.array(row_values))
        influences.append(np.stack(row_influences))
    return values, influences


def _orders(generators: Sequence[str], classifiers: Sequence[str], signs: np.ndarray) -> list[OrderOfTwo]:
    """Return the order of each two classifiers; `signs` [G, C, C] is 1 where the first is above, -1 below, else 0."""
    orders = []
    for a, b in combinations(range(len(classifiers)), 2):
        above_under = []
        below_under = []
        for generator, sign in zip(generators, signs[:, a, b], strict=True):
            if sign > 0:
                above_under.append(generator)
            if sign < 0:
                below_under.append(generator)
        orders.append(OrderOfTwo(classifiers[a], classifiers[b], above_under, below_under))
    return orders


def _fmr(columns: Columns) -> Estimate:
    """Return FMR as everywhere else, with an interval even where none or all are right."""
    label, valid = columns["label"], columns["valid"].astype(bool)
    original = columns["original_prediction"] == label
    estimate, _ = foundation_model_robustness(columns["prediction"] == label, valid, original)
    assert estimate is not None  # else the classifier would have no rank
    return estimate


def _tau(observed: np.ndarray, signs: np.ndarray) -> Estimate:
    """Return Kendall's tau of two orders, with the least and highest value that the undecided pairs leave possible.

    Args:
        observed: the signs of all pairs as observed [2, C, C].
        signs: those that are certain [2, C, C]; 0 where a pair is undecided.
    """
    upper = np.triu_indices(observed.shape[1], 1)
    first, second = observed[0][upper], observed[1][upper]
    together = signs[0][upper] * signs[1][upper]
    certain, undecided = float(together.sum()), float((together == 0).sum())
    untied = np.sqrt(float((first != 0).sum()) * float((second != 0).sum()))
    value = 0.0
    if untied:
        value = float((first * second).sum()) / untied
    return _within(value, (certain - undecided) / len(together), (certain + undecided) / len(together))


def _concordance(observed: np.ndarray, signs: np.ndarray) -> Estimate:
    """Return Kendall's W of the orders under G generators, with the range that the undecided pairs leave possible.

    The sum of a classifier's ranks grows by one with each other classifier and generator under which that one is above
    it. So W is a quadratic form of how many generators put the first of a pair above the second, each of which may be
    any number that the certain signs allow. Its least value is taken over all such numbers, whether or not an order has
    them; its highest is at a vertex of their box.

    Args:
        observed: the signs of all pairs as observed [G, C, C].
        signs: those that are certain [G, C, C]; 0 where a pair is undecided.
    """
    generators, classifiers, _ = observed.shape
    first, second = np.triu_indices(classifiers, 1)
    pairs = np.arange(len(first))
    effect = np.zeros((classifiers, len(pairs)))  # on twice the sums of ranks, less their mean
    effect[first, pairs] = -1
    effect[second, pairs] = 1
    tie_sizes = (observed == 0).sum(2)  # how many classifiers have the same figure as each, itself among them
    ties = float((tie_sizes**2 - 1).sum())
    most = generators**2 * (classifiers**3 - classifiers) / 3  # of true orders, which have no ties
    untied = most - generators * ties / 3
    net_above = observed[:, first, second].sum(0)
    certain = signs[:, first, second].sum(0).astype(float)
    undecided = (signs[:, first, second] == 0).sum(0).astype(float)
    free = np.flatnonzero(undecided)
    fixed = effect @ certain
    value = 0.0
    if untied:
        value = float(((effect @ net_above) ** 2).sum()) / untied
    if not len(free):
        certain_value = float((fixed**2).sum()) / most
        return _within(value, certain_value, certain_value)
    least = lsq_linear(effect[:, free], -fixed, bounds=(-undecided[free], undecided[free]))
    highest = 1.0
    if 2 ** len(free) <= _MOST_VERTICES:
        vertices = np.array(list(product((-1, 1), repeat=len(free)))) * undecided[free]
        highest = min(1.0, float(((effect[:, free] @ vertices.T + fixed[:, None]) ** 2).sum(0).max()) / most)
    return _within(value, 2 * float(least.cost) / most, highest)


def _within(value: float, low: float, high: float) -> Estimate:
    """Return an estimate whose interval holds the observed value in spite of rounding."""
    return Estimate(value, min(low, value), max(high, value))
