"""Classifiers that are given in any form, made to answer in the labels of a set of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from fmrgen.classifiers.base import GroupedClassifier, digests_of
from fmrgen.classifiers.networks.asked_in_words import AskedInWords
from fmrgen.config import ComponentConfig
from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.recipe.build import build_component, component_errors, fit_to_labels
from fmrgen.recipe.objects import AnyClassifier, classifier_section
from fmrgen.weights.identity import Identity, identity_of


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier, its network on its device, in evaluation mode."""

    name: str  # as it is called in reports
    section: ComponentConfig | None  # of a recipe; None if a module was handed over
    module: nn.Module
    identity: Identity  # what the network was as it was loaded
    training_of: str | None = None  # what it is one of several trainings of

    @classmethod
    def load(
        cls, name: str, classifier: AnyClassifier, device: torch.device, training_of: str | None = None
    ) -> "LoadedClassifier":
        """Return a classifier on its device, in evaluation mode. Raises UserError for anything else."""
        section = classifier_section(classifier) if isinstance(classifier, str | Mapping) else classifier
        if isinstance(section, nn.Module):
            module = section.to(device).eval()
            return cls(name, None, module, identity_of(module, None), training_of)
        if not isinstance(section, ComponentConfig):
            kind = type(classifier).__name__
            raise UserError(f"classifier {name}: is a {kind}, not a reference, a section or a torch module")
        module = build_component(section, f"classifier {name}", nn.Module, device).eval()
        return cls(name, section, module, identity_of(module, section), training_of)

    def in_labels(self, labels: Labels, image: torch.Tensor, split: str) -> nn.Module:
        """Return the network, made to answer in a split's labels; it is tried on an image [1, 3, H, W].

        Raises UserError, which names the split, if it can't.
        """
        title = f"classifier {self.name}"
        with component_errors(title, image):
            return fit_to_labels(self.module, labels, image, f"{title} on {split}")

    @property
    def weights_sha256(self) -> str | None:
        """The digest of its weights; None if it has none."""
        return self.identity.weights_sha256

    @property
    def class_names(self) -> Sequence[str] | None:
        """The names of its outputs, in their order; None if it does not name them."""
        return getattr(self.module, "class_names", None)

    @property
    def in_words(self) -> bool:
        """Whether it is asked in the words of the labels, as an image-text model."""
        return isinstance(getattr(self.module, "network", None), AskedInWords)

    @property
    def is_known(self) -> bool:
        """Whether it can be recognised in another process; nobody knows what one without weights says tomorrow."""
        return self.weights_sha256 is not None and self.identity.unknown is None

    def has_weights(self, digest: str) -> bool:
        """Return whether `digest` is of its network, in the same wrappers or in others."""
        return digest == self.weights_sha256 or digest in self._digests_in_wrappers

    @cached_property
    def _digests_in_wrappers(self) -> frozenset[str | None]:
        """The digests that its weights may have on record, made to answer in labels or not; once for all splits."""
        return frozenset(digests_of(GroupedClassifier(self.module, [], 0)))
