"""Rank correlations of measures over classifiers: of FMR and accuracy on fixed benchmarks, for example."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from fmrgen.errors import UserError
from fmrgen.metrics.intervals import Estimate
from fmrgen.results.evaluation import Evaluation
from fmrgen.results.rank_correlation import RankCorrelation, rank_correlation

_FEWEST = 3  # classifiers: two have but one order and the other
_OWN = "own FMR"

Column = dict[str, Estimate]  # by classifier


def measures(evaluations: Sequence[Evaluation]) -> dict[str, Column]:
    """Return every measure in evaluations, by its name, of every classifier that has it.

    `own FMR` is each classifier's on the split made for it; `SA` its standard accuracy there; `FMR on SPLIT` that of
    the classifiers on one split; then the accuracy on each fixed set, and its mCE. Classifiers at chance are left out.

    Raises:
        UserError: two evaluations have different figures of one classifier.
    """
    columns: dict[str, Column] = {}
    weights: dict[str, str | None] = {}
    left_out = at_chance(evaluations)
    for evaluation in evaluations:
        for classifier in evaluation.classifiers:
            digest = weights.setdefault(classifier.name, classifier.weights_sha256)
            if digest != classifier.weights_sha256:
                raise UserError(
                    f"{classifier.name}: names different networks in two evaluations; give each a name, NAME=…"
                )
        for name, classifier_name, figure in _figures(evaluation):
            if classifier_name not in left_out:
                _add(columns.setdefault(name, {}), name, classifier_name, figure)
    return {name: column for name, column in columns.items() if column}


def _figures(evaluation: Evaluation) -> Iterator[tuple[str, str, Estimate | None]]:
    """Yield the measure, the classifier and the value of every figure of an evaluation."""
    for result in evaluation.results:
        if result.conditioned:
            yield _OWN, result.classifier, result.total.fmr
            yield "SA", result.classifier, result.total.standard_accuracy
        else:
            yield f"FMR on {result.split}", result.classifier, result.total.fmr
    for fixed in evaluation.fixed:
        yield fixed.name, fixed.classifier, fixed.accuracy
        yield f"{fixed.name} mCE", fixed.classifier, fixed.mean_corruption_error


def _add(column: Column, name: str, classifier: str, figure: Estimate | None) -> None:
    """Add a classifier's figure to the column of a measure. Raises UserError if it has another there."""
    if figure is None:
        return
    if column.setdefault(classifier, figure) != figure:
        raise UserError(f"{classifier}: has two figures for {name}; give evaluations that have it once")


def at_chance(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the classifiers that are hardly better than guessing on the originals of any split."""
    names = set()
    for evaluation in evaluations:
        for result in evaluation.results:
            if result.at_chance:
                names.add(result.classifier)
    return sorted(names)


def correlations(columns: Mapping[str, Column], chosen: Sequence[str] = ()) -> list[RankCorrelation]:
    """Return the rank correlations of each two measures over the classifiers that have both.

    Args:
        columns: the measures.
        chosen: names of those that are wanted; by default all pairs that enough classifiers have.

    Returns:
        A correlation for each pair.

    Raises:
        UserError: there is no such measure, or too few classifiers have two of them.
    """
    for name in chosen:
        if name not in columns:
            raise UserError(f"no evaluation has {name}; choose from {', '.join(columns)}")
    values = {}
    for name, column in columns.items():
        values[name] = {classifier: figure.value for classifier, figure in column.items()}
    pairs = []
    for first, second in combinations(chosen or columns, 2):
        common = values[first].keys() & values[second].keys()
        if len(common) >= _FEWEST:
            pairs.append(rank_correlation(first, second, values))
        elif chosen:
            raise UserError(f"{first} and {second}: {len(common)} classifiers have both, and {_FEWEST} are needed")
    if not pairs:
        raise UserError(f"no two measures cover {_FEWEST} classifiers; found {', '.join(columns) or 'none'}")
    return pairs
