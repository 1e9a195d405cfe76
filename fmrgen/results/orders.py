"""Agreement of rankings under several conditions, as generators (paper §4.3, Table 3): which classifiers keep their
order, which change places, and the rank correlation of each two conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fmrgen.errors import UserError
from fmrgen.metrics.intervals import RESAMPLES, Estimate
from fmrgen.metrics.rows import Rows
from fmrgen.results.evaluation import Evaluation
from fmrgen.results.own_splits import common_ids, fmr_and_influence, rows_of
from fmrgen.results.rank_correlation import RankCorrelation, rank_correlation
from fmrgen.results.simultaneous import above

Columns = Mapping[str, np.ndarray]
_FEWEST_CLASSIFIERS = 3  # two have only one order and its reverse


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
        pairs: the rank correlation of each two generators.
    """

    generators: list[str]
    classifiers: list[str]
    rows: int
    fmr: list[list[Estimate]]
    orders: list[OrderOfTwo]
    pairs: list[RankCorrelation]

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

    Each two classifiers are told apart under each condition, or not, all at once with 95 % confidence. The correlations
    of rankings have no interval over images: chance in the images disorders classifiers that are close, so resampled
    rankings agree less than the true ones do.

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
    fmr = []
    for row in tables:
        fmr.append([_fmr(columns) for columns in row])
    values_by_generator: dict[str, dict[str, float]] = {}
    for generator, estimates in zip(generators, fmr, strict=True):
        figures = [estimate.value for estimate in estimates]
        values_by_generator[generator] = dict(zip(classifiers, figures, strict=True))
    return Agreement(
        generators=generators,
        classifiers=classifiers,
        rows=len(tables[0][0]["id"]),
        fmr=fmr,
        orders=_orders(generators, classifiers, above(values, influences, seed)),
        pairs=[rank_correlation(*pair, values_by_generator) for pair in combinations(generators, 2)],
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
    every: list[Columns] = []
    for row in tables:
        every.extend(row)
    ids = common_ids(every)
    if not len(ids):
        raise UserError("the splits have no images in common; use one source in their recipes")
    aligned: list[list[Columns]] = []
    for row in tables:
        aligned.append([rows_of(table, ids) for table in row])
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


def _orders(generators: Sequence[str], classifiers: Sequence[str], is_above: Sequence[np.ndarray]) -> list[OrderOfTwo]:
    """Return the order of each two classifiers.

    Args:
        generators: their names.
        classifiers: likewise.
        is_above: for each generator, whether the first is above the second beyond chance, bool [C, C].
    """
    orders = []
    for a, b in combinations(range(len(classifiers)), 2):
        above_under = []
        below_under = []
        for generator, is_above_there in zip(generators, is_above, strict=True):
            if is_above_there[a, b]:
                above_under.append(generator)
            if is_above_there[b, a]:
                below_under.append(generator)
        orders.append(OrderOfTwo(classifiers[a], classifiers[b], above_under, below_under))
    return orders


def _fmr(columns: Columns) -> Estimate:
    """Return FMR as everywhere else, with an interval even where none or all are right."""
    estimate, _ = Rows(columns, RESAMPLES).fmr
    assert estimate is not None  # else the classifier would have no rank
    return estimate
