"""The results of an evaluation as data: what `evaluation.json` holds, tables for a notebook and pandas."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict

from fmrgen.errors import UserError
from fmrgen.files import json_text, of_schema, read_json
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import BY_FIELD, MAIN_METRICS, METRICS, Summary
from fmrgen.results.fixed_sets import FixedResult
from fmrgen.results.judges import JudgeFigures
from fmrgen.results.own_splits import OwnComparison
from fmrgen.results.paper_tables import Blocks, Cell, cell, latex_table, markdown_table, metrics_named
from fmrgen.results.rankings import Difference, RankedClassifier
from fmrgen.results.samples import Sample
from fmrgen.results.steps import StepFigures

if TYPE_CHECKING:
    from pandas import DataFrame

Measure = Literal["fmr", "perturbed_accuracy"]  # that ranks the classifiers of a split
SCHEMA: Literal["fmrgen-evaluation/2"] = "fmrgen-evaluation/2"
_NOT_FIGURES = ("predictions", "samples")
_IN_SHORT = ("fmr", "standard_accuracy", "perturbed_accuracy", "validation_rate")


@dataclass(frozen=True)
class EvaluatedSplit:
    """A split, independent of the classifiers that are measured on it.

    Attributes:
        name: in this evaluation.
        class_names: in the order of the labels.
        rows: number of rows.
        repo: the folder or Hub repo that holds it; None if there is none.
        config: its config there; None if there is none.
        split: its split there; None if there is none.
        revision: the commit on the Hub; None if it is not from there.
        fingerprint: of its recipe; None if it has none.
        files: fingerprint of its files; None if it has none.
        classifier_sha256: of the weights of the classifier that it was generated against; None if there are none.
        iterations: the number of valid rows by the guided steps that they took; None without such a column.
        stop_reasons: the number of rows by their stop reason; None without such a column.
        notes: sentences that a reader of the figures must know.
        steps: step figures of its own classifier; None if it keeps no steps.
        made_with: source, classifier, generator, oracle and perturbation in words.
        judges: the judges who looked at it, other than its oracle.
        related: how its own classifier and its oracle are related; None if nothing shows that they are.
        attacks: figures of its own classifier after each of several attacks; empty if there was one.
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
    related: str | None = None
    attacks: list["AfterAttack"] = field(default_factory=list)


@dataclass(frozen=True)
class AfterAttack:
    """A split's own classifier after one more attack on each image that no earlier one has fooled it with."""

    attack: str  # its name
    fooled: int  # number of rows that it is the first to fool
    fmr: Estimate | None  # after it, in percent


