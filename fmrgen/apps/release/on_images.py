"""Two networks on labelled images: real ones, or a split's originals and perturbed images."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from fmrgen.apps.release.predictions import Predictions
from fmrgen.classifiers.base import preprocessing_of
from fmrgen.distributed.launch import Processes
from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb
from fmrgen.labels import Labels
from fmrgen.metrics.rows import as_label
from fmrgen.recipe.job import load_fixed_sets
from fmrgen.recipe.objects import AnyClassifier
from fmrgen.sources.base import SourceConfig
from fmrgen.sources.imagefolder import Config as ImageFolder
from fmrgen.split.classify import Answers, classify
from fmrgen.split.models import LoadedClassifier
from fmrgen.split.open import has_class_folders, open_source, open_split
from fmrgen.split.rows import Split, reading

_READ = 512  # rows at a time: photos come in many sizes, and those of one size are classified together
_BATCH = 64  # images of them that a network gets at once
_MOST_NAMED = 20  # unreadable files
_SECTIONS = ("{", "sets/")  # what names of sources begin with
_RECIPES = (".yaml", ".yml")


class Asked(NamedTuple):
    """What networks say of labelled images.

    Attributes:
        answers: by column of images, `original` or `image`, the predictions of each network: trainings of OLD, then
            NEW. Those for `image` are of the valid rows.
        opened: the images.
        models: OLD's first training and NEW, to be asked more.
        networks: the same, which answer in the labels of the images.
        class_names: by label.
    """

    answers: dict[str, list[Predictions]]
    opened: Split
    models: list[LoadedClassifier]
    networks: list[nn.Module]
    class_names: Sequence[str]

    @property
    def column(self) -> str:
        """The column of real images."""
        return column_of_real_images(self.opened)

    @property
    def of_real_images(self) -> list[Predictions]:
        """The predictions of each network for the real images."""
        return self.answers[self.column]


def column_of_real_images(opened: Split) -> str:
    """Return the column of a split's originals, or that of the images of what has none."""
    return "original" if "original" in opened.image_columns else "image"


def ask(images: Any, old: Sequence[AnyClassifier], new: AnyClassifier, *, by: Sequence[str] = ()) -> Asked:
    """Ask networks about labelled images.

    Args:
        images: a split or a dataset of images and labels, by its reference or in memory; a folder with a folder for
            each class; or a section or recipe of a source.
        old: trainings of the classifier in use.
        new: the one that is to take its place.
        by: columns to group the images by, `COLUMN` or `COLUMN:BOUND,…`.

    Raises:
        UserError: the images or a classifier can't be used.
    """
    processes = Processes()
    opened = opened_images(images)
    if isinstance(images, str | Path) and Path(images).is_dir() and "label" not in opened.features:
        raise UserError(
            f"{images}: has no labels; put the images of each class, two at least, into a folder of its name"
        )
    opened.check_columns()
    models = []
    for number, classifier in enumerate([*old, new], start=1):
        name = f"OLD {number}" if len(old) > 1 else "OLD"
        if number > len(old):
            name = "NEW"
        models.append(LoadedClassifier.load(name, classifier, processes.device))
    labels = opened.labels_for([partial(models.__getitem__, place) for place in range(len(models))], processes.device)
    first = opened.first_image(processes.device)
    networks = {model.name: model.answering_in(labels, first, opened.name) for model in models}
    columns = opened.columns(["id", "label", "valid", "accepted_labels"], labels)
    batches = opened.images(opened.image_columns, size=_READ)
    try:
        answers = classify(
            batches, networks, columns["label"].__getitem__, processes, processes.device, together=_BATCH
        )
    except UserError:
        _check_images(opened)
        raise
    ids = _ids(opened, columns)
    groups = {name: np.array(values, dtype=object) for name, values in opened.grouped_by(by).items()}
    by_column: dict[str, list[Predictions]] = {}
    for column in opened.image_columns:
        rows = np.arange(len(columns["label"]))
        if column == "image" and "valid" in columns:
            rows = np.flatnonzero(columns["valid"])
        for name in networks:
            predictions = _predictions(name, answers[name][column], ids, columns, labels, groups, rows)
            by_column.setdefault(column, []).append(predictions)
    chosen = [models[0], models[-1]]
    return Asked(by_column, opened, chosen, [networks[model.name] for model in chosen], labels.names)


