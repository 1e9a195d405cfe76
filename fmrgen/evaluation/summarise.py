"""Predictions made into figures."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from fmrgen.distributed.launch import Sharing
from fmrgen.errors import UserError
from fmrgen.evaluation.across_splits import Outcome, compare_own_splits, worst_of_all
from fmrgen.evaluation.classified import Answered, Classified
from fmrgen.evaluation.missed import about_missed, missed_by_all, samples_of
from fmrgen.metrics.cautions import cautions, is_at_chance, outputs_in_another_order
from fmrgen.metrics.gradients import JudgedSteps, has_masked_gradient, has_rough_gradient
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.rows import Rows
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
from fmrgen.results.rankings import difference, error_consistency, pairs_of, rank
from fmrgen.results.steps import step_figures
from fmrgen.split.classify import KeptAnswers
from fmrgen.split.judged import corrected_by, judge_figures, people_alpha
from fmrgen.storage.made_with import lines_on_models, made_with, related_line
from fmrgen.storage.provenance import Provenance, RecordedPerturb

_OF_SURENESS = ("confidence", "in_top5")
_SAME_ANSWERS = 0.99  # of the rows: what the split's own classifier must say again of the stored images
_NAMED = 5  # classes in a note


def summarise_evaluation(
    models: list[EvaluatedClassifier],
    classified: list[Classified],
    processes: Sharing,
    attack: str | None = None,
    fixed: FixedSetResults | None = None,
    failed: list[FailedClassifier] | None = None,
) -> Evaluation:
    """Return the figures of an evaluation.

    Args:
        models: the classifiers, in the order in which they are shown.
        classified: the splits, with the answers of each classifier.
        processes: share the classifiers, and all return the same.
        attack: in short form, if the answers to attacked originals are among them.
        fixed: the classifiers' results on fixed sets.
        failed: classifiers that could not be measured.
    """
    results: list[Result] = []
    comparisons: list[Comparison] = []
    splits: list[EvaluatedSplit] = []
    outcomes: list[Outcome] = []
    tables: list[pa.Table] = [] if fixed is None else list(fixed.predictions)
    for split in classified:
        outcome, split_results = _measure(split, models, processes)
        for model in models:
            columns = outcome.columns[model.name]
            tables.append(predictions_table(outcome.name, model.name, columns, _counted_columns(split)))
        comparison = _compare(outcome, split_results)
        results += split_results
        outcomes.append(outcome)
        comparisons.append(comparison)
        splits.append(_evaluated_split(outcome, split_results, comparison.measure, models))
    worst = worst_of_all(outcomes)
    return Evaluation(
        schema=SCHEMA,
        attack=attack,
        splits=splits,
        classifiers=models,
        failed=failed or [],
        results=results,
        comparisons=comparisons,
        own=compare_own_splits(outcomes, worst, models),
        worst=worst,
        fixed=[] if fixed is None else fixed.results,
        predictions=pa.concat_tables(tables),
        samples={split.split.name: split.samples for split in classified},
    )


def _counted_columns(classified: Classified) -> dict[str, np.ndarray]:
    """Return the split's columns, with the rows valid that a judge takes for valid, if one was named."""
    columns = classified.columns
    return columns if classified.valid is None else {**columns, "valid": classified.valid}


def _measure(
    classified: Classified, models: list[EvaluatedClassifier], processes: Sharing
) -> tuple[Outcome, list[Result]]:
    """Return the results of all classifiers on a split, and what comparisons need of it."""
    stored = classified.columns
    counted = _counted_columns(classified)
    columns, own_share = {}, {}
    for number, model in enumerate(models):
        own = _columns_of(classified, counted, model.name)
        if number % processes.size == processes.rank:
            own_share[model.name] = _result(classified, model.name, own, stored)
        if "id" in stored:
            own = {**own, "id": stored["id"]}
        columns[model.name] = own
    by_name: dict[str, Result] = {}
    for share in processes.gather(own_share):
        by_name |= share
    results = [by_name[model.name] for model in models]
    return Outcome(classified, _made_for(classified, results), columns), results


