"""Predictions made into figures."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel

from fmrgen.config import without_later_defaults
from fmrgen.errors import UserError
from fmrgen.evaluation.across_splits import Found, compare_own_splits, worst_of_all
from fmrgen.evaluation.missed import Missed, about_missed, missed_by_all, samples_of
from fmrgen.labels import match_classes
from fmrgen.metrics.cautions import (
    cautions,
    has_masked_gradient,
    has_rough_gradient,
    is_at_chance,
    outputs_in_another_order,
)
from fmrgen.metrics.summary import COMPARED, OWN_COLUMNS, summarise, summarise_classes
from fmrgen.results.evaluation import (
    SCHEMA,
    Comparison,
    EvaluatedClassifier,
    EvaluatedSplit,
    Evaluation,
    FailedClassifier,
    Result,
)
from fmrgen.results.fixed_sets import FixedSetResults
from fmrgen.results.rankings import difference, error_consistency, pairs_of, rank
from fmrgen.results.steps import StepFigures, step_figures
from fmrgen.split.judged import corrected_by, judge_figures, people_alpha
from fmrgen.split.rows import Answered, Classified, NamedClassifier
from fmrgen.storage.made_with import made_with, related_line
from fmrgen.storage.provenance import Provenance, RecordedPerturb

_OF_SURENESS = ("confidence", "in_top5")
_SAME_ANSWERS = 0.99  # of the rows: what the split's own classifier must say again of the stored images


def summarise_evaluation(
    models: list[NamedClassifier],
    evaluated: list[Classified],
    attack: str | None = None,
    fixed: FixedSetResults | None = None,
    failed: list[FailedClassifier] | None = None,
) -> Evaluation:
    """Summaries, comparisons and tables; `attack` is the one whose answers are among the predictions, `fixed` what was
    found on fixed sets beside, `failed` are classifiers that could not be measured.
    """
    results: list[Result] = []
    comparisons: list[Comparison] = []
    tables: list[pa.Table] = [] if fixed is None else list(fixed.predictions)
    splits: list[EvaluatedSplit] = []
    found: list[Found] = []
    digests = {model.name: model.weights_sha256 for model in models}
    for passed in evaluated:
        split, columns = passed.split, passed.rows.columns
        counted = columns if passed.valid is None else {**columns, "valid": passed.valid}
        of_models = {model.name: _columns_of(passed, counted, model) for model in models}
        here = []
        for model in models:
            result = _result(passed, model, of_models[model.name], columns)
            here.append(result)
            tables.append(predictions_table(split.name, model.name, of_models[model.name], counted))
        results += here
        made_for = _made_for(passed, here, models)
        found.append(Found(passed, made_for, {name: of | _ids_of(columns) for name, of in of_models.items()}))
        summaries = {result.classifier: result.total for result in here if not (result.conditioned or result.at_chance)}
        measure: Any = "fmr" if any(result.total.fmr for result in here) else "perturbed_accuracy"
        pairs = pairs_of(list(of_models), summaries, measure)
        differences = [
            replace(
                difference(a, b, of_models[a], of_models[b]),
                error_consistency=error_consistency(of_models[a], of_models[b]),
            )
            for a, b in pairs
        ]
        comparisons.append(Comparison(split.name, measure, rank(summaries, differences, measure), differences))
        able = [result.classifier for result in here if not result.at_chance]
        missed = missed_by_all([of_models[name] for name in able], columns)
        passed.rows.sampler.samples += samples_of(passed, [] if missed is None else missed.rows)
        notes = [*_more_fooled(made_for, here, measure), *about_missed(missed, len(able))]
        splits.append(_split_figures(passed, counted, columns, made_for, notes, missed, digests))
    worst = worst_of_all(found)
    return Evaluation(
        schema=SCHEMA,
        attack=attack,
        splits=splits,
        classifiers=[
            EvaluatedClassifier(
                model.name,
                None if model.section is None else model.section.model_dump(mode="json", exclude_none=True),
                digests[model.name],
                model.training_of,
            )
            for model in models
        ],
        failed=failed or [],
        results=results,
        comparisons=comparisons,
        own=compare_own_splits(found, worst, models),
        worst=worst,
        fixed=[] if fixed is None else fixed.results,
        predictions=pa.concat_tables(tables),
        samples={p.split.name: p.rows.sampler.samples for p in evaluated},
    )


def _columns_of(passed: Classified, columns: dict[str, np.ndarray], model: NamedClassifier) -> dict[str, np.ndarray]:
    """The columns that a summary of this classifier is made of."""
    answers = passed.answered[model.name].answers
    said = {name: of.prediction for name, of in answers.items()}
    shared = ("label", "valid", "iterations", "queries", "original_oracle_label", "stop_reason")
    found = {name: columns[name] for name in shared if name in columns}
    found["prediction"] = said["image"]
    if "original" in said:
        found["original_prediction"] = said["original"]
    for kind, prefix in (("image", ""), ("original", "original_")):
        if kind in answers:
            found[f"{prefix}confidence"] = answers[kind].confidence.astype(np.float64)
            if (among := answers[kind].in_top5) is not None:
                found[f"{prefix}in_top5"] = among
    if "native" in said:
        found["native_prediction"] = said["native"]
    if "attacked" in said and "original" in said:  # what was wrong before an attack stays so: it is not attacked
        was_right = said["original"] == columns["label"]
        found["attacked_prediction"] = np.where(was_right, said["attacked"], said["original"])
    return found


def check_order(passed: Classified, model: NamedClassifier, answered: Answered) -> None:
    """Raises UserError where a classifier's outputs are in another order than the labels."""
    seen = answered.answers.get("original", answered.answers["image"]).prediction
    labels = passed.rows.columns["label"]
    if not _order_is_known(passed, model) and outputs_in_another_order(labels, seen, len(passed.labels)):
        raise UserError(
            f"classifier {model.name} on {passed.split.name}: its predictions match the labels only if its classes "
            "are put in another order; list its classes, in the order of its outputs, as class_names of its section"
            + ("" if passed.split.labels else ", and give the split's label column its names (ClassLabel)")
        )


