"""Two networks on labelled images: real ones, or a split's originals and perturbed images."""

import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from fmrgen.apps.release.evidence import Evidence, judged
from fmrgen.apps.release.flips import compare_predictions
from fmrgen.apps.release.outcome import Diff, faults_of, notes_on_swapped
from fmrgen.apps.release.predictions import Predictions, few
from fmrgen.classifiers.base import preprocessing_of
from fmrgen.distributed.launch import Processes
from fmrgen.distributed.rank import note
from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb
from fmrgen.metrics.rows import as_label
from fmrgen.recipe.job import load_fixed_sets
from fmrgen.recipe.objects import AnyClassifier
from fmrgen.sources.base import SourceConfig
from fmrgen.sources.imagefolder import Config as ImageFolder
from fmrgen.split.models import LoadedClassifier
from fmrgen.split.open import has_class_folders, open_source, open_split
from fmrgen.split.rows import Split, joined_columns

_READ = 512  # rows at a time: photos come in many sizes, and those of one size are classified together
_BATCH = 64  # images of them that a network gets at once
_MOST_NAMED = 20  # unreadable files
_SATURATED = 95.0  # percent: accuracy of both on perturbed images above which these show too little


def diff_on_images(
    images: Any, old: Sequence[AnyClassifier], new: AnyClassifier, *, margin: float, by: Sequence[str] = ()
) -> tuple[Diff, list[LoadedClassifier], bool]:
    """Compare classifiers on labelled images, or on a split's originals and perturbed images.

    Takes what `diff_classifiers` takes; `old` are trainings of the classifier in use. Returns the outcome, the loaded
    classifiers, NEW last, and whether all work and NEW is another network.
    """
    opened = opened_images(images)
    if isinstance(images, str | Path) and Path(images).is_dir() and "label" not in opened.features:
        raise UserError(
            f"{images}: has no labels; put the images of each class, two at least, into a folder of its name"
        )
    is_split, column = opened.provenance is not None, column_of_real_images(opened)
    if is_split and len(old) > 1:
        raise UserError("old: a split takes one network; several trainings work on real images only")
    models, predictions = _predict(opened, old, new, by)
    *of_old, of_new = predictions[column]
    of_images = "images"
    if is_split:
        of_images = "originals" if column == "original" else "perturbed images"
    flips, evidence = compare_predictions(of_old, of_new, margin=margin, by=by, images=of_images)
    outcome = Diff("undecided", margin, evidence, flips)
    faults = faults_of([*of_old, of_new])
    if faults:
        return replace(outcome, verdict="invalid", notes=faults), models, False
    if _are_one_network(models, predictions.values()):
        notes = ["OLD and NEW are one network: they have the same weights and settings"]
        return replace(outcome, notes=notes), models, False
    notes = _preprocessing_notes(models) + _notes_on_absent(models[-1].class_names or (), of_new.labels)
    if of_images != "perturbed images":  # whose two classes may well be mistaken for each other
        notes += notes_on_swapped([*of_old, of_new])
    of_others: list[Evidence] = []
    if is_split:
        notes = _notes_on_split(opened, models) + notes + _saturation_notes(predictions["image"])
        if column == "original" and len(predictions["image"][0]):
            *old_perturbed, new_perturbed = predictions["image"]
            _, of_others = compare_predictions(old_perturbed, new_perturbed, margin=margin, images="perturbed images")
            of_others[0] = replace(of_others[0], kind="perturbed")
    verdict, evidence = judged(evidence, of_others, has_suspect=flips.has_suspect(margin))
    return replace(outcome, verdict=verdict, evidence=evidence, notes=notes), models, True


def _predict(
    opened: Split, old: Sequence[AnyClassifier], new: AnyClassifier, by: Sequence[str]
) -> tuple[list[LoadedClassifier], dict[str, list[Predictions]]]:
    """Return classifiers, OLD's trainings and then NEW, and their predictions by column of images.

    Those for `image` are of the valid rows.
    """
    processes = Processes()
    opened.check_columns()
    names = [f"OLD {number}" for number in range(1, len(old) + 1)] if len(old) > 1 else ["OLD"]
    models = []
    for name, classifier in zip([*names, "NEW"], [*old, new], strict=True):
        models.append(LoadedClassifier.load(name, classifier, processes.device))
    device = processes.device
    labels = opened.labels_for([partial(models.__getitem__, number) for number in range(len(models))], device)
    try:
        predicted = opened.predictions(models, read=_READ, batch_size=_BATCH, processes=processes, device=device)
    except UserError:
        _check_images(opened)
        raise
    values: dict[str, list[Any]] = {grouping.column: [] for grouping in opened.groupings(by)}
    parts = []
    for part in opened.parts(labels=labels, stored=[*values], names=["id", "label", "valid", "accepted_labels"]):
        parts.append(part.columns)
        for name in values:
            values[name] += part.table[name].to_pylist()
    columns = joined_columns(opened.name, parts)
    ids = _ids(opened, columns)
    groups = {name: np.array(of_rows, dtype=object) for name, of_rows in values.items()}
    class_names = np.array([*labels.names, ""])  # what gives no finite output has no prediction
    by_column: dict[str, list[Predictions]] = {}
    for column in opened.image_columns:
        for name, of_columns in predicted.items():
            outputs = of_columns[column]
            prediction = as_label(outputs.prediction, columns["label"], columns.get("accepted_labels"))
            texts, confidence = class_names[prediction], outputs.confidence.astype(np.float64)
            predictions = Predictions(name, ids, class_names[columns["label"]], texts, confidence, groups)
            if column == "image" and "valid" in columns:
                predictions = predictions.of(np.flatnonzero(columns["valid"]))
            by_column.setdefault(column, []).append(predictions)
    return models, by_column