def opened_images(images: Any) -> Split:
    """Return images, as of `ask` or a config of a source, opened."""
    if isinstance(images, SourceConfig):
        return open_source(images.kind, images)
    if not isinstance(images, str | Path):
        return open_split(images)
    text = str(images)
    if not text.startswith(_SECTIONS) and not text.endswith(_RECIPES):
        return open_split(text, download=True)
    (fixed,) = load_fixed_sets([f"images={text}"]).values()
    sources = fixed.sources("images")
    if len(sources) > 1:
        raise UserError(f"{text}: has {len(sources)} sets; name a section of one")
    return open_source(text, next(iter(sources.values())))


def _check_images(opened: Split) -> None:
    """Raise UserError, which names them all, if images are unreadable."""
    faults = {}
    with reading(opened.name):
        for row, stored in enumerate(opened.stored_rows(opened.image_columns, opened.image_columns)):
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
        raise UserError(f"{opened.name}: its ids do not tell all images apart; give each its own, or drop the column")
    names = []
    with reading(opened.name):
        for row in opened.stored_rows(["image"], ["image"]):
            names.append((row["image"] or {}).get("path") or "")
    if len(set(names)) < len(names):
        return np.arange(len(names)).astype(str)
    if opened.repo is not None and Path(opened.repo).is_dir():
        names = [os.path.relpath(name, opened.repo) for name in names]
    return np.array(names)


def _predictions(
    name: str,
    answers: Answers,
    ids: np.ndarray,
    columns: Mapping[str, np.ndarray],
    labels: Labels,
    groups: Mapping[str, np.ndarray],
    rows: np.ndarray,
) -> Predictions:
    """Return the predictions of a network for some rows; what gives no finite output has no answer."""
    names = np.array([*labels.names, ""])
    accepted = columns.get("accepted_labels")
    predicted = as_label(answers.prediction, columns["label"], accepted)
    return Predictions(
        name,
        ids[rows],
        names[columns["label"]][rows],
        names[predicted][rows],
        answers.top_probabilities[rows, 0].astype(np.float64),
        {group: values[rows] for group, values in groups.items()},
    )


def stored_images(images: Any, wanted: Collection[str]) -> dict[str, bytes | str]:
    """Return some images by what they are called: their files' bytes or paths.

    Args:
        images: as of `ask`.
        wanted: what the images are called.
    """
    folder = images.path if isinstance(images, ImageFolder) else images
    if isinstance(folder, str | Path) and has_class_folders(Path(folder)):
        return {name: str(Path(folder) / name) for name in wanted}
    opened = opened_images(images)
    column = column_of_real_images(opened)
    names = _ids(opened, opened.columns(["id", "label"], opened.labels or opened.observed_labels()))
    files = {}
    with reading(opened.name):
        for name, row in zip(names.tolist(), opened.stored_rows([column], [column]), strict=True):
            if name in wanted:
                files[name] = opened.image_of(row[column])
    return files


def preprocessing_notes(answered: Asked, on_note: Callable[[str], None]) -> list[str]:
    """Return a line if the two networks preprocess images in different ways, which alone can make them differ; tell
    `on_note` if they do it alike."""
    old, new = (preprocessing_of(model.module) for model in answered.models)
    if old != new:
        return [f"the networks preprocess images in different ways: OLD {old}; NEW {new}"]
    on_note(f"both networks get images {old}")
    return []


def notes_on_split(answered: Asked) -> list[str]:
    """Return a line on the worth of a verdict if the split was made against one of the two."""
    provenance = answered.opened.provenance
    if provenance is None or provenance.weights_sha256.classifier is None:
        return []
    attacked = [model.name for model in answered.models if model.has_weights(provenance.weights_sha256.classifier)]
    if len(attacked) != 1:
        return []
    meanings = {
        "OLD": "that NEW is right on it says little",
        "NEW": "that NEW is wrong on it says little",
    }
    name = attacked[0]
    return [f"the split was made against {name} alone: {meanings[name]}; use one made against a third network"]