def _compare(outcome: Outcome, results: list[Result]) -> Comparison:
    """Return the classifiers of a split, compared by FMR, or by PA where there are no originals."""
    measure: Measure = "perturbed_accuracy"
    if any(result.total.fmr for result in results):
        measure = "fmr"
    summaries = {}
    for result in results:
        if not result.conditioned and not result.at_chance:
            summaries[result.classifier] = result.total
    differences = []
    for first, second in pairs_of(list(outcome.columns), summaries, measure):
        pair = outcome.columns[first], outcome.columns[second]
        differences.append(replace(difference(first, second, *pair), error_consistency=error_consistency(*pair)))
    return Comparison(outcome.name, measure, rank(summaries, differences, measure), differences)


def _columns_of(classified: Classified, columns: dict[str, np.ndarray], classifier: str) -> dict[str, np.ndarray]:
    """Return the columns that a summary of this classifier is made of."""
    answers = classified.answered[classifier].answers
    shared = ("label", "valid", "iterations", "queries", "original_oracle_label", "stop_reason")
    own = {name: columns[name] for name in shared if name in columns}
    own["prediction"] = answers["image"].prediction
    if "original" in answers:
        own["original_prediction"] = answers["original"].prediction
    for kind, prefix in (("image", ""), ("original", "original_")):
        if kind in answers:
            own[f"{prefix}confidence"] = answers[kind].confidence.astype(np.float64)
            in_top5 = answers[kind].in_top5
            if in_top5 is not None:
                own[f"{prefix}in_top5"] = in_top5
    if "native" in answers:
        own["native_prediction"] = answers["native"].prediction
    if "attacked" in answers and "original" in answers:
        # What was wrong before an attack stays so: it is not attacked.
        was_right = answers["original"].prediction == columns["label"]
        own["attacked_prediction"] = np.where(was_right, answers["attacked"].prediction, answers["original"].prediction)
    return own


def check_order(classified: Classified, classifier: str, answered: Answered) -> None:
    """Raise UserError if a classifier's outputs are in another order than the labels."""
    if answered.order_is_known:
        return
    answers = answered.answers.get("original", answered.answers["image"])
    if outputs_in_another_order(classified.columns["label"], answers.prediction, len(classified.labels)):
        cure = "" if classified.split.labels else ", and give the split's label column its names (ClassLabel)"
        raise UserError(
            f"classifier {classifier} on {classified.split.name}: its predictions match the labels only if its classes "
            "are put in another order; list its classes, in the order of its outputs, as class_names of its section"
            f"{cure}"
        )


def _result(
    classified: Classified, classifier: str, own: dict[str, np.ndarray], stored: dict[str, np.ndarray]
) -> Result:
    """Return the result of a classifier on a split.

    Args:
        classified: the split.
        classifier: its name.
        own: the columns of its summary.
        stored: the columns of the split.
    """
    labels = classified.labels
    answered = classified.answered[classifier]
    notes = _notes_on_answers(answered)
    is_own = _is_own_classifier(answered, own, stored, notes)
    if is_own:
        own = own | {name: stored[name] for name in OWN_COLUMNS if name in stored}
    of_classes = {name: column for name, column in own.items() if not name.endswith(_OF_SURENESS)}
    total = summarise(own)
    at_chance = False
    if "original_prediction" in own:
        at_chance = is_at_chance(own["label"], own["original_prediction"], len(labels))
    twin = _twin_of(classifier, classified)
    if twin is not None:
        notes.append(f"it gives the same answers as {twin} on every image: they are one network, or copies of it")
    judged = {}
    if classified.judges:
        judged = corrected_by(classified.judges, own, stored["valid"])
    groups: dict[str, dict[str, Summary]] = {}
    for column, of_column in classified.groups.items():
        groups[column] = {}
        for name, rows in of_column.items():
            groups[column][name] = summarise({column: values[rows] for column, values in of_classes.items()})
    steps = _judged_steps(classified) if is_own else "none"
    return Result(
        split=classified.split.name,
        classifier=classifier,
        conditioned=is_own,
        total=total,
        classes=summarise_classes(of_classes, len(labels)),
        notes=notes,
        judged=judged,
        at_chance=at_chance,
        masked=has_masked_gradient(total, steps),
        rough=has_rough_gradient(total, steps),
        groups=groups,
    )