def _result(
    passed: Classified, model: NamedClassifier, of_model: dict[str, np.ndarray], columns: dict[str, np.ndarray]
) -> Result:
    notes: list[str] = []
    split, labels = passed.split, passed.labels
    if not _order_is_known(passed, model):
        why = "it does not name its classes" if model.class_names is None else "not all of its classes match by name"
        notes.append(f"{why}: its outputs are assumed to be in the order of the labels")
    answered = passed.answered[model.name]
    notes += [note for note in (answered.left_out, *answered.notes) if note is not None]
    for name, said in answered.answers.items():
        if silent := int((said.prediction < 0).sum()):
            notes.append(f"its highest logit is not finite on {silent} of the column {name}; these count as wrong")
    conditioned = _is_own_classifier(passed, model, of_model, columns, notes)
    if conditioned:
        of_model = of_model | {name: columns[name] for name in OWN_COLUMNS if name in columns}
    of_classes = {name: values for name, values in of_model.items() if not name.endswith(_OF_SURENESS)}
    classes, total = summarise_classes(of_classes, len(labels)), summarise(of_model)
    at_chance = "original_prediction" in of_model and is_at_chance(
        of_model["label"], of_model["original_prediction"], len(labels)
    )
    if (twin := _twin_of(model.name, passed)) is not None:
        notes.append(f"it gives the same answers as {twin} on every image: they are one network, or copies of it")
    judged = corrected_by(passed.judges, of_model, columns["valid"]) if passed.judges else {}
    is_guided = conditioned and _is_guided(passed)
    masked, rough = is_guided and has_masked_gradient(total), is_guided and has_rough_gradient(total)
    return Result(split.name, model.name, conditioned, total, classes, notes, judged, at_chance, masked, rough)


def _twin_of(name: str, passed: Classified) -> str | None:
    """The first classifier before this one that said the same of all images."""
    own = passed.answered[name].answers
    for other, answered in passed.answered.items():
        if other == name:
            return None
        said = answered.answers
        if all(images in said and np.array_equal(said[images].prediction, own[images].prediction) for images in own):
            return other
    return None


def _is_guided(passed: Classified) -> bool:
    """Whether the split's own steps are along a gradient; of a split that does not say how it was made, it is so."""
    return passed.split.provenance is None or passed.split.provenance.recipe.perturb.is_guided


def _order_is_known(passed: Classified, model: NamedClassifier) -> bool:
    """Whether every label was found among the classifier's classes by its name."""
    feature, class_names = passed.split.features["label"], model.class_names
    if class_names is None and model.in_words:
        return True
    if class_names is None or not (isinstance(feature, ClassLabel) or "string" in feature.dtype):
        return False
    match = match_classes(class_names, passed.labels.names)
    return match is not None and match.by_name


def _is_own_classifier(
    passed: Classified,
    model: NamedClassifier,
    of_model: dict[str, np.ndarray],
    columns: dict[str, np.ndarray],
    notes: list[str],
) -> bool:
    if not passed.answered[model.name].has_recorded_weights:
        return False
    for name in ("prediction", "original_prediction"):
        if name in columns and name in of_model:
            agreed = float((columns[name] == of_model[name]).mean())
            if agreed < _SAME_ANSWERS:
                notes.append(
                    f"it has the weights of the classifier that the split was made for, but its {name} is the stored "
                    f"one for {agreed:.1%} of the rows only: is its preprocessing another?"
                )
                return False
    return True


