"""Classifiers compared over several splits: each on its own, and all on all of them at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fmrgen.results.evaluation import Result
from fmrgen.results.own_splits import OwnComparison, compare_own
from fmrgen.results.worst_case import WorstCase, worst_cases
from fmrgen.split.rows import Classified, NamedClassifier


@dataclass(frozen=True)
class Found:
    """A split, the result of the classifier that it was made for, and what each classifier said, with the ids."""

    passed: Classified
    made_for: Result | None
    of_models: dict[str, dict[str, np.ndarray]]


def compare_own_splits(
    found: list[Found], worst: list[WorstCase], models: list[NamedClassifier]
) -> OwnComparison | None:
    """Those on the source of the first; on another source an id is another image. One that other images fool more than
    its own is compared on these."""
    own = [
        (one, one.made_for.classifier)
        for one in found
        if one.made_for is not None and not (one.made_for.at_chance or one.made_for.masked)
    ]
    alike = [entry for entry in own if _source_of(entry[0].passed) == _source_of(own[0][0].passed)]
    worse = {case.classifier: case.fooled_more_by for case in worst if case.fooled_more_by}
    by_name = {one.passed.split.name: one for one in found}
    compared = []
    for one, classifier in alike:
        shown = by_name[worse.get(classifier, one.passed.split.name)]
        compared.append((shown.passed.split.name, classifier, shown.of_models[classifier]))
    groups: dict[str, list[str]] = {}
    for model in models:
        groups.setdefault(model.training_of or model.name, []).append(model.name)
    return compare_own(compared, groups)


def worst_of_all(found: list[Found]) -> list[WorstCase]:
    """Over the splits that were made as the first was, but for the classifier."""
    alike = [one for one in found if one.passed.split.provenance is not None]
    alike = [one for one in alike if _protocol_of(one.passed) == _protocol_of(alike[0].passed)]
    own = {
        one.made_for.classifier: one.passed.split.name
        for one in alike
        if one.made_for is not None and not one.made_for.at_chance
    }
    return worst_cases({one.passed.split.name: one.of_models for one in alike}, own)


def _protocol_of(passed: Classified) -> Any:
    """What splits have in common whose images are found alike: everything but the classifier."""
    provenance = passed.split.provenance
    assert provenance is not None
    recipe = provenance.recipe.tree
    kept = {name: section for name, section in recipe.items() if name not in ("description", "output", "classifier")}
    return kept, provenance.labels, provenance.weights_sha256.generator, provenance.weights_sha256.oracle


def _source_of(passed: Classified) -> Any:
    provenance = passed.split.provenance
    if provenance is None:
        return None
    tree = provenance.recipe.source.tree
    return {
        name: tree[name] for name in tree.keys() - {"on_error", "license", "limit", "per_class", "shuffle_seed"}
    }, provenance.labels
