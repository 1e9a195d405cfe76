"""Which images did a new classifier break? Flips on real images first, then on moved, changed and made ones; one
verdict over all.

Importing this brings no torch: predictions are compared without it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import pyarrow as pa

from fmrgen.apps.explain.betting import ERROR
from fmrgen.apps.release.evidence import BROKE, FIXED, Evidence, Verdict, evidence_of, judged, one_of
from fmrgen.apps.release.flips import Flips, compare_predictions, evidence_of_classes
from fmrgen.apps.release.predictions import Predictions, predictions_of_columns, relabelled
from fmrgen.errors import UserError, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fmrgen.apps.explain.rows import JudgedImages
    from fmrgen.apps.release.band import Band
    from fmrgen.apps.release.confusions import Confusion
    from fmrgen.apps.release.made import Made
    from fmrgen.apps.release.on_images import Asked
    from fmrgen.apps.release.remedies import Remedy
    from fmrgen.apps.release.traits import Trait
    from fmrgen.config import ComponentConfig
    from fmrgen.engine.interfaces import Generator
    from fmrgen.jobs.compare import JobProgress
    from fmrgen.recipe.job import Recipe
    from fmrgen.recipe.objects import AnyClassifier
    from fmrgen.sources.base import LoadedExample, Source

Result = TypeVar("Result")
_BATCH = 64
_ALIKE = 0.02  # share of originals on which two networks that are one, converted, differ at most
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
        made: what images made against the two show; None without a recipe.
        changed: originals changed in each way, the strongest evidence first; only the first is in `evidence`.
        remedies: with a recipe or a split, changes of the originals under which NEW is right more often; neither these
            nor what follows is part of the verdict.
        confusions: with a recipe, classes that NEW may mix up.
        traits: with a recipe, what the originals that broke look like beside those that were fixed.
        band: how far apart the boundaries of the two lie, with a recipe, where they differ on at most 2 % of the
            originals or NEW has no gradient.
        notes: cautions; the faults if the verdict is `invalid`.
    """

    verdict: Verdict
    margin: float
    evidence: list[Evidence]
    flips: Flips
    made: "Made | None" = None
    changed: list[Evidence] = field(default_factory=list)
    band: "Band | None" = None
    remedies: "list[Remedy]" = field(default_factory=list)
    confusions: "list[Confusion]" = field(default_factory=list)
    traits: "list[Trait]" = field(default_factory=list)
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
        """The evidence that NEW is worse; of changed originals each change that is significant by itself."""
        worse = [entry for entry in self.evidence if entry.is_worse and entry.kind != "changed"]
        if any(entry.is_worse for entry in self.evidence if entry.kind == "changed"):
            strictest = ERROR / 2 / len(self.evidence) / len(self.changed)
            worse += [entry for place, entry in enumerate(self.changed) if place == 0 or entry.p_worse <= strictest]
        return worse

    @property
    def hints(self) -> "list[Remedy | Confusion | Trait]":
        """What else stands out: what may explain the errors of all classes comes first."""
        return [*self.remedies, *self.confusions, *self.traits]

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
    until_decided: bool = False,
    seed: int = 0,
    trust: bool = False,
    job_progress: "JobProgress | None" = None,
    on_note: Callable[[str], None] = lambda line: None,
) -> Diff:
    """Return which images NEW broke and which it fixed, and whether it is worse.

    By predictions: `diff(old, new, labels)`. By two classifiers on labelled images, or on a split's: `images=`. By
    images that are made against the two, beside originals that are moved and changed: `recipe=`. The last two run on
    every process of a launch, with the same outcome on each.

    Args:
        old: predictions: an array [N], or a data frame or mapping with columns `id`, `label` and `prediction`; or a
            classifier, as for `evaluate`. A list is of several trainings of one recipe, unless there is `recipe`.
        new: likewise, of the one that is to take its place.
        labels: the true classes [N], if `old` and `new` are arrays of predictions.
        images: a split, a dataset, a folder with a folder for each class, or a section of a source.
        recipe: source, generator, oracle and steps; its classifier is ignored. Two splits of the same originals are
            made, or resumed: in one OLD is right and NEW wrong, in the other it is the other way round.
        output: the dataset folder of these splits.
        margin: points of accuracy that NEW may lose, from 0 to less than 100. On moved, changed and made images it may
            lose as many more as trainings of one recipe are apart (5 to 30).
        by: columns to group the images by, `COLUMN` or `COLUMN:BOUND,…`; of predictions by default all with few
            values.
        reviewed: what some real images show, by their ids, where somebody looked at them: it replaces their labels.
        until_decided: with a recipe: test after each part of the images that are made, and stop once it is clear. The
            source must be in random order (`shuffle_seed`).
        seed: random seed for the order in which that test takes the images.
        trust: let the oracle in a split's recipe, which may be a stranger's, run the code and read the places that it
            names.
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
            until_decided=until_decided,
            seed=seed,
            job_progress=job_progress,
            on_note=on_note,
        )
    trainings = old if _are_trainings(old, images) else [old]
    if images is not None:
        return _diff_on_images(images, trainings, new, margin=margin, by=by, reviewed=reviewed or {}, trust=trust)
    of_old = [as_predictions(f"old {number}", values, labels) for number, values in enumerate(trainings, 1)]
    of_new = as_predictions("new", new, labels)
    *of_old, of_new = [relabelled(predictions, reviewed or {}) for predictions in (*of_old, of_new)]
    flips, evidence = compare_predictions(of_old, of_new, margin=margin, by=by, reviewed=reviewed or ())
    verdict, evidence = judged(evidence)
    notes = faults_of([*of_old, of_new])
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


def _diff_on_images(
    images: Any,
    old: "Sequence[AnyClassifier]",
    new: "AnyClassifier",
    *,
    margin: float,
    by: Sequence[str],
    reviewed: Mapping[str, str],
    trust: bool,
) -> Diff:
    """Return the comparison of classifiers on labelled images, or on a split's originals and perturbed images."""
    from fmrgen.apps.release.on_images import ask, judged_originals, notes_on_split

    answered = ask(images, old, new, by=by)
    column = answered.column
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
    notes = notes_on_split(answered)
    changed: list[Evidence] = []
    remedies: list[Remedy] = []
    if is_split:
        if len(old) > 1:
            raise UserError("old: a split takes one network; several trainings are for real images")
        if column == "original":
            evidence = [*evidence, *_evidence_on_perturbed(answered.answers["image"], margin)]
        notes += _saturation_notes(answered.answers["image"])
        rows, notes_on_originals = judged_originals(answered, trust=trust)
        notes += notes_on_originals
        if rows is not None:
            moved, changed, remedies = _on_changed_originals(rows, answered.networks[0], answered.class_names, margin)
            evidence = [*evidence, *moved, *_strongest(changed)]
    verdict, evidence = judged(evidence)
    if is_split and not changed and verdict in ("no worse", "fixed more"):
        verdict = "undecided"
        notes.append(
            f"{answered.opened.name}: perturbed images alone show too little to call NEW no worse, and there are no "
            "originals that both have right, to be moved and changed"
        )
    return replace(outcome, verdict=verdict, evidence=evidence, changed=changed, remedies=remedies, notes=notes)