def _made_for(passed: Classified, results: list[Result], models: list[NamedClassifier]) -> Result | None:
    """The split's own classifier; of several with its weights the one whose section is that of the provenance."""
    own = [(model, result) for model, result in zip(models, results, strict=True) if result.conditioned]
    if passed.split.provenance is None or not own:
        return None
    recorded = without_later_defaults("classifier", passed.split.provenance.recipe.classifier.tree)

    def is_recorded(model: NamedClassifier) -> bool:
        section = {} if model.section is None else model.section.model_dump(mode="json")
        return without_later_defaults("classifier", section) == recorded

    return next((result for model, result in own if is_recorded(model)), own[0][1])


def _ids_of(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"id": columns["id"]} if "id" in columns else {}


def _more_fooled(made_for: Result | None, results: list[Result], measure: str) -> list[str]:
    """A note where images made for the split's own classifier fool another one more; those at chance aside."""
    figures = {
        r.classifier: estimate.value
        for r in results
        if (estimate := getattr(r.total, measure)) is not None and not (r.at_chance or r.masked)
    }
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


def _split_figures(
    passed: Classified,
    columns: dict[str, np.ndarray],
    stored: dict[str, np.ndarray],
    made_for: Result | None,
    notes_on_results: list[str],
    missed: Missed | None,
    digests: dict[str, str | None],
) -> EvaluatedSplit:
    """`columns` are those that count, `stored` those of the split, whose oracle alone says what is valid."""
    split, notes = passed.split, [*passed.rows.notes, *passed.notes, *notes_on_results]
    if made_for is not None:
        notes += cautions(made_for.total, guided=_is_guided(passed))
        classes = zip(passed.labels.names, made_for.classes, strict=True)
        if empty := [name for name, own in classes if not own.valid_rows]:
            few = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
            notes.append(f"{len(empty)} classes have no valid row: {few}")
    provenance = split.provenance
    related = None if provenance is None else related_line(provenance)
    if related is not None:
        notes.append(related)
    if provenance is not None and _is_judged_by_itself(provenance):
        notes.append("its oracle has the weights of its own classifier: FMR is 100 however good the network is")
    if "valid" not in columns:
        notes.append("there is no column valid: all rows count in PA, and VR is not known")
    if provenance is not None and not passed.rows.has_own_classes:
        notes.append("its label names are not those of its provenance, so its stored predictions are not used")
    if "iterations" in columns:
        taken = columns["iterations"][columns["valid"]] if "valid" in columns else columns["iterations"]
    return EvaluatedSplit(
        name=split.name,
        class_names=list(passed.labels.names),
        rows=len(columns["label"]),
        repo=split.repo,
        config=split.config,
        split=split.split,
        revision=split.revision,
        fingerprint=None if provenance is None else provenance.fingerprint,
        files=None if provenance is None else provenance.files_digest,
        missed_by_all=None if missed is None else missed.ids,
        classifier_sha256=None if provenance is None else provenance.weights_sha256.classifier,
        iterations=_counted(taken) if "iterations" in columns else None,
        stop_reasons=_counted(columns["stop_reason"]) if "stop_reason" in columns else None,
        notes=notes,
        made_with=None if provenance is None else made_with(provenance),
        steps=None if provenance is None else _steps_of(provenance.recipe.perturb, columns, len(passed.labels)),
        judges=[] if provenance is None else [judge_figures(j, stored, provenance, digests) for j in passed.judges],
        people_alpha=people_alpha(passed.judges),
        valid_by=passed.valid_by,
        related=related,
    )


def _is_judged_by_itself(provenance: Provenance) -> bool:
    """Whether the oracle, or a member of it, has the classifier's weights: such a split isn't made any more."""
    weights = provenance.weights_sha256
    return weights.classifier in {weights.oracle, *provenance.oracle_sha256} - {None}


def _steps_of(perturb: RecordedPerturb, columns: dict[str, np.ndarray], classes: int) -> StepFigures | None:
    return step_figures(columns, perturb.budget, classes, perturb.min_probability, perturb.keep == "first")


def _counted(values: np.ndarray) -> dict[Any, int]:
    return dict(sorted(Counter(values.tolist()).items()))


def predictions_table(
    split: str, classifier: str, of_model: dict[str, np.ndarray], columns: dict[str, np.ndarray]
) -> pa.Table:
    """What a classifier said, row by row: of `columns` the `label` and where there is one the `id`, of `of_model` what
    there is.
    """
    rows = len(columns["label"])
    ids = columns.get("id", np.arange(rows))

    def repeated(word: str) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([word]))

    def known(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array(of_model[name]).cast(kind) if name in of_model else pa.nulls(rows, kind)

    return pa.table(
        {
            "split": repeated(split),
            "classifier": repeated(classifier),
            "id": pa.array(ids, pa.int64()),
            "label": known("label", pa.int32()),
            "valid": known("valid", pa.bool_()),
            "original_prediction": known("original_prediction", pa.int32()),
            "prediction": known("prediction", pa.int32()),
        }
    )
