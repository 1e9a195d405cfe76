"""Predictions made into figures."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from fmrgen.distributed.launch import Sharing
from fmrgen.evaluation.measured import MeasuredSplit, OnSplit
from fmrgen.metrics.cautions import cautions, tightness
from fmrgen.metrics.gradients import JudgedSteps, has_masked_gradient, has_rough_gradient
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.rows import Rows, valid_rows
from fmrgen.metrics.summary import COMPARED, OWN_COLUMNS, Summary, summarise, summarise_classes
from fmrgen.results.evaluation import (
    SCHEMA,
    AfterAttack,
    Comparison,
    EvaluatedClassifier,
    EvaluatedSplit,
    Evaluation,
    FailedClassifier,
    Measure,
    Result,
)
from fmrgen.results.fixed_sets import FixedSetResults
from fmrgen.results.own_splits import OwnComparison, compare_own, fooled_more_by
from fmrgen.results.rankings import difference, pairs_of, rank
from fmrgen.results.steps import step_figures
from fmrgen.split.judged import fmr_by_judge, judge_figures
from fmrgen.storage.made_with import lines_on_models, made_with, related_line
from fmrgen.storage.provenance import RecordedPerturb


def summarise_evaluation(
    models: list[EvaluatedClassifier],
    splits: list[MeasuredSplit],
    processes: Sharing,
    attack: str | None,
    fixed: FixedSetResults,
    failed: list[FailedClassifier],
) -> Evaluation:
    """Return the figures of an evaluation, with the classifiers in the order in which they are shown.

    The splits have the predictions of each classifier, the `processes` share the classifiers, and all return the same.
    `attack` is in short form, if the predictions for attacked originals are among them; `failed` could not be measured.
    """
    results: list[Result] = []
    comparisons = []
    evaluated = []
    tables = list(fixed.predictions)
    for split in splits:
        own_names = list(split.classifiers)[processes.rank :: processes.size]
        by_name: dict[str, Result] = {}
        for share in processes.gather({name: _result(split, name) for name in own_names}):
            by_name |= share
        split_results = [by_name[name] for name in split.classifiers]
        split.made_for = _made_for(split, split_results)
        for model in models:
            tables.append(predictions_table(split.name, model.name, split.classifiers[model.name].columns))
        comparison = _compare(split, split_results)
        results += split_results
        comparisons.append(comparison)
        evaluated.append(_evaluated_split(split, split_results, comparison.measure, models))
    fooled_more = _fooled_more_by_others(splits)
    return Evaluation(
        schema=SCHEMA,
        attack=attack,
        splits=evaluated,
        classifiers=models,
        failed=failed,
        results=results,
        comparisons=comparisons,
        own=_compare_own_splits(splits, fooled_more, models),
        fooled_more=fooled_more,
        fixed=fixed.results,
        predictions=pa.concat_tables(tables),
        samples={split.name: split.samples for split in splits},
    )


def _compare(split: MeasuredSplit, results: list[Result]) -> Comparison:
    """Return the classifiers of a split, compared by FMR, or by PA where there are no originals."""
    measure: Measure = "fmr" if any(result.total.fmr for result in results) else "perturbed_accuracy"
    ranked = [result for result in results if not result.conditioned and not result.total.at_chance]
    summaries = {result.classifier: result.total for result in ranked}
    differences = []
    for first, second in pairs_of(list(split.classifiers), summaries, measure):
        pair = split.classifiers[first].columns, split.classifiers[second].columns
        differences.append(difference(first, second, *pair))
    return Comparison(split.name, measure, rank(summaries, differences, measure), differences)


def _result(split: MeasuredSplit, classifier: str) -> Result:
    """Return the result of a classifier on a split."""
    stored, on_split = split.columns, split.classifiers[classifier]
    own, notes = on_split.columns, [*on_split.notes]
    is_own = _is_own_classifier(on_split, stored, notes)
    if is_own:
        own = own | {name: stored[name] for name in OWN_COLUMNS if name in stored}
    total = summarise(own)
    same = _first_with_its_predictions(classifier, split)
    if same is not None:
        notes.append(f"it gives the same predictions as {same} on every image: they are one network, or copies of it")
    judged = fmr_by_judge(split.judges, own, stored["valid"]) if split.judges else {}
    groups: dict[str, dict[str, Summary]] = {}
    for column, of_column in split.groups.items():
        groups[column] = {}
        for name, rows in of_column.items():
            groups[column][name] = summarise({column: values[rows] for column, values in own.items()})
    steps = _judged_steps(split) if is_own else "none"
    return Result(
        split=split.name,
        classifier=classifier,
        conditioned=is_own,
        total=total,
        classes=summarise_classes(own, len(split.labels)),
        notes=notes,
        judged=judged,
        masked=has_masked_gradient(total, steps),
        rough=has_rough_gradient(total, steps),
        groups=groups,
        bound=tightness(total) if is_own and total.fmr is not None else None,
    )


def _first_with_its_predictions(classifier: str, split: MeasuredSplit) -> str | None:
    """Return the first classifier before this one that has the same predictions for all images."""
    own = split.classifiers[classifier].columns
    kinds = own.keys() & {"prediction", "original_prediction", "attacked_prediction"}
    for name, other in split.classifiers.items():
        if name == classifier:
            return None
        if kinds <= other.columns.keys() and all(np.array_equal(other.columns[kind], own[kind]) for kind in kinds):
            return name
    return None


def _judged_steps(split: MeasuredSplit) -> JudgedSteps:
    """Return which of the split's own steps show whether a gradient is masked; all if nothing is on record."""
    provenance = split.split.provenance
    return "all" if provenance is None else provenance.judged_steps