def _diff_on_recipe(
    recipe: "Recipe",
    output: str | Path,
    old: "AnyClassifier",
    new: "AnyClassifier",
    *,
    margin: float,
    until_decided: bool,
    seed: int,
    job_progress: "JobProgress | None",
    on_note: Callable[[str], None],
) -> Diff:
    """Return the comparison on the originals of a recipe: as they are, moved, changed, and moved against the two."""
    from fmrgen.apps.release.conditions import ORIGINALS
    from fmrgen.apps.release.made import make_images
    from fmrgen.engine.options import WITHOUT_GRADIENT
    from fmrgen.recipe.objects import classifier_section

    if isinstance(old, list):
        raise UserError("old: with a recipe it is one network; several trainings are for real images")
    sections = classifier_section(old), classifier_section(new)
    if sections[0] == sections[1]:  # equal weights under two names are found when the first split is begun
        raise UserError("diff: old and new are one network: they have the same weights and settings; name two")
    recipe.check_perturbs()
    pair = Pair.of_recipe(recipe, *sections, ORIGINALS)
    made = on_made = None
    notes = []
    if pair.without_gradient and recipe.perturb.runs[0].update not in WITHOUT_GRADIENT:
        names = " and ".join(pair.without_gradient)
        notes.append(
            f"no images were made against the two, for {names} gave no gradient; perturb.update=nes asks it for one"
        )
    else:
        made, on_made = make_images(
            recipe,
            output,
            *sections,
            margin=margin,
            until_decided=until_decided,
            seed=seed,
            job_progress=job_progress,
            on_note=on_note,
        )
        for name in made.masked:
            notes.append(f"the gradient of {name} is masked, so images made against it say little; try a search")
    answered = pair.answers()
    of_old, of_new = answered.old, answered.new
    flips, evidence = compare_predictions([of_old], of_new, margin=margin, images="originals")
    outcome = Diff("undecided", margin, evidence, flips, made)
    faults = faults_of([of_old, of_new])
    if faults:
        return replace(outcome, verdict="invalid", notes=faults)
    moved, changed, remedies = _on_changed_originals(pair.rows, pair.old, pair.source.labels.names, margin)
    of_made = [] if on_made is None else [on_made]
    verdict, evidence = judged([*evidence, *moved, *_strongest(changed), *of_made])
    if made is not None and made.masked and verdict in ("no worse", "fixed more"):
        verdict = "undecided"
    band = None
    are_alike = (of_old.answers != of_new.answers).mean() <= _ALIKE
    if "OLD" not in pair.without_gradient and (are_alike or pair.without_gradient):
        band = pair.band(recipe)
    return replace(
        outcome,
        verdict=verdict,
        evidence=evidence,
        changed=changed,
        band=band,
        remedies=remedies,
        confusions=answered.confusions,
        traits=_traits(answered.flipped, flips),
        notes=notes,
    )


