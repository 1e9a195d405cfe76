"""What an evaluation found, as data: the schema of `evaluation.json`, tables for a notebook and pandas."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict, TypeAdapter
from pydantic.json_schema import SkipJsonSchema

from fmrgen.errors import UserError
from fmrgen.files import of_schema, read_json
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import METRICS, Summary
from fmrgen.results.corrected import Corrected
from fmrgen.results.fixed_sets import FixedResult
from fmrgen.results.judges import JudgeFigures
from fmrgen.results.own_splits import OwnComparison
from fmrgen.results.rankings import Difference, RankedClassifier
from fmrgen.results.samples import Sample
from fmrgen.results.steps import StepFigures
from fmrgen.results.worst_case import WorstCase

if TYPE_CHECKING:
    from pandas import DataFrame

    from fmrgen import Plot

SCHEMA: Literal["fmrgen-evaluation/1"] = "fmrgen-evaluation/1"
_NOT_FIGURES = ("predictions", "samples")
_IN_SHORT = ("fmr", "standard_accuracy", "perturbed_accuracy", "validation_rate")


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


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation:
    """What `evaluate` found: figures, and what they were made of. Rates are in percent.

    Attributes:
        schema: of `evaluation.json`, which holds all but `predictions` and `samples`.
        splits: those that were evaluated.
        classifiers: those that were measured.
        results: one for each split and classifier, row by row of the matrix.
        comparisons: the classifiers on each split.
        own: classifiers each on its own split; None where there are no two of one source.
        worst: each classifier on all splits that were made alike at once; empty where there are no two.
        attack: on pixels that the attacked accuracies are of, in short form.
        fixed: fixed sets beside the splits, all classifiers on one after another.
        failed: classifiers that could not be measured.
        predictions: a row for each split, classifier and image: `split`, `classifier`, `id`, `label`, `valid`,
            `original_prediction`, `prediction`; -1 is no answer. None where the figures were read from a file.
        samples: rows of each split that a gallery shows, by its name.
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
    predictions: SkipJsonSchema[pa.Table | None] = None
    samples: SkipJsonSchema[dict[str, list[Sample]]] = field(default_factory=dict)

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)  # a table of pyarrow

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

    def checked_predictions(self) -> pa.Table:
        """Return `predictions`. Raises UserError where these are figures alone."""
        if self.predictions is None:
            raise UserError("these figures were read from a file and have no predictions; run evaluate again")
        return self.predictions

    def predictions_of(self, split: str, classifier: str) -> dict[str, np.ndarray]:
        """Return the predictions of one classifier on one split, [N] under the names of their columns.

        Raises UserError where these are figures alone.
        """
        predictions = self.checked_predictions()
        is_split = pc.equal(predictions["split"].cast(pa.string()), split)
        is_classifier = pc.equal(predictions["classifier"].cast(pa.string()), classifier)
        rows = predictions.filter(pc.and_(is_split, is_classifier))
        names = ("id", "label", "valid", "original_prediction", "prediction")
        return {name: rows[name].to_numpy(zero_copy_only=False) for name in names}

    def to_json(self) -> str:
        """The text of `evaluation.json`."""
        tree = asdict(replace(self, predictions=None, samples={}))
        for name in _NOT_FIGURES:
            del tree[name]
        return json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def to_frame(self) -> "DataFrame":
        """The figures as pandas has them: a row for each split and classifier.

        Returns:
            Columns `split`, `classifier`, `own` (whether the split was made for it), `rows`, `valid_rows`, and for each
            figure three: its value, `…_low` and `…_high`, the ends of its 95 % interval. Rates are in percent; a figure
            that is not known is NaN.
        """
        from pandas import DataFrame

        return DataFrame(
            [
                {"split": r.split, "classifier": r.classifier, "own": r.conditioned, **_figures(r.total)}
                for r in self.results
            ]
        )

    def per_class(self) -> "DataFrame":
        """`to_frame`, with a row for each split, classifier and class, whose name is in the column `class`."""
        from pandas import DataFrame

        names = {split.name: split.class_names for split in self.splits}
        return DataFrame(
            [
                {
                    "split": r.split,
                    "classifier": r.classifier,
                    "own": r.conditioned,
                    "class": name,
                    **_figures(summary),
                }
                for r in self.results
                for name, summary in zip(names[r.split], r.classes, strict=True)
            ]
        )

    def per_step(self) -> "DataFrame":
        """What a smaller budget would have given, for each split's own classifier.

        Returns:
            Columns `split`, `budget`, and `perturbed_accuracy` and `fmr` with their intervals; no rows for splits that
            keep no steps.
        """
        from pandas import DataFrame

        wanted = ("perturbed_accuracy", "fmr")
        rows = [
            {"split": split.name, "budget": at.budget, **_ends({name: getattr(at, name) for name in wanted})}
            for split in self.splits
            for at in (split.steps.budgets if split.steps else ())
        ]
        return DataFrame(rows, columns=["split", "budget", *_ends(dict.fromkeys(wanted))])

    def figure(self, name: str) -> "Plot":
        """One of the report's plots, as a figure of matplotlib to go on with.

        Args:
            name: `fmr`, `accuracy`, `families`, `transfer`, `iterations`, `classes`, `models`, and of splits that
                keep their steps `budgets`, `thresholds`, `failures` and `classes-by-budget`.

        Returns:
            The figure; `save("fmr.pdf")` writes it, its fonts embedded.

        Raises:
            UserError: there is no plot of that name, or these figures do not allow it.
        """
        from fmrgen import figure  # the public name: drawing stands above these data

        return figure(self, name)

    def __repr__(self) -> str:
        return f"{self._in_short().to_string(index=False)}\n{self._reading()}"

    def _repr_html_(self) -> str:
        return f"{self._in_short().to_html(index=False, border=0)}<p>{self._reading()}</p>"

    def _reading(self) -> str:
        marked = any(result.conditioned for result in self.results)
        return "percent, with 95 % intervals" + ("; ◆ the classifier that the split was made for" if marked else "")

    def _in_short(self) -> "DataFrame":
        from pandas import DataFrame

        known = [
            metric
            for field in _IN_SHORT
            for metric in METRICS
            if metric.field == field and any(result.total[metric] for result in self.results)
        ]
        return DataFrame(
            [
                {
                    "split": result.split,
                    "classifier": result.classifier + (" ◆" if result.conditioned else ""),
                    **{metric.name: result.total.text_of(metric) for metric in known},
                }
                for result in self.results
            ]
        )


def read_figures(path: Path) -> Evaluation:
    """The figures of an `evaluation.json`.

    Args:
        path: of the file.

    Returns:
        What `evaluate` found, but for predictions and samples.

    Raises:
        UserError: it is not such a file, or of another schema.
    """
    tree = read_json(path)
    figures = {name: value for name, value in tree.items() if name not in _NOT_FIGURES}
    return of_schema(Evaluation, SCHEMA, figures, str(path))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of `evaluation.json`."""
    return TypeAdapter(Evaluation).json_schema()


def _figures(summary: Summary) -> dict[str, Any]:
    figures = {metric.field: summary[metric] for metric in METRICS}
    return {"rows": summary.rows, "valid_rows": summary.valid_rows, **_ends(figures)}


def _ends(estimates: dict[str, Estimate | None]) -> dict[str, float]:
    """Each estimate under its name, and the ends of its interval beside it."""
    nan = float("nan")
    found = {}
    for name, estimate in estimates.items():
        found[name] = nan if estimate is None else estimate.value
        for end in ("low", "high"):
            value = None if estimate is None else getattr(estimate, end)
            found[f"{name}_{end}"] = nan if value is None else value
    return found