def _is_own_classifier(on_split: OnSplit, stored: Mapping[str, np.ndarray], notes: list[str]) -> bool:
    """Return whether the split was generated against a classifier; a note says why not, if the weights agree."""
    if not on_split.has_recorded_weights:
        return False
    for name in ("prediction", "original_prediction"):
        if name in stored and name in on_split.columns:
            agreed = float((stored[name] == on_split.columns[name]).mean())
            if agreed < 0.99:
                notes.append(
                    f"it has the weights of the classifier that the split was generated against, but its {name} is the "
                    f"stored one for {agreed:.1%} of the rows only: is its preprocessing another?"
                )
                return False
    return True


def _made_for(split: MeasuredSplit, results: list[Result]) -> Result | None:
    """Return the result of the split's own classifier; of several with its weights, of the one with the recorded
    section."""
    own = [result for result in results if result.conditioned]
    of_section = [result for result in own if split.classifiers[result.classifier].has_recorded_section]
    return next(iter(of_section + own), None)


def _more_fooled(made_for: Result | None, results: list[Result], measure: str) -> list[str]:
    """Return a note if images generated against the split's own classifier fool another more (not one at chance)."""
    figures = {}
    for result in results:
        estimate: Estimate | None = getattr(result.total, measure)
        if estimate is not None and not result.total.at_chance and not result.masked:
            figures[result.classifier] = estimate.value
    if made_for is None or made_for.classifier not in figures:
        return []
    own = made_for.classifier
    lowest = min(figures, key=lambda name: figures[name])
    if figures[lowest] >= figures[own]:
        return []
    return [
        f"{COMPARED[measure].name} of its own classifier {own} ({figures[own]:.1f}) is not the lowest: {lowest} has "
        f"{figures[lowest]:.1f}; either {lowest} is weaker, or the gradients of {own} do not show the way"
    ]


