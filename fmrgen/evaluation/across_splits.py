"""Classifiers compared over several splits: each on its own, and whether another one's images fool it more."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fmrgen.evaluation.measured import MeasuredSplit
from fmrgen.results.evaluation import EvaluatedClassifier
from fmrgen.results.own_splits import OwnComparison, compare_own, fooled_more_by


def compare_own_splits(
    splits: list[MeasuredSplit], fooled_more: Mapping[str, str], models: list[EvaluatedClassifier]
) -> OwnComparison | None:
    """Return classifiers compared, each on its own split.

    Only splits on the source of the first are compared, as an id is another image on another source, and only those
    with its attacks, as more attacks find more. Left out are classifiers at chance, those with a masked gradient, and
    those that another one's images fool more than their own.
    """
    compared: list[tuple[str, str, Mapping[str, np.ndarray]]] = []
    first = None
    for split in splits:
        result = split.made_for
        if result is None or result.total.at_chance or result.masked or result.classifier in fooled_more:
            continue
        first = first or split
        if _source_and_attacks(split) == _source_and_attacks(first):
            compared.append((split.name, result.classifier, split.classifiers[result.classifier].columns))
    groups: dict[str, list[str]] = {}
    for model in models:
        groups.setdefault(model.training_of or model.name, []).append(model.name)
    return compare_own(compared, groups)


def fooled_more_by_others(splits: list[MeasuredSplit]) -> dict[str, str]:
    """Return the classifiers that another one's split fools more than their own, each with that split.

    The splits were generated as the first was, but for the classifier.
    """
    by_fmrgen = [split for split in splits if split.split.provenance is not None]
    alike = [split for split in by_fmrgen if _protocol_of(split) == _protocol_of(by_fmrgen[0])]
    fooled_more = {}
    for split in alike:
        if split.made_for is not None and not split.made_for.total.at_chance:
            name = split.made_for.classifier
            others = {other.name: other.classifiers[name].columns for other in alike if other is not split}
            more = fooled_more_by(split.classifiers[name].columns, others)
            if more is not None:
                fooled_more[name] = more
    return fooled_more


def _protocol_of(split: MeasuredSplit) -> Any:
    """Return all of a split's making but the classifier: splits that are equal in it have images that were found
    alike."""
    provenance = split.split.provenance
    assert provenance is not None
    others = ("description", "output", "classifier")
    recipe = {name: section for name, section in provenance.recipe.tree.items() if name not in others}
    return recipe, provenance.labels, provenance.weights_sha256.generator, provenance.weights_sha256.oracle


def _source_and_attacks(split: MeasuredSplit) -> Any:
    """Return what decides which image an id is, and how it was attacked; None if it is not on record."""
    provenance = split.split.provenance
    if provenance is None:
        return None
    others = ("on_error", "license", "limit", "per_class", "shuffle_seed")
    source = {key: value for key, value in provenance.recipe.source.tree.items() if key not in others}
    return source, provenance.labels, provenance.recipe.perturb.attacks
