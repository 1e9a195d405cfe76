"""Which images did a new classifier break? Flips on real images first, then on transformed ones; one verdict over all.

Importing this brings no torch: predictions are compared without it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from fmrgen.apps.release.evidence import Evidence, Verdict, evidence_of, judged
from fmrgen.apps.release.flips import Flips, compare_predictions, evidence_of_classes
from fmrgen.apps.release.predictions import Predictions, predictions_of_columns, read_predictions, relabelled
from fmrgen.errors import UserError, option

if TYPE_CHECKING:
    from fmrgen.apps.release.generated import Generated
    from fmrgen.apps.release.on_images import Asked
    from fmrgen.jobs.compare import JobProgress
    from fmrgen.recipe.job import Recipe
    from fmrgen.recipe.objects import AnyClassifier

Result = TypeVar("Result")
_SATURATED = 95.0  # percent: accuracy of both on perturbed images above which these show too little


@dataclass(frozen=True)
class Diff:
    """The comparison of a classifier in use, OLD, with the one that is to take its place, NEW.

    Attributes:
        verdict: `broke more`: on some kind of images NEW loses more than is allowed; `no worse`: on every kind it loses
            less; `fixed more`: besides, it is better on some kind; `undecided`: the images do not tell; `invalid`: one
            of the two does not work. Equal networks get `broke more` or `fixed more` in at most 5 % of cases.
        margin: points that NEW may lose.
        evidence: what each kind of images shows: real ones first.
        flips: on the real images, or on the originals of a split.
        generated: images generated against the two, with a recipe; they are no part of the verdict.
        notes: cautions; the faults if the verdict is `invalid`.
    """

    verdict: Verdict
    margin: float
    evidence: list[Evidence]
    flips: Flips
    generated: "Generated | None" = None
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        flips = self.flips
        broke, fixed = (round(share.value * flips.images / 100) for share in (flips.broke, flips.fixed))
        return (
            f"Diff({self.verdict}: {broke} of {flips.images} broke, {fixed} fixed; accuracy "
            f"{flips.old_accuracy.value:.2f} → {flips.new_accuracy.value:.2f} %, drop {flips.drop} points)"
        )

    @property
    def worse(self) -> list[Evidence]:
        """The evidence that NEW is worse."""
        return [entry for entry in self.evidence if entry.is_worse]

    @property
    def not_excluded(self) -> list[Evidence]:
        """The evidence by which NEW may lose more than is allowed."""
        return [entry for entry in self.evidence if entry.can_excuse and entry.drop.ends[1] >= entry.margin]


def diff(
    old: Any,
    new: Any,
    labels: Any = None,
    *,
    images: Any = None,
    recipe: "Recipe | None" = None,
    output: str | Path | None = None,
    margin: float = 0.0,
    by: Sequence[str] = (),
    reviewed: Mapping[str, str] | None = None,
    job_progress: "JobProgress | None" = None,
    on_note: Callable[[str], None] = lambda line: None,
) -> Diff:
    """Return which images NEW broke and which it fixed, and whether it is worse.

    By predictions: `diff(old, new, labels)`. By two classifiers on labelled images, or on a split's: `images=`. By a
    recipe: on all images of its source, whatever its limit, and on its originals transformed at random, with images
    generated against the two beside: `recipe=`. The last two run on every process of a launch, with the same outcome on
    each.

    Args:
        old: predictions: a file, an array [N], or a data frame or mapping with columns `id`, `label` and `prediction`;
            or a classifier, as for `evaluate`. A list is of several trainings of one recipe, unless there is `recipe`.
        new: likewise, of the one that is to take its place.
        labels: the true classes [N], if `old` and `new` are arrays of predictions.
        images: a split, a dataset, a folder with a folder for each class, or a section of a source.
        recipe: source, generator, oracle and steps; its classifier is ignored. Two splits of the same originals are
            generated, or resumed: in one OLD is right and NEW wrong, in the other it is the other way round.
        output: the dataset folder of these splits.
        margin: points of accuracy that NEW may lose, from 0 to less than 100. On transformed images it may lose as
            many more as trainings of one recipe are apart (5 to 30).
        by: columns to group the images by, `COLUMN` or `COLUMN:BOUND,…`; of predictions by default all with few
            values.
        reviewed: what some real images show, by their ids, where somebody looked at them: it replaces their labels.
        job_progress: returns a progress callback for a split's recipe.
        on_note: called with each note, one line.

    Raises:
        UserError: the two are not about the same images, or something can't be used, with the cure.
    """
    if not 0 <= margin < 100:
        raise UserError(f"{option('margin', 'margin')}: must be points from 0 to less than 100, not {margin:g}")
    if recipe is not None:
        if output is None:
            raise UserError("output: name the dataset folder of the two splits")
        return _diff_on_recipe(
            recipe,
            output,
            old,
            new,
            margin=margin,
            job_progress=job_progress,
            on_note=on_note,
        )
    trainings = old if _are_trainings(old, images) else [old]
    if images is not None:
        from fmrgen.apps.release.on_images import ask

        answered = ask(images, trainings, new, by=by)
        return _on_images(answered, trainings, margin=margin, by=by, reviewed=reviewed, on_note=on_note)
    of_old = [as_predictions(f"old {number}", values, labels) for number, values in enumerate(trainings, 1)]
    of_new = as_predictions("new", new, labels)
    *of_old, of_new = [relabelled(predictions, reviewed or {}) for predictions in (*of_old, of_new)]
    flips, evidence = compare_predictions(of_old, of_new, margin=margin, by=by, reviewed=reviewed or ())
    verdict, evidence = judged(evidence)
    notes = faults_of([*of_old, of_new])
    if labels is None and not all(predictions.has_ids for predictions in (*of_old, of_new)):
        notes.append("there are no ids: the rows of OLD and NEW are paired by their place; add a column id")
    for predictions in (*of_old, of_new):
        notes += _notes_on_spelling(predictions)
    if all(np.array_equal(training.answers, of_new.answers) for training in of_old):
        notes.append("OLD and NEW give the same answers on every image")
    return Diff(verdict, margin, evidence, flips, notes=notes)


def _are_trainings(old: Any, images: Any) -> bool:
    """Return whether `old` is a list of several trainings, and not one list of predictions."""
    if not isinstance(old, list) or not old:
        return False
    tables = (Predictions, Mapping, np.ndarray, list, tuple)
    return images is not None or isinstance(old[0], tables) or hasattr(old[0], "columns")


def as_predictions(name: str, values: Any, labels: Any) -> Predictions:
    """Return predictions that were given in any form. Raises UserError if they can't be used.

    Args:
        name: whose they are, for messages.
        values: an array of classes [N] or of scores [N, K], a data frame or a mapping.
        labels: the true classes [N], if the values are an array.
    """
    if isinstance(values, Predictions):
        return values
    if isinstance(values, str | Path):
        return read_predictions(values)
    if isinstance(values, Mapping):
        columns = dict(values)
    elif hasattr(values, "columns"):
        columns = {str(column): values[column].to_numpy() for column in values.columns}
    elif labels is None:
        raise UserError(f"{name}: has predictions alone; give labels too, or a table with label and prediction")
    else:
        if len(labels) != len(values):
            raise UserError(f"{name}: has {len(values)} predictions for {len(labels)} labels")
        array = np.asarray(values)
        columns = {"label": np.asarray(labels), "scores" if array.ndim == 2 else "prediction": array}
    return predictions_of_columns(name, columns)


def _on_images(
    answered: "Asked",
    old: "Sequence[AnyClassifier]",
    *,
    margin: float,
    by: Sequence[str] = (),
    reviewed: Mapping[str, str] | None = None,
    on_note: Callable[[str], None],
) -> Diff:
    """Return the comparison of classifiers on labelled images, or on a split's originals and perturbed images."""
    from fmrgen.apps.release.on_images import notes_on_split, preprocessing_notes

    column, reviewed = answered.column, reviewed or {}
    *of_old, of_new = [relabelled(predictions, reviewed) for predictions in answered.of_real_images]
    is_split = answered.opened.provenance is not None
    of_images = "images"
    if is_split:
        of_images = "originals" if column == "original" else "perturbed images"
    flips, evidence = compare_predictions(of_old, of_new, margin=margin, by=by, reviewed=reviewed, images=of_images)
    outcome = Diff("undecided", margin, evidence, flips)
    faults = faults_of([*of_old, of_new])
    if faults:
        return replace(outcome, verdict="invalid", notes=faults)
    if _are_one_network(answered, old):
        return replace(outcome, notes=["OLD and NEW are one network: they have the same weights and settings"])
    notes = notes_on_split(answered) + preprocessing_notes(answered, on_note)
    of_others: list[Evidence] = []
    if is_split:
        if len(old) > 1:
            raise UserError("old: a split takes one network; several trainings are for real images")
        if column == "original":
            of_others = _evidence_on_perturbed(answered.answers["image"], margin)
        notes += _saturation_notes(answered.answers["image"])
    verdict, evidence = judged(evidence, of_others)
    return replace(outcome, verdict=verdict, evidence=evidence, notes=notes)