@dataclass(frozen=True)
class Pair:
    """Two networks, and originals to change and to move.

    Attributes:
        rows: originals, judged by NEW and the recipe's oracle.
        old: the network OLD.
        source: of the recipe.
        generator: of the recipe.
        without_gradient: the names of those whose gradient does not reach the images.
    """

    rows: "JudgedImages"
    old: "nn.Module"
    source: "Source"
    generator: "Generator"
    without_gradient: list[str]

    @classmethod
    def of_recipe(cls, recipe: "Recipe", old: "ComponentConfig", new: "ComponentConfig", most: int) -> "Pair":
        """Return the two networks on originals of a recipe, `most` of them at most."""
        from fmrgen.apps.explain.rows import JudgedImages
        from fmrgen.apps.release.band import has_gradient
        from fmrgen.distributed.launch import Processes
        from fmrgen.engine.interfaces import Generator
        from fmrgen.recipe.build import (
            ClassifierAndOracle,
            build_classifier,
            build_component,
            build_oracle,
            build_source,
        )

        source, device = build_source(recipe.source), Processes().device
        generator = build_component(recipe.generator, "generator", Generator, device)
        size, labels = generator.image_size, source.labels
        networks = {
            "OLD": build_classifier(old, labels, size, device, "old"),
            "NEW": build_classifier(new, labels, size, device, "new"),
        }
        judges = ClassifierAndOracle(networks["NEW"], build_oracle(recipe.oracle, labels, size, device))
        rows = JudgedImages.of_source(source, size, judges, recipe.perturb, most, device)
        without = [name for name, network in networks.items() if not has_gradient(network, rows.originals[:2])]
        return cls(rows, networks["OLD"], source, generator, without)

    def answers(self) -> "_Answered":
        """Return what OLD and NEW say of all originals, at the size of the generator's images."""
        import torch

        from fmrgen.apps.explain.rows import object_array
        from fmrgen.apps.release.traits import measures_of
        from fmrgen.engine.images import to_batch

        names = np.array([*self.source.labels.names, ""])  # -1, an output that is not finite, has the empty name
        networks = {"OLD": self.old, "NEW": self.rows.judges.classifier}
        ids: list[str] = []
        labels: list[np.ndarray] = []
        outputs: dict[str, list[_Outputs]] = {name: [] for name in networks}
        flipped: dict[str, list[tuple[str, np.ndarray]]] = {BROKE: [], FIXED: []}
        for loaded in self._batches():
            batch = to_batch(np.stack([example.image for example in loaded]), self.rows.originals.device)
            truth = np.array([example.label for example in loaded])
            accepted = None
            if self.source.accepts_several:
                accepted = object_array([example.accepted for example in loaded])
            ids += [str(example.id) for example in loaded]
            labels.append(truth)
            for name, network in networks.items():
                outputs[name].append(_outputs_of(network, batch, truth, accepted))
            old_right, new_right = (outputs[name][-1].answers == truth for name in networks)
            for side, is_flipped in ((BROKE, old_right & ~new_right), (FIXED, new_right & ~old_right)):
                if is_flipped.any():
                    measures = measures_of(batch[torch.from_numpy(is_flipped)])
                    flipped[side] += zip(names[truth[is_flipped]], measures, strict=True)
        all_labels = np.concatenate(labels)
        of_all = {name: _joined(parts) for name, parts in outputs.items()}
        predictions = []
        for name, of_network in of_all.items():
            of_names = names[of_network.answers]
            predictions.append(Predictions(name, np.array(ids), names[all_labels], of_names, of_network.sure))
        confusions = []
        if not self.source.accepts_several:
            confusions = _confusions(all_labels, of_all["OLD"], of_all["NEW"], self.source.labels.names)
        return _Answered(predictions[0], predictions[1], flipped, confusions)

    def _batches(self) -> "Iterator[list[LoadedExample]]":
        """Yield the originals that can be read."""
        from fmrgen.sources.base import LoadedExample

        for start in range(0, len(self.source), _BATCH):
            stop = min(start + _BATCH, len(self.source))
            examples = self.source.load(start, stop, self.generator.image_size)
            loaded = [example for example in examples if isinstance(example, LoadedExample)]
            if loaded:
                yield loaded

    def band(self, recipe: "Recipe") -> "Band":
        """Return how far apart the boundaries of the two lie."""
        from fmrgen.apps.release.band import band_between

        work = partial(band_between, self.rows, self.old, self.generator, recipe.perturb.runs[0])
        return by_the_first_process(work)


