"""A classifier that learns to give an image and its perturbed copy the same logits (the paper's App. G)."""

import torch
from pydantic import Field
from torch import Tensor

from fmrgen.apps.training.objectives import classifier
from fmrgen.apps.training.objectives.classifier import ClassifierObjective
from fmrgen.labels import Labels


class Config(classifier.Config):
    """A classifier; the recipe's `copies` say where the perturbed copies are."""

    kind: str = "consistency"
    weight: float = Field(1e-4, ge=0, description="weight of the squared distance between the logits of image and copy")

    def objective(self, device: torch.device, labels: Labels) -> "ConsistencyObjective":
        return ConsistencyObjective(self, device, labels)


class ConsistencyObjective(ClassifierObjective):
    """Cross-entropy of both, and the squared Frobenius distance of a batch's logits, with gradients through both."""

    config: Config

    def loss_of_pair(self, images: Tensor, copies: Tensor, labels: Tensor, progress: float) -> Tensor:
        logits, copy_logits = self.network(images), self.network(copies)
        distance = (logits - copy_logits).square().sum() * self.processes.size  # gradients are averaged over these
        loss = self.cross_entropy(logits, labels) + self.cross_entropy(copy_logits, labels)
        return loss + self.config.weight * distance
