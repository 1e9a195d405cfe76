"""A small classifier, from any classifier section whose network is built with random weights."""

from pathlib import Path

import torch
import yaml
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from fmrgen.apps.training.objectives.base import Objective, ObjectiveConfig
from fmrgen.classifiers.base import in_labels
from fmrgen.labels import Labels
from fmrgen.recipe.sections import TRAINED_CLASSIFIER, ClassifierField


class Config(ObjectiveConfig):
    """`classifier` is a section of kind lenet, timm or module, without a checkpoint."""

    PLACES = ()

    kind: str = "classifier"
    classifier: ClassifierField
    image_size: int = Field(ge=8)
    label_smoothing: float = Field(0.05, ge=0, lt=1)

    def objective(self, device: torch.device, labels: Labels) -> "ClassifierObjective":
        return ClassifierObjective(self, device, labels)


class ClassifierObjective(Objective):
    """Learns by cross-entropy; saves the network's state dict, and the section that builds the network for it."""

    config: Config

    def __init__(self, config: Config, device: torch.device, labels: Labels) -> None:
        self.config, self.labels, self.image_size = config, labels, config.image_size
        self.network = config.classifier.build(device)
        blank = torch.zeros(1, 3, self.image_size, self.image_size, device=device)
        in_labels(self.network, labels, blank, "model.classifier")
        self.network.requires_grad_(True)

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy, with smoothed labels."""
        return cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Tensor:
        return self.cross_entropy(self.network(images), labels)

    def metrics(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"accuracy": self.network(images).argmax(1) == labels}

    def save(self, folder: Path) -> None:
        save_file(self.network.network.state_dict(), folder / "model.safetensors")
        built = self.config.classifier
        section = built.model_dump(mode="json", exclude_defaults=True, exclude={"kind", "checkpoint"})
        section = {"kind": built.kind, **section, "class_names": list(self.labels.names)}
        text = yaml.safe_dump(section, sort_keys=False, allow_unicode=True)
        (folder / TRAINED_CLASSIFIER).write_text(text, encoding="utf-8")