class _Answered(NamedTuple):
    """What two networks say of all originals.

    Attributes:
        old: predictions of OLD.
        new: predictions of NEW.
        flipped: of each original that broke, or was fixed, the class and the amount of each attribute [A].
        confusions: classes that NEW may mix up.
    """

    old: Predictions
    new: Predictions
    flipped: dict[str, list[tuple[str, np.ndarray]]]
    confusions: "list[Confusion]"


class _Outputs(NamedTuple):
    """What a network says of N originals.

    Attributes:
        answers: its labels, -1 for outputs that are not finite.
        sure: its probabilities for these.
        next_choices: what it finds likeliest besides the true label.
        margins: by how much the logit of the true label is larger.
    """

    answers: np.ndarray
    sure: np.ndarray
    next_choices: np.ndarray
    margins: np.ndarray


def _outputs_of(network: "nn.Module", batch: "Tensor", truth: np.ndarray, accepted: np.ndarray | None) -> _Outputs:
    """Return what a network says of a batch, given the true labels and others that are accepted."""
    import torch

    from fmrgen.metrics.rows import as_label
    from fmrgen.recipe.build import logits_of

    logits = logits_of(network, batch)
    highest = logits.softmax(1).max(1)
    predicted = torch.where(torch.isfinite(logits).all(1), highest.indices, -1).cpu().numpy()
    column = torch.from_numpy(truth).to(logits.device)[:, None]
    others = logits.scatter(1, column, -torch.inf).max(1)
    margins = logits.gather(1, column)[:, 0] - others.values
    return _Outputs(
        as_label(predicted, truth, accepted),
        highest.values.double().cpu().numpy(),
        others.indices.cpu().numpy(),
        margins.double().cpu().numpy(),
    )


def _joined(parts: Sequence[_Outputs]) -> _Outputs:
    """Return what a network said of all batches."""
    return _Outputs(*[np.concatenate(columns) for columns in zip(*parts, strict=True)])


def _confusions(labels: np.ndarray, old: _Outputs, new: _Outputs, names: Sequence[str]) -> "list[Confusion]":
    """Return the classes that NEW may mix up, from the originals that both have right."""
    from fmrgen.apps.release.confusions import NextChoices, confusions_of

    is_right = (old.margins > 0) & (new.margins > 0)
    choices = [NextChoices(outputs.next_choices[is_right], outputs.margins[is_right]) for outputs in (old, new)]
    return confusions_of(labels[is_right], choices[0], choices[1], names)