@dataclass(frozen=True)
class EvaluatedClassifier:
    """A classifier that was measured.

    Attributes:
        name: in this evaluation.
        section: of a recipe, that builds it; None if it has none.
        weights_sha256: of its weights; None if it has none.
        training_of: the name that several trainings share; None if it is not one of several.
    """

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
    """One classifier on one split.

    Attributes:
        split: its name.
        classifier: its name.
        conditioned: whether the split was generated against this classifier: it has the same weights, and predicts for
            the stored images what the split records.
        total: figures over all rows.
        classes: figures of each class, in the order of the split's class names.
        notes: sentences that a reader of the figures must know.
        judged: FMR with PA over the images in which a judge sees the label, by the judge's name.
        masked: whether on its own split the first steps raised its loss too seldom for a gradient (see
            `fmrgen.metrics.gradients.has_masked_gradient`): it is not ranked by that split.
        rough: whether they did, but guided steps fool it far more than random ones: it is not masked, and is ranked.
        groups: figures of the rows of each group, by the column that groups them and the group's name.
        bound: in words, how tight an upper bound the FMR of the split's own classifier is; None for others.
    """

    split: str
    classifier: str
    conditioned: bool
    total: Summary
    classes: list[Summary]
    notes: list[str]
    judged: dict[str, Estimate | None] = field(default_factory=dict)
    masked: bool = False
    rough: bool = False
    groups: dict[str, dict[str, Summary]] = field(default_factory=dict)
    bound: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The classifiers on one split, ranked and compared.

    The split's own classifier is not ranked: its images were generated to fool it alone. Nor is one at chance.

    Attributes:
        split: its name.
        measure: the figure that ranks them: FMR, or PA if there are no originals.
        ranking: the classifiers by falling `measure`.
        differences: of each pair; of more than 24 classifiers, of each two neighbours in the ranking.
    """

    split: str
    measure: Measure
    ranking: list[RankedClassifier]
    differences: list[Difference]


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation:
    """The results of `evaluate`: figures, and what they were computed from. Rates are in percent.

    Attributes:
        schema: of `evaluation.json`, which holds all but `predictions` and `samples`.
        splits: the splits that were evaluated.
        classifiers: the classifiers that were measured.
        results: one for each split and classifier, row by row of the matrix.
        comparisons: the classifiers on each split.
        own: classifiers each on its own split; None unless two or more are of one source.
        fooled_more: classifiers that another one's split fools more than their own, with that split.
        attack: the attack on pixels behind the attacked accuracies, in short form.
        fixed: results on fixed sets, for one set after another all classifiers.
        failed: classifiers that could not be measured.
        predictions: a row for each split, classifier and image: `split`, `classifier`, `id`, `label`, `valid`,
            `original_prediction`, `prediction`; -1 is an output that is not finite. None if read from a file.
        samples: rows of each split that a gallery shows, by the split's name.
    """

    schema: Literal["fmrgen-evaluation/2"]
    splits: list[EvaluatedSplit]
    classifiers: list[EvaluatedClassifier]
    results: list[Result]
    comparisons: list[Comparison]
    own: OwnComparison | None = None
    fooled_more: dict[str, str] = field(default_factory=dict)
    attack: str | None = None
    fixed: list[FixedResult] = field(default_factory=list)
    failed: list[FailedClassifier] = field(default_factory=list)
    predictions: pa.Table | None = None
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)  # a table of pyarrow

    @property
    def matrix(self) -> list[list[Result]]:
        """Return the transfer matrix: a row for each split, a column for each classifier, in the order of both."""
        columns = len(self.classifiers)
        return [self.results[start : start + columns] for start in range(0, len(self.results), columns)]

    def result(self, split: str, classifier: str) -> Result:
        """Return the result of a classifier on a split, by their names. Raises KeyError if there is none."""
        for result in self.results:
            if (result.split, result.classifier) == (split, classifier):
                return result
        raise KeyError((split, classifier))

    def checked_predictions(self) -> pa.Table:
        """Return `predictions`. Raises UserError if there are figures alone."""
        if self.predictions is None:
            raise UserError("these figures were read from a file and have no predictions; run evaluate again")
        return self.predictions

    def predictions_of(self, split: str, classifier: str) -> dict[str, np.ndarray]:
        """Return the predictions of one classifier on one split, [N] under the names of their columns.

        Raises UserError if there are figures alone.
        """
        predictions = self.checked_predictions()
        is_split = pc.equal(predictions["split"].cast(pa.string()), split)
        is_classifier = pc.equal(predictions["classifier"].cast(pa.string()), classifier)
        rows = predictions.filter(pc.and_(is_split, is_classifier))
        names = ("id", "label", "valid", "original_prediction", "prediction")
        return {name: rows[name].to_numpy(zero_copy_only=False) for name in names}

    def to_tree(self) -> dict[str, Any]:
        """Return the figures as `evaluation.json` has them: lists and dictionaries."""
        tree = asdict(replace(self, predictions=None, samples={}))
        return {name: value for name, value in tree.items() if name not in _NOT_FIGURES}

    def to_json(self) -> str:
        """Return the text of `evaluation.json`."""
        return json_text(self.to_tree(), strict=True)

    def to_frame(self) -> "DataFrame":
        """Return the figures as a table of pandas, a row for each split and classifier.

        Returns:
            Columns `split`, `classifier`, `own` (whether the split was generated against it), `rows`, `valid_rows`, and
            for each figure three: its value, `…_low` and `…_high`, the ends of its 95 % interval. Rates are in percent;
            a missing figure is NaN.
        """
        return _frame([_names(result) | _figures(result.total) for result in self.results])

    def per_class(self) -> "DataFrame":
        """Return `to_frame` with a row for each split, classifier and class, whose name is in the column `class`."""
        class_names = {split.name: split.class_names for split in self.splits}
        rows = []
        for result in self.results:
            for class_name, summary in zip(class_names[result.split], result.classes, strict=True):
                rows.append({**_names(result), "class": class_name, **_figures(summary)})
        return _frame(rows)

    def per_group(self) -> "DataFrame":
        """Return `to_frame` with a row for each split, classifier and group of `by`.

        The columns `by` and `group` name what the rows are grouped by, and the group.
        """
        rows = []
        for result in self.results:
            for column, groups in result.groups.items():
                for group, summary in groups.items():
                    rows.append({**_names(result), "by": column, "group": group, **_figures(summary)})
        return _frame(rows)

    def per_step(self) -> "DataFrame":
        """Return the figures that a smaller budget would have given, for each split's own classifier.

        Returns:
            Columns `split`, `budget`, and `perturbed_accuracy` and `fmr` with their intervals; no rows for splits that
            keep no steps.
        """
        rows = []
        for split in self.splits:
            for at in [] if split.steps is None else split.steps.budgets:
                figures = _ends({"perturbed_accuracy": at.perturbed_accuracy, "fmr": at.fmr})
                rows.append({"split": split.name, "budget": at.budget, **figures})
        return _frame(rows, ["split", "budget", *_ends({"perturbed_accuracy": None, "fmr": None})])

    def to_latex(self, figures: Sequence[str] = ()) -> str:
        """Return a table for a paper, in LaTeX with the rules of booktabs.

        Args:
            figures: its columns, by their names in `to_frame`; by default SA, PA and FMR.

        Returns:
            A `tabular` with a row for each classifier on its own split, the most robust first, if there are two or more
            such; else for each classifier on each split. Percent, with 95 % intervals. Several trainings, without
            `figures`, are one row: the mean of their FMR and its standard deviation.

        Raises:
            UserError: there is no figure of a name.
        """
        return latex_table(*self._paper_table(figures))

    def to_markdown(self, figures: Sequence[str] = ()) -> str:
        """Return the same table as `to_latex`, in Markdown."""
        return markdown_table(*self._paper_table(figures))

    def _paper_table(self, figures: Sequence[str]) -> tuple[list[str], Blocks]:
        """Return header and rows of a paper's table: ways to train, each classifier on its own split, or all on each
        split."""
        metrics = metrics_named(figures or [metric.field for metric in MAIN_METRICS])
        header = ["classifier", *(metric.name for metric in metrics)]

        def row(result: Result) -> tuple[str, list[Cell]]:
            return result.classifier, [cell(result.total[metric]) for metric in metrics]

        if self.own is not None and self.own.trainings is not None and not figures:
            rows = []
            for group in self.own.trainings.groups:
                deviation = "n/a" if group.deviation is None else f"{group.deviation:.1f}"
                rows.append((group.name, [(f"{len(group.fmr)}", ""), cell(group.mean), (deviation, "")]))
            return ["trainings of", "trainings", "mean FMR", "standard deviation"], {"": rows}
        if self.own is not None:
            return header, {"": [row(self.result(place.split, place.classifier)) for place in self.own.ranking]}
        blocks = {}
        for split, results in zip(self.splits, self.matrix, strict=True):
            blocks[split.name if len(self.splits) > 1 else ""] = list(map(row, results))
        return header, blocks

    def __repr__(self) -> str:
        return f"{self._in_short().to_string(index=False)}\n{self._reading()}"

    def _repr_html_(self) -> str:
        return f"{self._in_short().to_html(index=False, border=0)}<p>{self._reading()}</p>"

    def _reading(self) -> str:
        reading = "percent, with 95 % intervals"
        if any(result.conditioned for result in self.results):
            reading += "; ◆ the classifier that the split was generated against, which is not ranked there"
        if self.own is not None:
            ranks = [f"{place.classifier} {place.ranks}" for place in self.own.ranking]
            reading += f"\nranks on their own splits, with 95 % confidence for all at once: {', '.join(ranks)}"
        return reading

    def _in_short(self) -> "DataFrame":
        """Return the main figures, the classifiers of each split by its ranking."""
        totals = [result.total for result in self.results]
        metrics = [metric for metric in map(BY_FIELD.__getitem__, _IN_SHORT) if any(map(itemgetter(metric), totals))]
        rows = []
        for comparison, results in zip(self.comparisons, self.matrix, strict=True):
            ranks = {}
            order = {result.classifier: 0 for result in results if result.conditioned}  # first, and without a rank
            for place in comparison.ranking:
                tied = " (tied with the next)" if place.tied_with_next else ""
                ranks[place.classifier] = f"{place.rank}{tied}"
                order.setdefault(place.classifier, place.rank)
            for result in sorted(results, key=lambda result: order.get(result.classifier, math.inf)):
                name = result.classifier + (" ◆" if result.conditioned else "")
                row = {"split": result.split, "classifier": name, "rank": ranks.get(result.classifier, "")}
                rows.append(row | {metric.name: result.total.text_of(metric) for metric in metrics})
        return _frame(rows)


def read_figures(path: Path) -> Evaluation:
    """Return the figures of an `evaluation.json`.

    Args:
        path: of the file.

    Returns:
        The results of `evaluate`, without predictions and samples.

    Raises:
        UserError: it is not such a file, or has another schema.
    """
    figures = {name: value for name, value in read_json(path).items() if name not in _NOT_FIGURES}
    return of_schema(Evaluation, SCHEMA, figures, str(path))


def _frame(rows: list[dict[str, Any]], columns: list[str] | None = None) -> "DataFrame":
    from pandas import DataFrame  # which a look at figures does not need

    return DataFrame(rows, columns=columns)


def _names(result: Result) -> dict[str, Any]:
    return {"split": result.split, "classifier": result.classifier, "own": result.conditioned}


def _figures(summary: Summary) -> dict[str, Any]:
    figures = {metric.field: summary[metric] for metric in METRICS}
    return {"rows": summary.rows, "valid_rows": summary.valid_rows, **_ends(figures)}


def _ends(estimates: dict[str, Estimate | None]) -> dict[str, float]:
    """Return each estimate under its name, followed by the ends of its interval; NaN for what is missing."""
    columns = {}
    for name, estimate in estimates.items():
        value, low, high = (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
        for column, number in ((name, value), (f"{name}_low", low), (f"{name}_high", high)):
            columns[column] = float("nan") if number is None else number
    return columns