def column_of_real_images(opened: Split) -> str:
    """Return the column of a split's originals, or that of the images of what has none."""
    return "original" if "original" in opened.image_columns else "image"


def opened_images(images: Any) -> Split:
    """Return images, as of `diff_on_images` or a config of a source, opened."""
    if isinstance(images, SourceConfig):
        return open_source(images.kind, images)
    if not isinstance(images, str | Path):
        return open_split(images)
    text = str(images)
    if not text.startswith(("{", "sets/")) and not text.endswith((".yaml", ".yml")):
        return open_split(text, download=True)
    (fixed,) = load_fixed_sets([f"images={text}"]).values()
    sources = fixed.sources("images")
    if len(sources) > 1:
        raise UserError(f"{text}: has {len(sources)} sets; name a section of one")
    return open_source(text, next(iter(sources.values())))


def _check_images(opened: Split) -> None:
    """Raise UserError, which names them all, if images are unreadable."""
    faults = {}
    tables = opened.tables(_READ, opened.image_columns)
    rows = chain.from_iterable(table.select(opened.image_columns).to_pylist() for table in tables)
    for row, stored in enumerate(rows):
        for column, image in stored.items():
            try:
                open_rgb(opened.image_of(image))
            except UserError as error:
                faults[(image or {}).get("path") or f"row {row}: its {column}"] = error
    if faults:
        listed = ", ".join(f"{name} ({error})" for name, error in list(faults.items())[:_MOST_NAMED])
        more = ", …" if len(faults) > _MOST_NAMED else ""
        raise UserError(f"{opened.name}: {len(faults)} images are unreadable: {listed}{more}; repair or remove them")


def _ids(opened: Split, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return what images are called, [N]: their ids, or the names of their files, or their places."""
    if "id" in columns:
        return columns["id"].astype(str)
    if "id" in opened.features:
        raise UserError(f"{opened.name}: its ids are not unique; make them so, or drop the column")
    tables = opened.tables(_READ, ["image"])
    paths = chain.from_iterable(pc.struct_field(table["image"], "path").to_pylist() for table in tables)
    names = [path or "" for path in paths]
    if len(set(names)) < len(names):
        return np.arange(len(names)).astype(str)
    if opened.repo is not None and Path(opened.repo).is_dir():
        names = [os.path.relpath(name, opened.repo) for name in names]
    return np.array(names)


def stored_images(images: Any, wanted: Collection[str]) -> dict[str, bytes | str]:
    """Return some images, as of `diff_on_images`, by what they are called: their files' bytes or paths."""
    folder = images.path if isinstance(images, ImageFolder) else images
    if isinstance(folder, str | Path) and has_class_folders(Path(folder)):
        return {name: str(Path(folder) / name) for name in wanted}
    opened = opened_images(images)
    column = column_of_real_images(opened)
    names = _ids(opened, opened.columns(["id", "label"], opened.labels or opened.observed_labels()))
    files = {}
    images_of_rows = chain.from_iterable(table[column] for table in opened.tables(_READ, [column]))
    for name, image in zip(names.tolist(), images_of_rows, strict=True):
        if name in wanted:
            files[name] = opened.image_of(image.as_py())
    return files


def _preprocessing_notes(models: Sequence[LoadedClassifier]) -> list[str]:
    """Return a line if OLD and NEW preprocess images in different ways, which alone can make them differ."""
    old, new = (preprocessing_of(model.module) for model in (models[0], models[-1]))
    if old != new:
        return [f"the networks preprocess images in different ways: OLD {old}; NEW {new}"]
    note(f"both networks get images {old}", logging.INFO)
    return []


def _notes_on_absent(class_names: Sequence[str], labels: np.ndarray) -> list[str]:
    """Return a line on the classes of NEW without images, of which the verdict knows nothing."""
    present = set(labels.tolist())
    absent = [name for name in class_names if name not in present]
    if not absent or len(absent) == len(class_names):  # the images' labels may have other names than its outputs
        return []
    return [f"no image shows {few(absent)}: nothing is known of {len(absent)} of NEW's {len(class_names)} classes"]


def _notes_on_split(opened: Split, models: Sequence[LoadedClassifier]) -> list[str]:
    """Return a line on the worth of a verdict if the split was generated against one of the two."""
    provenance = opened.provenance
    if provenance is None or provenance.weights_sha256.classifier is None:
        return []
    attacked = [model.name for model in models if model.has_weights(provenance.weights_sha256.classifier)]
    if len(attacked) != 1:
        return []
    answer = "right" if attacked[0] == "OLD" else "wrong"
    return [
        f"the split was generated against {attacked[0]} alone: that NEW is {answer} on it says little; use that of a "
        "third network"
    ]


def _saturation_notes(of_both: Sequence[Predictions]) -> list[str]:
    """Return a line if perturbed images hardly fool either, so that they can't show what NEW lost."""
    if any(100 * (each.predicted == each.labels).mean() < _SATURATED for each in of_both):
        return []
    return [
        f"both are right on more than {_SATURATED:.0f} % of the perturbed images, which hardly fool either: a loss "
        f"can't show; use a split generated against a network like these"
    ]


def _are_one_network(models: Sequence[LoadedClassifier], predictions: Iterable[Sequence[Predictions]]) -> bool:
    """Return whether OLD and NEW have the same weights and, for each kind of images, the same predictions."""
    digests = {model.weights_sha256 for model in models}
    if len(models) > 2 or len(digests) > 1 or None in digests:
        return False
    return all(np.array_equal(of_old.predicted, of_new.predicted) for of_old, of_new in predictions)
