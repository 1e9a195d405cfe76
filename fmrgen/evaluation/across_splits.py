"""Classifiers compared over several splits: each on its own, and all on all of them at once."""

from typing import Any

import numpy as np

from fmrgen.evaluation.measured import MeasuredSplit
from fmrgen.results.evaluation import EvaluatedClassifier
from fmrgen.results.own_splits import OwnComparison, compare_own
from fmrgen.results.worst_case import WorstCase, worst_cases


def compare_own_splits(
    splits: list[MeasuredSplit], worst: list[WorstCase], models: list[EvaluatedClassifier]
) -> OwnComparison | None:
    """Return classifiers compared, each on its own split.

    Only splits on the source of the first are compared, as an id is another image on another source, and only those
    with its attacks, as more attacks find more. Left out are classifiers at chance, those with a masked gradient, and
    those that another one's images fool more than their own.
    """
    fooled_more = {case.classifier for case in worst if case.fooled_more_by}
    own: list[tuple[MeasuredSplit, str]] = []
    for split in splits:
        result = split.made_for
        if result is None or result.total.at_chance or result.masked or result.classifier in fooled_more:
            continue
        own.append((split, result.classifier))
    compared = []
    for split, classifier in own:
        if _source_and_attacks(split) == _source_and_attacks(own[0][0]):
            compared.append((split.name, classifier, split.classifiers[classifier].columns))
    groups: dict[str, list[str]] = {}
    for model in models:
        groups.setdefault(model.training_of or model.name, []).append(model.name)
    return compare_own(compared, groups)


def worst_of_all(splits: list[MeasuredSplit]) -> list[WorstCase]:
    """Return the worst case of each classifier over the splits that were made as the first was, but for the
    classifier."""
    by_fmrgen = [split for split in splits if split.split.provenance is not None]
    columns: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    own: dict[str, str] = {}
    for split in by_fmrgen:
        if _protocol_of(split) != _protocol_of(by_fmrgen[0]):
            continue
        columns[split.name] = {name: classifier.columns for name, classifier in split.classifiers.items()}
        if split.made_for is not None and not split.made_for.total.at_chance:
            own[split.made_for.classifier] = split.name
    return worst_cases(columns, own)


def _protocol_of(split: MeasuredSplit) -> Any:
    """Return all of a split's making but the classifier: splits that are equal in it have images that were found
    alike."""
    provenance = split.split.provenance
    assert provenance is not None
    recipe = dict(provenance.recipe.tree)
    for section in ("description", "output", "classifier"):
        recipe.pop(section, None)
    return recipe, provenance.labels, provenance.weights_sha256.generator, provenance.weights_sha256.oracle


def _source_and_attacks(split: MeasuredSplit) -> Any:
    """Return what decides which image an id is, and how it was attacked; None if it is not on record."""
    provenance = split.split.provenance
    if provenance is None:
        return None
    source = dict(provenance.recipe.source.tree)
    for key in ("on_error", "license", "limit", "per_class", "shuffle_seed"):
        source.pop(key, None)
    return source, provenance.labels, provenance.recipe.perturb.attacks
