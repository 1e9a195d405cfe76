"""What an evaluation found, as data: the schema of `evaluation.json`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from fmrgen.evaluation.corrected import Corrected
from fmrgen.evaluation.fixed_sets import FixedResult
from fmrgen.evaluation.judged import JudgeFigures
from fmrgen.evaluation.own_splits import OwnComparison
from fmrgen.evaluation.rankings import Difference, RankedClassifier
from fmrgen.evaluation.samples import Sample
from fmrgen.evaluation.steps import StepFigures
from fmrgen.evaluation.worst_case import WorstCase
from fmrgen.files import of_schema, read_json
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import Summary

SCHEMA: Literal["fmrgen-evaluation/1"] = "fmrgen-evaluation/1"


@dataclass(frozen=True)
class EvaluatedSplit:
    """A split, whoever looks at it.

    `repo` is the folder or Hub repo that holds it as `config` and `split`, `revision` the commit on the Hub.
    `fingerprint` is its recipe's, `files` that of its files, `classifier_sha256` that of the weights of the classifier
    it was made for. All of these are None where there is none. `iterations` maps a number of guided steps to the valid
    rows that took it, `stop_reasons` a reason to its rows; None where the split has no such column. `notes` say in
    words what a reader of the figures must know. `made_with` tells in words source, classifier, generator, oracle and
    perturbation. `steps` are of its own classifier; None where it keeps none. `judges` are those who looked at it
    besides its oracle, `people_alpha` how far the persons among them agree (Krippendorff's alpha). `valid_by` is the
    judge by whose word rows are valid; None where the oracle's holds. `related` says how its own classifier and its
    oracle are related; None where nothing shows that they are. `missed_by_all` are the ids of the originals that no
    classifier names right; None of fewer than three.
    """

    name: str
    class_names: list[str]
    rows: int
    repo: str | None
    config: str | None
    split: str | None
    revision: str | None
    fingerprint: str | None
    files: str | None
    classifier_sha256: str | None
    iterations: dict[int, int] | None
    stop_reasons: dict[str, int] | None
    notes: list[str]
    steps: StepFigures | None = None
    made_with: dict[str, str] | None = None
    judges: list[JudgeFigures] = field(default_factory=list)
    people_alpha: Estimate | None = None
    valid_by: str | None = None
    missed_by_all: list[int] | None = None
    related: str | None = None


@dataclass(frozen=True)
class EvaluatedClassifier:
    """A classifier: its section where it has one, the sha256 of its weights where it has any, and what it is one of
    several trainings of, where it is."""

    name: str
    section: dict[str, Any] | None
    weights_sha256: str | None
    training_of: str | None = None


@dataclass(frozen=True)
class FailedClassifier:
    """A classifier that could not be measured, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Result:
    """One classifier on one split: over all rows and for each class, in the order of the split's class names.

    `conditioned` marks the classifier that the split was made for: it has the same weights, and says of the stored
    images what the split says it said. `judged` has PA and FMR over the images that still show their class, by the name
    of the judge who says so. `at_chance` says that it is hardly better than guessing on the originals: its
    figures say nothing, and it is ranked nowhere. `masked` says that on its own split the first steps raised its loss
    too seldom for a gradient (see `fmrgen.metrics.cautions.has_masked_gradient`): it is not ranked by that split.
    `rough` says the same of one whose steps fool it far more than random ones all the same: it is ranked.
    """

    split: str
    classifier: str
    conditioned: bool
    total: Summary
    classes: list[Summary]
    notes: list[str]
    judged: dict[str, Corrected] = field(default_factory=dict)
    at_chance: bool = False
    masked: bool = False
    rough: bool = False


@dataclass(frozen=True)
class Comparison:
    """The classifiers on one split: ranked by `measure`, FMR or where there are no originals PA, and each pair, or
    where there are more than 24 each two neighbours.

    The split's own classifier is not ranked: its images were made to fool it, and not the others. Nor is one at chance.
    """

    split: str
    measure: Literal["fmr", "perturbed_accuracy"]
    ranking: list[RankedClassifier]
    differences: list[Difference]


@dataclass(frozen=True, kw_only=True)
class EvaluationResults:
    """Everything of an evaluation that is a figure. Rates are in percent; `results` are row by row of the matrix.

    `own` compares classifiers each on its own split; None where there are no two of one source. `worst` has each
    classifier on all splits that were made alike at once; empty where there are no two. `attack` is the attack
    on pixels that the attacked accuracies are of, in short form. `fixed` are fixed sets beside the splits, all
    classifiers on one after another. `failed` are those that could not be measured.
    """

    schema: Literal["fmrgen-evaluation/1"]
    splits: list[EvaluatedSplit]
    classifiers: list[EvaluatedClassifier]
    results: list[Result]
    comparisons: list[Comparison]
    own: OwnComparison | None = None
    worst: list[WorstCase] = field(default_factory=list)
    attack: str | None = None
    fixed: list[FixedResult] = field(default_factory=list)
    failed: list[FailedClassifier] = field(default_factory=list)

    @property
    def matrix(self) -> list[list[Result]]:
        """The transfer matrix: a row for each split, a column for each classifier, in the order they were given."""
        columns = len(self.classifiers)
        return [self.results[start : start + columns] for start in range(0, len(self.results), columns)]

    def result(self, split: str, classifier: str) -> Result:
        """The result of that name. Raises KeyError where there is none."""
        for result in self.results:
            if (result.split, result.classifier) == (split, classifier):
                return result
        raise KeyError((split, classifier))

    def to_json(self) -> str:
        """The text of `evaluation.json`."""
        tree = asdict(
            EvaluationResults(**{field.name: getattr(self, field.name) for field in fields(EvaluationResults)})
        )
        return json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True, kw_only=True, repr=False)
class EvaluationData(EvaluationResults):
    """The figures, with what they were made of.

    `predictions` has a row for each split, classifier and image: `split`, `classifier`, `id`, `label`, `valid`,
    `original_prediction`, `prediction`; -1 is no answer. `samples` are the rows of each split that a gallery shows.
    """

    predictions: pa.Table
    samples: dict[str, list[Sample]]


def predictions_of(predictions: pa.Table, split: str, classifier: str) -> dict[str, np.ndarray]:
    """Of the predictions of an evaluation those of one classifier on one split, [N] under their names."""
    mine = pc.and_(
        pc.equal(predictions["split"].cast(pa.string()), split),
        pc.equal(predictions["classifier"].cast(pa.string()), classifier),
    )
    found = predictions.filter(mine)
    names = ("id", "label", "valid", "original_prediction", "prediction")
    return {name: found[name].to_numpy(zero_copy_only=False) for name in names}


@dataclass(frozen=True)
class SweepResult:
    """The split of one combination of values in a sweep: these by their keys, its folder's name, its figures."""

    values: Mapping[str, Any]
    name: str
    summary: Summary


def read_figures(path: Path) -> EvaluationResults:
    """The figures of an `evaluation.json`.

    Args:
        path: of the file.

    Returns:
        What `evaluate` found, but for predictions and samples.

    Raises:
        UserError: it is not such a file, or of another schema.
    """
    return of_schema(EvaluationResults, SCHEMA, read_json(path), str(path))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of `evaluation.json`."""
    return TypeAdapter(EvaluationResults).json_schema()