def _notes_on_answers(answered: Answered) -> list[str]:
    notes = list(answered.notes)
    for name, answers in answered.answers.items():
        silent = int((answers.prediction < 0).sum())
        if silent:
            notes.append(f"its highest logit is not finite on {silent} of the column {name}; these count as wrong")
    return notes


def _twin_of(name: str, classified: Classified) -> str | None:
    """Return the first classifier before this one that gives the same answers to all images."""
    own = classified.answered[name].answers
    for other, answered in classified.answered.items():
        if other == name:
            return None
        if _are_same(own, answered.answers):
            return other
    return None


def _are_same(first: Mapping[str, KeptAnswers], second: Mapping[str, KeptAnswers]) -> bool:
    """Return whether all predictions in `first` are in `second` too."""
    for kind, answers in first.items():
        if kind not in second or not np.array_equal(second[kind].prediction, answers.prediction):
            return False
    return True


def _judged_steps(classified: Classified) -> JudgedSteps:
    """Return which of the split's own steps show whether a gradient is masked; all if nothing is on record."""
    provenance = classified.split.provenance
    return "all" if provenance is None else provenance.judged_steps


def _is_own_classifier(
    answered: Answered, own: Mapping[str, np.ndarray], stored: Mapping[str, np.ndarray], notes: list[str]
) -> bool:
    """Return whether the split was made for a classifier; a note says why not, if it has that one's weights."""
    if not answered.has_recorded_weights:
        return False
    for name in ("prediction", "original_prediction"):
        if name in stored and name in own:
            agreed = float((stored[name] == own[name]).mean())
            if agreed < _SAME_ANSWERS:
                notes.append(
                    f"it has the weights of the classifier that the split was made for, but its {name} is the stored "
                    f"one for {agreed:.1%} of the rows only: is its preprocessing another?"
                )
                return False
    return True


def _made_for(classified: Classified, results: list[Result]) -> Result | None:
    """Return the result of the split's own classifier; of several with its weights, of the one with the recorded
    section."""
    own = [result for result in results if result.conditioned]
    for result in own:
        if classified.answered[result.classifier].has_recorded_section:
            return result
    return own[0] if own else None


def _more_fooled(made_for: Result | None, results: list[Result], measure: str) -> list[str]:
    """Return a note if images made for the split's own classifier fool another one more; those at chance aside."""
    figures: dict[str, float] = {}
    for result in results:
        estimate: Estimate | None = getattr(result.total, measure)
        if estimate is not None and not result.at_chance and not result.masked:
            figures[result.classifier] = estimate.value
    own = None if made_for is None else made_for.classifier
    if own not in figures or len(figures) < 2:
        return []
    lowest = min(figures, key=lambda name: figures[name])
    if figures[lowest] >= figures[own]:
        return []
    name = COMPARED[measure].name
    return [
        f"{name} of its own classifier {own} ({figures[own]:.1f}) is not the lowest: {lowest} has "
        f"{figures[lowest]:.1f}; either {lowest} is weaker, or the gradients of {own} do not show the way"
    ]


def _evaluated_split(
    outcome: Outcome, results: list[Result], measure: str, models: list[EvaluatedClassifier]
) -> EvaluatedSplit:
    """Return the figures of a split that are no single classifier's, and add to the gallery what all of them miss."""
    classified = outcome.classified
    split, provenance = classified.split, classified.split.provenance
    stored, counted = classified.columns, _counted_columns(classified)
    above_chance = [result.classifier for result in results if not result.at_chance]
    missed = missed_by_all([outcome.columns[name] for name in above_chance], stored)
    if missed is not None:
        classified.samples += samples_of(classified, missed.rows)
    notes = [*classified.notes]
    notes += _more_fooled(outcome.made_for, results, measure)
    notes += about_missed(missed, len(above_chance))
    notes += _notes_on_split(classified, outcome.made_for, counted)
    iterations = stop_reasons = None
    if "iterations" in counted:
        taken = counted["iterations"]
        iterations = _counted(taken[counted["valid"]] if "valid" in counted else taken)
    if "stop_reason" in counted:
        stop_reasons = _counted(counted["stop_reason"])
    figures = EvaluatedSplit(
        name=split.name,
        class_names=list(classified.labels.names),
        rows=len(counted["label"]),
        repo=split.repo,
        config=split.config,
        split=split.split,
        revision=split.revision,
        fingerprint=None,
        files=None,
        classifier_sha256=None,
        iterations=iterations,
        stop_reasons=stop_reasons,
        notes=notes,
        missed_by_all=None if missed is None else missed.ids,
        people_alpha=people_alpha(classified.judges),
        valid_by=classified.valid_by,
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
        steps=step_figures(counted, perturb.budget, perturb.min_probability),
        related=related_line(provenance),
        attacks=_attacks_of(perturb, counted),
        judges=[judge_figures(judge, stored, provenance, digests) for judge in classified.judges],
    )