def _diff_on_recipe(
    recipe: "Recipe",
    output: str | Path,
    old: "AnyClassifier",
    new: "AnyClassifier",
    *,
    margin: float,
    job_progress: "JobProgress | None",
    on_note: Callable[[str], None],
) -> Diff:
    """Return the comparison on all images of a recipe's source, and on its originals transformed."""
    from fmrgen.apps.explain.rows import JudgedImages
    from fmrgen.apps.release.generated import generate_against, has_gradient
    from fmrgen.apps.release.on_images import ask
    from fmrgen.apps.release.transformed import ORIGINALS, on_transformed_originals
    from fmrgen.distributed.launch import Processes
    from fmrgen.engine.interfaces import Generator
    from fmrgen.engine.options import WITHOUT_GRADIENT
    from fmrgen.recipe.build import ClassifierAndOracle, build_component, build_oracle, build_source
    from fmrgen.recipe.objects import classifier_section

    if isinstance(old, list):
        raise UserError("old: with a recipe it is one network; several trainings are for real images")
    sections = classifier_section(old), classifier_section(new)
    if sections[0] == sections[1]:
        raise UserError("diff: old and new are one network: they have the same weights and settings; name two")
    answered = ask(recipe.source.whole(), sections[:1], sections[1])
    outcome = _on_images(answered, sections[:1], margin=margin, on_note=on_note)
    if outcome.verdict == "invalid" or _are_one_network(answered, sections[:1]):
        return outcome
    source, device = build_source(recipe.source), Processes().device
    size = build_component(recipe.generator, "generator", Generator, device).image_size
    of_old, of_new = answered.networks
    judges = ClassifierAndOracle(of_new, build_oracle(recipe.oracle, source.labels, size, device))
    rows = JudgedImages.of_source(source, size, judges, recipe.perturb, ORIGINALS, device)
    networks = {"OLD": of_old, "NEW": of_new}
    without = [name for name, network in networks.items() if not has_gradient(network, rows.originals[:2])]
    generated = None
    notes = [*outcome.notes]
    if without and recipe.perturb.runs[0].update not in WITHOUT_GRADIENT:
        notes.append(
            f"no images were generated against the two, for {' and '.join(without)} gave no gradient; "
            "perturb.update=nes needs none"
        )
    else:
        generated = generate_against(recipe, output, *sections, job_progress=job_progress, on_note=on_note)
    of_transformed = _by_the_first_process(
        lambda: on_transformed_originals(rows, of_old, source.labels.names, margin=margin)
    )
    verdict, evidence = judged(outcome.evidence, of_transformed)
    return replace(outcome, verdict=verdict, evidence=evidence, generated=generated, notes=notes)


