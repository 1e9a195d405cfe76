"""A small classifier, from any classifier section whose network is built with random weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field

from fmrgen.apps.training.objectives.base import Objective, ObjectiveConfig
from fmrgen.files import write_atomically
from fmrgen.labels import Labels
from fmrgen.recipe.sections import TRAINED_CLASSIFIER, ClassifierField

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from fmrgen.classifiers.base import Classifier


class Config(ObjectiveConfig):
    """`classifier` is a section of kind lenet, timm or module, without a checkpoint."""

    PLACES = ()

    kind: str = "classifier"
    classifier: ClassifierField
    image_size: int = Field(ge=8)
    label_smoothing: float = Field(0.05, ge=0, lt=1)

    def objective(self, device: "torch.device", labels: Labels) -> "ClassifierObjective":
        import torch

        from fmrgen.classifiers.base import in_labels

        classifier = self.classifier.build(device)
        blank = torch.zeros(1, 3, self.image_size, self.image_size, device=device)
        in_labels(classifier, labels, blank, "model.classifier")
        classifier.requires_grad_(True)
        section = self.classifier.model_dump(mode="json", exclude_defaults=True, exclude={"kind", "checkpoint"})
        section = {"kind": self.classifier.kind, **section, "class_names": list(labels.names)}
        return ClassifierObjective(classifier, self.image_size, self.label_smoothing, section)


class ClassifierObjective(Objective):
    """Learns by cross-entropy; saves the network's state dict, and `section`, which builds the network for it."""

    def __init__(
        self, classifier: "Classifier", image_size: int, label_smoothing: float, section: dict[str, Any]
    ) -> None:
        self.section = section
        self.network = classifier
        self.image_size = image_size
        self.label_smoothing = label_smoothing

    def loss(self, images: "Tensor", labels: "Tensor", progress: float) -> "Tensor":
        from torch.nn.functional import cross_entropy

        return cross_entropy(self.network(images), labels, label_smoothing=self.label_smoothing)

    def metrics(self, images: "Tensor", labels: "Tensor") -> "dict[str, Tensor]":
        return {"accuracy": self.network(images).argmax(1) == labels}

    def save(self, folder: Path) -> None:
        save_classifier(folder, self.network.network, self.section)


def save_classifier(folder: Path, network: "nn.Module", section: dict[str, Any]) -> None:
    """Write a trained folder: the weights of a network, and then the section that builds the network for them."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    text = yaml.safe_dump(section, sort_keys=False, allow_unicode=True)
    write_atomically(folder / TRAINED_CLASSIFIER, text.encode())
