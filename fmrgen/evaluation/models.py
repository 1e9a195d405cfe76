"""Classifiers that are given in any form, made to answer in the labels of a set of images."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from fmrgen.config import ComponentConfig
from fmrgen.engine.images import to_batch
from fmrgen.errors import UserError
from fmrgen.evaluation.stream import NamedClassifier
from fmrgen.labels import Labels
from fmrgen.recipe.build import build_component, component_errors, fit_to_labels, names_of_outputs
from fmrgen.recipe.objects import AnyClassifier, classifier_section
from fmrgen.storage.open import OpenedSplit, reading


def named_model(name: str, given: AnyClassifier, device: torch.device) -> NamedClassifier:
    """A classifier on its device, in evaluation mode. Raises UserError for anything else."""
    section = classifier_section(given) if isinstance(given, str | Mapping) else given
    if isinstance(section, nn.Module):
        return NamedClassifier(name, section.to(device).eval(), None)
    if not isinstance(section, ComponentConfig):
        raise UserError(f"classifier {name}: is a {type(given).__name__}, not a reference, a section or a torch module")
    return NamedClassifier(name, build_component(section, f"classifier {name}", nn.Module, device).eval(), section)


def labels_of(split: OpenedSplit, models: list[NamedClassifier], image: torch.Tensor) -> Labels:
    """The split's labels; where it does not name them, in the words of the first classifier that does."""
    if split.labels is not None:
        return split.labels
    for model in models:
        if (class_names := getattr(model.module, "class_names", None)) is not None:
            return Labels(tuple(class_names))
    if "string" in split.features["label"].dtype:
        raise UserError(
            f"{split.name}: its labels are strings, and no classifier names its classes; list them, in "
            "the order of its outputs, as class_names of its section"
        )
    return Labels(tuple(names_of_outputs(models[0].module, image, f"classifier {models[0].name}")))


def first_image(split: OpenedSplit, device: torch.device) -> torch.Tensor:
    """An image [1, 3, H, W] of the split's size."""
    with reading(split.name):
        images = split.undecoded(["image"]).select_columns(["image"])
        row = next(iter(images.take(1)), None)
    if row is None:
        raise UserError(f"{split.name}: contains no rows")
    image = split.decode(row["image"], "row 0: its image")
    return to_batch(np.asarray(image)[None], device)


def answering_in(
    labels: Labels, models: list[NamedClassifier], image: torch.Tensor, split: str
) -> dict[str, nn.Module]:
    """The classifiers by their names, made to answer in a split's labels. Raises UserError where one can't."""
    answering = {}
    for model in models:
        with component_errors(f"classifier {model.name}", image):
            answering[model.name] = fit_to_labels(model.module, labels, image, f"classifier {model.name} on {split}")
    return answering