def _by_the_first_process(work: Callable[[], Result]) -> Result:
    """Return the result of `work`, which the first process of a launch does for all."""
    from fmrgen.distributed.launch import Processes

    processes = Processes()
    result = processes.together(lambda: work() if processes.is_first else None)
    return cast(Result, processes.gather(result)[0])


def _evidence_on_perturbed(answers: Sequence[Predictions], margin: float) -> list[Evidence]:
    """Return the evidence of a split's perturbed images, and of the class that broke most surely on them."""
    old, new = answers
    if not len(new):
        return []
    old_right, new_right = old.answers == old.labels, new.answers == new.labels
    broke, fixed = old_right & ~new_right, new_right & ~old_right
    evidence = [evidence_of("perturbed", "perturbed images", broke, fixed, margin)]
    return evidence + evidence_of_classes(new.labels, broke, fixed, "perturbed images of class {name}", margin)


def _saturation_notes(answers: Sequence[Predictions]) -> list[str]:
    """Return a line if perturbed images hardly fool either, so that they can't show what NEW lost."""
    for predictions in answers:
        if 100 * (predictions.answers == predictions.labels).mean() < _SATURATED:
            return []
    return [
        f"both are right on more than {_SATURATED:.0f} % of the perturbed images, which hardly fool either: a loss "
        f"can't show; use a split generated against a network like these"
    ]


