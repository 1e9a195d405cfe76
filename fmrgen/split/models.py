"""Classifiers that are given in any form, made to answer in the labels of a set of images."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fmrgen.classifiers.networks.asked_in_words import AskedInWords
from fmrgen.config import ComponentConfig
from fmrgen.engine.images import to_batch
from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.recipe.build import build_component, component_errors, fit_to_labels, names_of_outputs
from fmrgen.recipe.objects import AnyClassifier, classifier_section
from fmrgen.split.open import Split, reading
from fmrgen.split.rows import NamedClassifier
from fmrgen.weights.identity import Identity, identity_of


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier, its network on its device, in evaluation mode, and what that was as it was loaded."""

    named: NamedClassifier
    module: nn.Module
    identity: Identity

    @property
    def unknown(self) -> str | None:
        """The attribute that can't be compared with another process's; None where all can."""
        return self.identity.unknown_beside(self.named.section)

    @property
    def is_known(self) -> bool:
        """Whether it can be recognised in another process; nobody knows what one without weights says tomorrow."""
        return self.named.weights_sha256 is not None and self.unknown is None


def section_of(name: str, classifier: AnyClassifier) -> ComponentConfig | None:
    """Return the section of a classifier; None if it is a module. Raises UserError for anything else."""
    section = classifier_section(classifier) if isinstance(classifier, str | Mapping) else classifier
    if isinstance(section, nn.Module):
        return None
    if not isinstance(section, ComponentConfig):
        raise UserError(
            f"classifier {name}: is a {type(classifier).__name__}, not a reference, a section or a torch module"
        )
    return section


def load_named(
    name: str, classifier: AnyClassifier, device: torch.device, training_of: str | None = None
) -> LoadedClassifier:
    """Return a classifier on its device, in evaluation mode. Raises UserError for anything else."""
    section = section_of(name, classifier)
    if isinstance(classifier, nn.Module):
        module = classifier.to(device).eval()
    else:
        assert section is not None
        module = build_component(section, f"classifier {name}", nn.Module, device).eval()
    class_names = getattr(module, "class_names", None)
    in_words = isinstance(getattr(module, "network", None), AskedInWords)
    identity = identity_of(module)
    named = NamedClassifier(name, section, identity.weights_sha256, class_names, training_of, in_words)
    return LoadedClassifier(named, module, identity)


def labels_of(split: Split, models: Iterable[Callable[[], LoadedClassifier]], image: torch.Tensor) -> Labels:
    """Return the split's labels; if it does not name them, the class names of the first classifier that does.

    Args:
        split: whose labels they are.
        models: load the classifiers, one after another; those that can't be loaded are skipped, unless none can.
        image: [1, 3, H, W] of the split.

    Raises:
        UserError: neither the split nor a classifier names the labels.
    """
    if split.labels is not None:
        return split.labels
    numbered: Labels | None = None
    failure: UserError | None = None
    for load in models:
        try:
            model = load()
        except UserError as error:
            failure = failure or error
            continue
        if model.named.class_names is not None:
            return Labels(tuple(model.named.class_names))
        if model.named.in_words:
            failure = failure or UserError(f"{split.name}: its labels have no names, and none of the classifiers has")
            continue
        numbered = numbered or Labels(tuple(names_of_outputs(model.module, image, f"classifier {model.named.name}")))
        del model
    if numbered is None:
        raise failure or UserError(f"{split.name}: there is no classifier to name its labels")
    if "string" in split.features["label"].dtype:
        raise UserError(
            f"{split.name}: its labels are strings, and no classifier names its classes; list them, in "
            "the order of its outputs, as class_names of its section"
        )
    return numbered


def first_image(split: Split, device: torch.device) -> torch.Tensor:
    """Return an image [1, 3, H, W] of the split's size."""
    with reading(split.name):
        images = split.undecoded(["image"]).select_columns(["image"])
        row = next(iter(images.take(1)), None)
    if row is None:
        raise UserError(f"{split.name}: contains no rows")
    image = split.decode(row["image"], "row 0: its image")
    return to_batch(np.asarray(image)[None], device)


def answering_in(labels: Labels, model: LoadedClassifier, image: torch.Tensor, split: str) -> nn.Module:
    """Return the classifier, made to answer in a split's labels. Raises UserError if it can't."""
    title = f"classifier {model.named.name}"
    with component_errors(title, image):
        return fit_to_labels(model.module, labels, image, f"{title} on {split}")