def _notes_on_split(classified: Classified, made_for: Result | None, counted: Mapping[str, np.ndarray]) -> list[str]:
    """Return what a reader of a split's figures must know, in words."""
    notes = []
    if made_for is not None:
        notes += cautions(made_for.total, steps=_judged_steps(classified))
        classes = zip(classified.labels.names, made_for.classes, strict=True)
        empty = [name for name, summary in classes if summary.rows and not summary.valid_rows]
        if empty:
            few = ", ".join(name.partition(",")[0] for name in empty[:_NAMED])
            if len(empty) > _NAMED:
                few += ", …"
            notes.append(f"{len(empty)} classes have no valid row: {few}")
    provenance = classified.split.provenance
    if provenance is not None:
        notes += lines_on_models(provenance)
    if provenance is not None and _is_judged_by_itself(provenance):
        notes.append("its oracle has the weights of its own classifier: FMR is 100 however good the network is")
    if "valid" not in counted:
        notes.append("there is no column valid: all rows count in PA, and VR is not known")
    if provenance is not None and not classified.split.has_own_classes:
        notes.append("its label names are not those of its provenance, so its stored predictions are not used")
    return notes


def _is_judged_by_itself(provenance: Provenance) -> bool:
    """Return whether the oracle, or a member of it, has the classifier's weights; such splits are no longer made."""
    weights = provenance.weights_sha256
    return weights.classifier in {weights.oracle, *provenance.oracle_sha256} - {None}


def _attacks_of(perturb: RecordedPerturb, columns: dict[str, np.ndarray]) -> list[AfterAttack]:
    """Return the figures after each attack; none for one attack, or if rows do not fit the recipe."""
    figures = Rows(columns).after_each_attack()
    if perturb.attacks == "one" or len(figures) > perturb.attack_count:
        return []
    fooled = columns["attack"][columns["valid"] & (columns["prediction"] != columns["label"])]
    attacks = []
    for number, (attack, fmr) in enumerate(zip(perturb.attacks, figures, strict=False)):
        attacks.append(AfterAttack(attack.name, int((fooled == number).sum()), fmr))
    return attacks


def _counted(values: np.ndarray) -> dict[Any, int]:
    return dict(sorted(Counter(values.tolist()).items()))


def predictions_table(
    split: str, classifier: str, own: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray]
) -> pa.Table:
    """Return a classifier's predictions row by row, as `Evaluation.predictions` has them.

    Args:
        split: its name.
        classifier: its name.
        own: the columns of the classifier's summary; those that are not there are null.
        columns: of the split, for `label` and `id`; without ids rows are numbered.
    """
    rows = len(columns["label"])
    zeros = pa.array(np.zeros(rows, np.int32))
    arrays = {
        "split": pa.DictionaryArray.from_arrays(zeros, pa.array([split])),
        "classifier": pa.DictionaryArray.from_arrays(zeros, pa.array([classifier])),
        "id": pa.array(columns.get("id", np.arange(rows)), pa.int64()),
    }
    types = {
        "label": pa.int32(),
        "valid": pa.bool_(),
        "original_prediction": pa.int32(),
        "prediction": pa.int32(),
    }
    for name, kind in types.items():
        arrays[name] = pa.array(own[name]).cast(kind) if name in own else pa.nulls(rows, kind)
    return pa.table(arrays)