def faults_of(answers: Sequence[Predictions]) -> list[str]:
    """Return a line for each network that does not work.

    Its outputs are not finite, which would count as wrong answers, or are in another order than the classes, or it is
    at chance.
    """
    from fmrgen.metrics.cautions import best_order, is_at_chance, outputs_in_another_order

    faults = []
    for predictions in answers:
        of_labels, of_answers = predictions.labels.tolist(), predictions.answers.tolist()
        numbers = {text: number for number, text in enumerate(dict.fromkeys([*of_labels, *of_answers]))}
        labels = np.array([numbers[text] for text in of_labels])
        answered = np.array([numbers[text] for text in of_answers])
        names = list(numbers)
        not_finite = int((predictions.answers == "").sum())
        if not_finite:
            faults.append(
                f"{predictions.name} gives outputs that are not finite on {not_finite:,} of {len(predictions):,} "
                "images: check its weights and its preprocessing"
            )
        elif outputs_in_another_order(labels, answered, len(names)):
            order = best_order(labels, answered, len(names))
            place = next(place for place, label in enumerate(order.tolist()) if label != place)
            faults.append(
                f"{predictions.name} is right on {(labels == answered).mean():.1%} of {len(predictions):,} images, and "
                f"on {(order[answered] == labels).mean():.1%} if its answers are put in another order: {names[place]} "
                f"is mostly {names[order[place]]}; list its classes, in the order of its outputs, as class_names"
            )
        elif is_at_chance(labels, answered, len(names)):
            faults.append(
                f"{predictions.name} is right on {(labels == answered).mean():.1%} of {len(predictions):,} images, "
                "hardly better than chance: are its weights loaded, and its classes in the order of the labels?"
            )
    return faults


def _notes_on_spelling(predictions: Predictions) -> list[str]:
    """Return a line if predictions differ from labels in nothing but capitals or spaces."""
    labels = {_folded(label): label for label in set(predictions.labels.tolist())}
    for answer in sorted(set(predictions.answers.tolist()) - set(labels.values())):
        if _folded(answer) in labels:
            return [f"{predictions.name}: the prediction {answer!r} is not the label {labels[_folded(answer)]!r}"]
    return []


def _folded(name: str) -> str:
    return "".join(name.casefold().split())


def _are_one_network(answered: "Asked", old: Sequence[Any]) -> bool:
    """Return whether OLD and NEW have the same weights and give the same answers."""
    digests = {model.weights_sha256 for model in answered.models}
    if len(old) > 1 or len(digests) > 1 or None in digests:
        return False
    return all(np.array_equal(of_old.answers, of_new.answers) for of_old, of_new in answered.answers.values())