def _evaluated_split(
    measured: MeasuredSplit, results: list[Result], measure: str, models: list[EvaluatedClassifier]
) -> EvaluatedSplit:
    """Return the figures of a split that are no single classifier's."""
    split, provenance, stored = measured.split, measured.split.provenance, measured.columns
    figures = EvaluatedSplit(
        name=split.name,
        class_names=list(measured.labels.names),
        rows=len(stored["label"]),
        repo=split.repo,
        config=split.config,
        split=split.split,
        revision=split.revision,
        fingerprint=None,
        files=None,
        classifier_sha256=None,
        iterations=_counted(stored["iterations"][valid_rows(stored)]) if "iterations" in stored else None,
        stop_reasons=_counted(stored["stop_reason"]) if "stop_reason" in stored else None,
        notes=measured.notes + _more_fooled(measured.made_for, results, measure) + _notes_on_split(measured),
    )
    if provenance is None:
        return figures
    digests = {model.name: model.weights_sha256 for model in models}
    perturb = provenance.recipe.perturb
    return replace(
        figures,
        fingerprint=provenance.fingerprint,
        files=provenance.files_digest,
        classifier_sha256=provenance.weights_sha256.classifier,
        made_with=made_with(provenance),
        steps=step_figures(stored, perturb.budget, perturb.min_probability),
        related=related_line(provenance),
        attacks=_attacks_of(perturb, stored),
        judges=[judge_figures(judge, stored, provenance, digests) for judge in measured.judges],
    )


def _notes_on_split(measured: MeasuredSplit) -> list[str]:
    """Return what a reader of a split's figures must know, in words."""
    notes = []
    made_for = measured.made_for
    if made_for is not None and not made_for.total.at_chance:  # which a warning says of all such classifiers
        notes += cautions(made_for.total, steps=_judged_steps(measured))
        classes = zip(measured.labels.names, made_for.classes, strict=True)
        empty = [name for name, summary in classes if summary.rows and not summary.valid_rows]
        if empty:
            few = [name.partition(",")[0] for name in empty[:5]]
            if len(empty) > len(few):
                few.append("…")
            notes.append(f"{len(empty)} classes have no valid row: {', '.join(few)}")
    provenance = measured.split.provenance
    if provenance is not None:
        notes += lines_on_models(provenance)
    if "valid" not in measured.columns:
        notes.append("there is no column valid: all rows count in PA, and VR is not known")
    if provenance is not None and not measured.split.has_own_classes:
        notes.append("its label names are not those of its provenance, so its stored predictions are not used")
    return notes


def _attacks_of(perturb: RecordedPerturb, columns: dict[str, np.ndarray]) -> list[AfterAttack]:
    """Return the figures after each attack; none for one attack, or if rows do not fit the recipe."""
    figures = Rows(columns).after_each_attack()
    if perturb.attacks == "one" or len(figures) > len(perturb.attacks):
        return []
    fooled = columns["attack"][columns["valid"] & (columns["prediction"] != columns["label"])]
    attacks = []
    for number, (attack, fmr) in enumerate(zip(perturb.attacks, figures, strict=False)):
        attacks.append(AfterAttack(attack.name, int((fooled == number).sum()), fmr))
    return attacks


def _counted(values: np.ndarray) -> dict[Any, int]:
    return dict(sorted(Counter(values.tolist()).items()))


def _compare_own_splits(
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


def _fooled_more_by_others(splits: list[MeasuredSplit]) -> dict[str, str]:
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


def predictions_table(split: str, classifier: str, columns: Mapping[str, np.ndarray]) -> pa.Table:
    """Return a classifier's predictions row by row, as `Evaluation.predictions` has them.

    `columns` are those of its summary; those that are not there are null, and without ids rows are numbered.
    """
    rows = len(columns["label"])
    zeros = pa.array(np.zeros(rows, np.int32))
    arrays = {
        "split": pa.DictionaryArray.from_arrays(zeros, pa.array([split])),
        "classifier": pa.DictionaryArray.from_arrays(zeros, pa.array([classifier])),
        "id": pa.array(columns.get("id", np.arange(rows)), pa.int64()),
    }
    for name in ("label", "valid", "original_prediction", "prediction"):
        kind = pa.bool_() if name == "valid" else pa.int32()
        arrays[name] = pa.array(columns[name]).cast(kind) if name in columns else pa.nulls(rows, kind)
    return pa.table(arrays)
