"""A classifier that learns to give an image and its perturbed copy the same logits (the paper's App. G)."""

from typing import TYPE_CHECKING

from pydantic import Field

from fmrgen.apps.training.objectives import classifier
from fmrgen.apps.training.objectives.classifier import ClassifierObjective
from fmrgen.labels import Labels

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Config(classifier.Config):
    """A classifier; the recipe's `copies` say where the perturbed copies are."""

    kind: str = "consistency"
    weight: float = Field(1e-4, ge=0, description="weight of the squared distance between the logits of image and copy")

    def objective(self, device: "torch.device", labels: Labels) -> "ConsistencyObjective":
        return ConsistencyObjective(super().objective(device, labels), self)


class ConsistencyObjective(ClassifierObjective):
    """Cross-entropy of both, and the squared Frobenius distance of a batch's logits, with gradients through both."""

    def __init__(self, plain: ClassifierObjective, config: Config) -> None:
        super().__init__(plain.network, plain.image_size, plain.label_smoothing, plain.section)
        self.weight = config.weight

    def loss_of_pair(self, images: "Tensor", copies: "Tensor", labels: "Tensor", progress: float) -> "Tensor":
        from torch.nn.functional import cross_entropy

        logits, copy_logits = self.network(images), self.network(copies)
        loss = cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        copy_loss = cross_entropy(copy_logits, labels, label_smoothing=self.label_smoothing)
        distance = (logits - copy_logits).square().sum() * self.processes.size  # gradients are averaged over these
        return loss + copy_loss + self.weight * distance