def _traits(flipped: Mapping[str, Sequence[tuple[str, np.ndarray]]], flips: Flips) -> "list[Trait]":
    """Return what broke looks like beside what was fixed, without the classes that are worse, which have a name."""
    from fmrgen.apps.release.traits import traits_of

    worse = {kind.name for kind in flips.classes if kind.is_worse}
    broke = np.array([measures for name, measures in flipped[BROKE] if name not in worse])
    fixed = np.array([measures for name, measures in flipped[FIXED] if name not in worse])
    return traits_of(broke, fixed)


def _on_changed_originals(
    rows: "JudgedImages", old: "nn.Module", class_names: Sequence[str], margin: float
) -> "tuple[list[Evidence], list[Evidence], list[Remedy]]":
    """Return the evidence of originals that are moved at random, by family, and that are changed, by change.

    Also the changes under which NEW is right more often.
    """
    from fmrgen.apps.release.conditions import NoOracle, under_changes, under_moves
    from fmrgen.apps.release.remedies import remedies_of

    has_oracle = not isinstance(rows.judges.oracle, NoOracle)

    def work() -> "tuple[list[Evidence], list[Evidence], list[Remedy]]":
        moved = under_moves(rows, old, class_names, margin=margin) if has_oracle else []
        changed = under_changes(rows, old, margin=margin, has_oracle=has_oracle)
        return moved, changed, remedies_of(rows, old)

    return by_the_first_process(work)


def by_the_first_process(work: Callable[[], Result]) -> Result:
    """Return the result of `work`, which the first process of a launch does for all."""
    from fmrgen.distributed.launch import Processes

    processes = Processes()
    result = processes.together(lambda: work() if processes.is_first else None)
    return cast(Result, processes.gather(result)[0])


def _strongest(changed: list[Evidence]) -> list[Evidence]:
    """Return what all changes show together: the strongest, as one of so many; nothing for none."""
    return [one_of(len(changed), changed[0])] if changed else []


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
        f"can't show; have images made against the two ({option('recipe', 'recipe')})"
    ]


def faults_of(answers: Sequence[Predictions]) -> list[str]:
    """Return a line for each network that does not work.

    Its outputs are not finite, which would count as wrong answers, or are in another order than the classes, or it is
    at chance.
    """
    from fmrgen.metrics.cautions import best_order, is_at_chance, outputs_in_another_order

    faults = []
    for predictions in answers:
        texts = pa.concat_arrays([pa.array(predictions.labels), pa.array(predictions.answers)]).dictionary_encode()
        labels, answered = np.split(texts.indices.to_numpy(), 2)
        not_finite = int((predictions.answers == "").sum())
        if not_finite:
            faults.append(
                f"{predictions.name} gives outputs that are not finite on {not_finite:,} of {len(predictions):,} "
                "images: check its weights and its preprocessing"
            )
        elif outputs_in_another_order(labels, answered, len(texts.dictionary)):
            names = texts.dictionary.to_pylist()
            order = best_order(labels, answered, len(names))
            place = next(place for place, label in enumerate(order.tolist()) if label != place)
            faults.append(
                f"{predictions.name} is right on {(labels == answered).mean():.1%} of {len(predictions):,} images, and "
                f"on {(order[answered] == labels).mean():.1%} if its answers are put in another order: {names[place]} "
                f"is mostly {names[order[place]]}; list its classes, in the order of its outputs, as class_names"
            )
        elif is_at_chance(labels, answered, len(texts.dictionary)):
            faults.append(
                f"{predictions.name} is right on {(labels == answered).mean():.1%} of {len(predictions):,} images, "
                "hardly better than chance: are its weights loaded, and its classes in the order of the labels?"
            )
    return faults


def _are_one_network(answered: "Asked", old: Sequence[Any]) -> bool:
    """Return whether OLD and NEW have the same weights and give the same answers."""
    digests = {model.weights_sha256 for model in answered.models}
    if len(old) > 1 or len(digests) > 1 or None in digests:
        return False
    return all(np.array_equal(of_old.answers, of_new.answers) for of_old, of_new in answered.answers.values())
