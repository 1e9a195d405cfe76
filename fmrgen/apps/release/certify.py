"""Is a failure of OLD fixed in NEW? The answers of both, and of controls, to real images; and a new split against NEW.

Importing this brings no torch: predictions are compared without it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fmrgen.apps.release.certificate import (
    MADE,
    MOST_LISTED,
    ORIGINALS,
    Certificate,
    Errors,
    Requirement,
    Shift,
    State,
    certify_errors,
    reduction,
)
from fmrgen.apps.release.claim import Claim, Kind, read_claim
from fmrgen.apps.release.diff import Pair, as_predictions, by_the_first_process, diff, faults_of
from fmrgen.apps.release.flips import listed_flips
from fmrgen.apps.release.predictions import Predictions, matched
from fmrgen.errors import UserError, option

if TYPE_CHECKING:
    from fmrgen.apps.explain.attributes import Attribute
    from fmrgen.apps.explain.interventions import Hypothesis
    from fmrgen.apps.release.evidence import Evidence
    from fmrgen.jobs.compare import JobProgress
    from fmrgen.recipe.job import Recipe
    from fmrgen.recipe.objects import AnyClassifier

MARGIN = 3.0  # points that NEW may lose elsewhere
_OLD, _NEW = "OLD", "NEW"
_MOST_ORIGINALS = 1000  # that are changed as the finding says


def certify(
    claim: "str | Claim",
    old: Any,
    new: Any,
    labels: Any = None,
    *,
    controls: Mapping[str, Any] | None = None,
    images: Any = None,
    shifts: Mapping[str, Any] | None = None,
    trained_on: Sequence[Any] = (),
    margin: float = MARGIN,
    recipe: "Recipe | None" = None,
    output: str | Path | None = None,
    trust: bool = False,
    job_progress: "JobProgress | None" = None,
    on_note: Callable[[str], None] = lambda line: None,
) -> Certificate:
    """Return whether a failure of OLD is fixed in NEW, and what that cost.

    By predictions: `certify(claim, old, new, labels, controls={"another seed": …})`. By classifiers on labelled images:
    `images=`. With a recipe too, also on originals that are moved and changed, and on a new split against NEW.

    Args:
        claim: what fails, as of `diff --claim`: `smaller shapes`, `class stop`, `yield → stop`, `width < 30`, an
            `explain.json`, an earlier `certificate.json`, or a folder of labelled images.
        old: predictions: an array of classes [N] or of scores [N, K], or a data frame or mapping with columns `id`,
            `label` and `prediction`; or a classifier, as for `evaluate`.
        new: likewise, of the repaired network.
        labels: the true classes [N], if `old` and `new` are arrays of predictions.
        controls: equal trainings without the cure, by name, in the form of `new`: that of another seed first. Without
            one nothing is certified.
        images: labelled real images that no network was trained on, as of `diff`.
        shifts: labelled images of other places, by name, likewise; of predictions, pairs of those of OLD and NEW.
        trained_on: what the networks were trained on. Images that are among these are left out. What folders of
            `fmrgen train` were trained on is known.
        margin: points that NEW may lose elsewhere, from 0 to less than 100.
        recipe: source, generator, oracle and steps, to make images against OLD and NEW.
        output: the dataset folder of these.
        trust: let recipes of training folders and splits run the code and read the places that they name.
        job_progress: returns a progress callback for a split's recipe.
        on_note: called with each note, one line.

    Raises:
        UserError: the claim is about other images, the networks are one, or something can't be used, with the cure.
    """
    if not 0 <= margin < 100:
        raise UserError(f"{option('margin', 'margin')}: must be points from 0 to less than 100, not {margin:g}")
    if recipe is not None and output is None:
        raise UserError("output: name the dataset folder of the images that are made")
    claim = read_claim(claim) if isinstance(claim, str) else claim
    if controls is not None and not isinstance(controls, Mapping):
        raise UserError("controls: give them by name, as {'another seed': …}")
    if controls and {_OLD, _NEW} & set(controls):
        raise UserError(f"{option('controls', 'controls')}: none can be called OLD or NEW; rename it")
    networks = {_OLD: old, _NEW: new, **(controls or {})}
    shifted = {}
    if images is None:
        if trained_on:
            raise UserError(
                f"{option('trained-on', 'trained_on')}: images can't be left out of predictions; leave them out of "
                "their files, or name classifiers"
            )
        real = _of_predictions(networks, labels)
        for name, pair in (shifts or {}).items():
            shifted[name] = _shift_of_predictions(name, pair)
    else:
        training = _Training(networks, trained_on, trust=trust)
        real = _of_images(claim, images, networks, training)
        for name, place in (shifts or {}).items():
            shifted[name], notes = _shift_of_images(place, networks, training)
            real.notes.extend(notes)
    certificate = _certificate(claim, real, shifted, margin)
    if recipe is None:
        not_asked = Requirement(MADE, ORIGINALS, "not asked", limit=margin)
        return certificate.with_more(repair=[], cost=[not_asked], notes=[])
    if certificate.verdict == "invalid":
        return certificate
    return _with_new_split(
        certificate, claim, recipe, str(output), old, new, margin=margin, job_progress=job_progress, on_note=on_note
    )


class _RealImages(NamedTuple):
    """What all networks say of the real images.

    Attributes:
        predictions: by network, all in one order: OLD, NEW, and the controls.
        measure: returns what an attribute measures in each image.
        is_of_kind: which images are of the kind, where they were given as a folder of their own.
        notes: cautions.
    """

    predictions: dict[str, Predictions]
    measure: "Callable[[Attribute], np.ndarray]"
    is_of_kind: np.ndarray | None
    notes: list[str]


def _certificate(claim: Claim, real: _RealImages, shifts: Mapping[str, Shift], margin: float) -> Certificate:
    """Return the certificate on real images."""
    old, new = real.predictions[_OLD], real.predictions[_NEW]
    _check_networks(real.predictions)
    kind = claim.of_kind(old, real.measure) if real.is_of_kind is None else Kind(real.is_of_kind)
    is_of_kind = kind.rows
    is_elsewhere = np.ones(len(old), dtype=bool) if claim.answer is not None else ~is_of_kind
    errors = {}
    for name, predictions in real.predictions.items():
        wrong = predictions.answers != predictions.labels
        of_kind = wrong & is_of_kind
        if claim.answer is not None:
            of_kind &= predictions.answers == claim.answer
        errors[name] = Errors(of_kind, wrong & ~of_kind)
    certificate = certify_errors(
        claim.words,
        errors,
        is_of_kind,
        is_elsewhere,
        old.labels,
        margin=margin,
        shifts=shifts,
        notes=real.notes,
    )
    faults = faults_of([old, new])
    if faults:
        return replace(certificate, verdict="invalid", notes=faults)
    of_old, of_new = errors[_OLD].of_kind, errors[_NEW].of_kind
    return replace(
        certificate,
        cut=kind.cut,
        mended=listed_flips(old, new, of_old & ~of_new)[:MOST_LISTED],
        left=listed_flips(old, new, of_new)[:MOST_LISTED],
    )


def _check_networks(predictions: Mapping[str, Predictions]) -> None:
    """Raise UserError if two networks are one: they give the same answers on every image, mistakes among them."""
    names = list(predictions)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            answers, others = predictions[first].answers, predictions[second].answers
            # Two may both be right on all images; that they make the same mistakes is no chance.
            if np.array_equal(answers, others) and (answers != predictions[first].labels).any():
                raise UserError(
                    f"claim: {first} and {second} give the same answers on every image: they are one network, or one "
                    "file; name two"
                )


def _of_predictions(networks: Mapping[str, Any], labels: Any) -> _RealImages:
    tables = {name: as_predictions(name, values, labels) for name, values in networks.items()}
    old = tables[_OLD]
    in_order = {name: matched(old, table)[1] for name, table in tables.items()}
    columns: dict[str, np.ndarray] = {}
    for table in in_order.values():
        columns = {**table.columns, **columns}
    in_order[_OLD] = replace(old, columns=columns)

    def measure(attribute: "Attribute") -> np.ndarray:
        raise UserError(
            f"claim: {attribute.name} is measured in images, and there are predictions alone; name two classifiers, "
            f"and pass {option('images', 'images')}"
        )

    notes = ["what the networks were trained on is not known: that they have seen none of the images is your word"]
    return _RealImages(in_order, measure, None, notes)


def _shift_of_predictions(name: str, pair: Any) -> Shift:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise UserError(f"shifts: give the predictions of OLD and of NEW for {name}, as a pair")
    old, new = matched(as_predictions(f"{name}, OLD", pair[0], None), as_predictions(f"{name}, NEW", pair[1], None))
    return Shift(old.answers != old.labels, new.answers != new.labels)


class _Training:
    """What the networks were trained on, as far as it is known.

    Attributes:
        sets: images and splits.
        unknown: the networks of which nothing is known.
    """

    def __init__(self, networks: Mapping[str, Any], trained_on: Sequence[Any], *, trust: bool) -> None:
        from fmrgen.apps.release.seen import images_of_training

        self.sets = list(trained_on)
        self.unknown = []
        for name, classifier in networks.items():
            of_network = images_of_training(classifier, trust=trust)
            self.sets += [place for place in of_network if place not in self.sets]
            if not of_network and not trained_on:
                self.unknown.append(name)

    def has(self, looks: np.ndarray) -> np.ndarray:
        """Return which images a network was trained on, bool [N], by their looks."""
        from fmrgen.apps.release.seen import nearly_among

        is_seen = np.zeros(len(looks), dtype=bool)
        for others in self._looks:
            is_seen |= nearly_among(looks, others)
        return is_seen

    @cached_property
    def _looks(self) -> list[np.ndarray]:
        """Of the images of each set; they are read once, for the images and for those of other places."""
        from fmrgen.apps.release.seen import looks_of_all

        of_sets = []
        for place in self.sets:
            of_sets += looks_of_all(place)
        return of_sets


def _shift_of_images(images: Any, networks: Mapping[str, Any], training: _Training) -> tuple[Shift, list[str]]:
    """Return the errors of OLD and NEW on images of another place that neither was trained on, and notes."""
    from fmrgen.apps.release.on_images import ask
    from fmrgen.apps.release.seen import looks_of

    answered = ask(images, [networks[_OLD]], networks[_NEW])
    is_new, notes = _new_images(looks_of(answered.opened, answered.column), training, f" of {answered.opened.name}")
    of_old, of_new = (predictions.of(is_new) for predictions in answered.of_real_images)
    return Shift(of_old.answers != of_old.labels, of_new.answers != of_new.labels), notes


def _new_images(looks: np.ndarray, training: _Training, of_place: str = "") -> tuple[np.ndarray, list[str]]:
    """Return which images count, bool [N], and notes on the others: copies, and what a network was trained on.

    Raises UserError if none does.
    """
    from fmrgen.apps.release.seen import first_of_each

    notes = []
    is_first = first_of_each(looks)
    copies = int((~is_first).sum())
    if copies:
        notes.append(f"{copies:,} of {len(looks):,} images{of_place} are there before, and count once")
    is_seen = training.has(looks)
    seen = int(is_seen.sum())
    if seen:
        notes.append(
            f"{seen:,} of {len(looks):,} images{of_place} are among those that a network was trained on, and are left "
            "out"
        )
    if is_seen.all():
        raise UserError(f"claim: the networks were trained on all of these images{of_place}; name others")
    return is_first & ~is_seen, notes


def _of_images(claim: Claim, images: Any, networks: Mapping[str, Any], training: _Training) -> _RealImages:
    """Return what classifiers say of labelled images, each once, without those that a network was trained on."""
    from fmrgen.apps.release.on_images import ask, opened_images
    from fmrgen.apps.release.seen import looks_of, measures_of_images

    old, new, *controls = networks.values()
    places = [images] if claim.folder is None else [claim.folder, images]
    by = []
    if claim.column is not None:
        by.append(claim.column)
        columns = opened_images(images).features
        if claim.column not in columns:
            raise UserError(f"claim: the images have no column {claim.column} (they have: {', '.join(columns)})")
    all_answered = [ask(place, [old, *controls], new, by=by) for place in places]
    parts = []
    for answered in all_answered:
        of_old, *of_controls, of_new = answered.of_real_images
        parts.append(dict(zip(networks, (of_old, of_new, *of_controls), strict=True)))
    looks = np.concatenate([looks_of(answered.opened, answered.column) for answered in all_answered])
    is_new, notes = _new_images(looks, training)
    if training.unknown:
        notes.append(
            f"what {', '.join(training.unknown)} learned from is not known; name it with "
            f"{option('trained-on', 'trained_on')}, so that images that they have seen are left out"
        )
    predictions = {}
    for name in networks:
        predictions[name] = _joined([part[name] for part in parts]).of(is_new)

    def measure(attribute: "Attribute") -> np.ndarray:
        measures = [measures_of_images(answered.opened, answered.column, attribute) for answered in all_answered]
        return np.concatenate(measures)[is_new]

    is_of_kind = None
    if claim.folder is not None:
        is_of_kind = (np.arange(len(is_new)) < len(parts[0][_OLD]))[is_new]
        if not is_of_kind.any():
            raise UserError(f"claim: the networks were trained on all images of {claim.folder}; name others")
        if is_of_kind.all():
            raise UserError(
                f"claim: all images are those of {claim.folder}; name others with {option('images', 'images')}"
            )
    return _RealImages(predictions, measure, is_of_kind, notes)


def _joined(parts: Sequence[Predictions]) -> Predictions:
    """Return predictions for several sets of images as one; ids of the second and later sets begin with its number."""
    first, *others = parts
    for number, other in enumerate(others, start=2):
        ids = np.array([f"{number}: {example_id}" for example_id in other.ids.tolist()])
        first = Predictions(
            first.name,
            np.concatenate([first.ids, ids]),
            np.concatenate([first.labels, other.labels]),
            np.concatenate([first.answers, other.answers]),
        )
    return first


def _with_new_split(
    certificate: Certificate,
    claim: Claim,
    recipe: "Recipe",
    output: str,
    old: "AnyClassifier",
    new: "AnyClassifier",
    *,
    margin: float,
    job_progress: "JobProgress | None",
    on_note: Callable[[str], None],
) -> Certificate:
    """Return the certificate with what images show that are made against NEW: is the failure gone, or has it moved?"""
    from fmrgen.recipe.objects import classifier_section

    outcome = diff(old, new, recipe=recipe, output=output, margin=margin, job_progress=job_progress, on_note=on_note)
    worse = [entry for entry in outcome.worse if entry.kind != "originals"]
    state: State = "fails" if worse else "holds"
    originals = 0 if outcome.made is None else outcome.made.rows
    moved = Requirement(MADE, ORIGINALS, state, originals, limit=margin, shown=_worse(worse))
    further = []
    if claim.hypothesis is not None:
        pair = Pair.of_recipe(recipe, classifier_section(old), classifier_section(new), _MOST_ORIGINALS)
        further.append(by_the_first_process(partial(_on_changed_originals, claim.hypothesis, pair)))
    return certificate.with_more(repair=further, cost=[moved], notes=outcome.notes)


def _worse(entries: "Sequence[Evidence]") -> str:
    """Return on what NEW is worse, or that nothing is."""
    return "; ".join(entry.line for entry in entries) or "nothing is significantly worse"


def _on_changed_originals(hypothesis: "Hypothesis", pair: Pair) -> Requirement:
    """Return the requirement that NEW makes fewer errors than OLD on originals that are changed so.

    They are those that both have right as they are, changed as far as the oracle sees their class.
    """
    from fmrgen.apps.explain.explain import originals_of, testable

    by_new = testable(pair.rows)
    by_old = testable(by_new.judged_by(pair.old))
    wrong = []
    for tested in (by_old, by_old.judged_by(by_new.judges.classifier)):
        wrong.append(originals_of(tested).moved(hypothesis).answers != tested.labels)
    words = f"errors than OLD on originals changed to {hypothesis.words}"
    return reduction(words, ORIGINALS, *wrong)
