"""Classifiers compared over several splits: each on its own, and all on all of them at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fmrgen.evaluation.classified import Classified
from fmrgen.results.evaluation import EvaluatedClassifier, Result
from fmrgen.results.own_splits import OwnComparison, compare_own
from fmrgen.results.worst_case import WorstCase, worst_cases


@dataclass(frozen=True)
class Outcome:
    """A split after its evaluation.

    Attributes:
        classified: the split with its classifiers' answers.
        made_for: the result of the classifier that it was made for; None if that is not among them.
        columns: the columns of each classifier's summary, and the ids, by its name.
    """

    classified: Classified
    made_for: Result | None
    columns: dict[str, dict[str, np.ndarray]]

    @property
    def name(self) -> str:
        return self.classified.split.name


def compare_own_splits(
    outcomes: list[Outcome], worst: list[WorstCase], models: list[EvaluatedClassifier]
) -> OwnComparison | None:
    """Return classifiers compared, each on its own split.

    Only splits on the source of the first are compared, as an id is another image on another source, and only those
    with its attacks, as more attacks find more. Left out are classifiers at chance, those with a masked gradient, and
    those that another one's images fool more than their own.
    """
    fooled_more = {case.classifier for case in worst if case.fooled_more_by}
    own: list[tuple[Outcome, str]] = []
    for outcome in outcomes:
        result = outcome.made_for
        if result is None or result.at_chance or result.masked or result.classifier in fooled_more:
            continue
        own.append((outcome, result.classifier))
    compared = []
    for outcome, classifier in own:
        if _source_and_attacks(outcome.classified) == _source_and_attacks(own[0][0].classified):
            compared.append((outcome.name, classifier, outcome.columns[classifier]))
    groups: dict[str, list[str]] = {}
    for model in models:
        groups.setdefault(model.training_of or model.name, []).append(model.name)
    return compare_own(compared, groups)


def worst_of_all(outcomes: list[Outcome]) -> list[WorstCase]:
    """Return the worst case of each classifier over the splits that were made as the first was, but for the
    classifier."""
    by_fmrgen = [outcome for outcome in outcomes if outcome.classified.split.provenance is not None]
    columns: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    own: dict[str, str] = {}
    for outcome in by_fmrgen:
        if _protocol_of(outcome.classified) != _protocol_of(by_fmrgen[0].classified):
            continue
        columns[outcome.name] = outcome.columns
        if outcome.made_for is not None and not outcome.made_for.at_chance:
            own[outcome.made_for.classifier] = outcome.name
    return worst_cases(columns, own)


def _protocol_of(classified: Classified) -> Any:
    """Return all of a split's making but the classifier: splits that are equal in it have images that were found
    alike."""
    provenance = classified.split.provenance
    assert provenance is not None
    recipe = dict(provenance.recipe.tree)
    for section in ("description", "output", "classifier"):
        recipe.pop(section, None)
    return recipe, provenance.labels, provenance.weights_sha256.generator, provenance.weights_sha256.oracle


def _source_and_attacks(classified: Classified) -> Any:
    """Return what decides which image an id is, and how it was attacked; None if it is not on record."""
    provenance = classified.split.provenance
    if provenance is None:
        return None
    source = dict(provenance.recipe.source.tree)
    for key in ("on_error", "license", "limit", "per_class", "shuffle_seed"):
        source.pop(key, None)
    return source, provenance.labels, provenance.recipe.perturb.attacks
