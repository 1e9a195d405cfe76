"""Adversarial training of a classifier: on attacked images (Madry et al. 2018), or TRADES (Zhang et al. 2019)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from fmrgen.apps.training.objectives import classifier
from fmrgen.apps.training.objectives.classifier import ClassifierObjective
from fmrgen.engine.attacks import Attack
from fmrgen.labels import Labels


class Config(classifier.Config):
    """A classifier, and the attack that it is trained against; images are attacked again at each step."""

    kind: str = "adversarial"
    rule: Literal["pgd", "trades"] = Field(
        "pgd", description="pgd: loss of attacked images; trades: loss of plain ones, plus the divergence"
    )
    epsilon: float = Field(gt=0, le=1, description="radius of the attack, largest change of a pixel; 8/255 is .0314")
    attack_steps: int = Field(7, ge=1)
    trades_weight: float = Field(6.0, gt=0, description="weight of the divergence between plain and attacked images")

    def objective(self, device: torch.device, labels: Labels) -> "AdversarialObjective":
        return AdversarialObjective(self, device, labels)


class AdversarialObjective(ClassifierObjective):
    """Learns from images that PGD, from a random start, has moved against the present network."""

    config: Config

    def __init__(self, config: Config, device: torch.device, labels: Labels) -> None:
        super().__init__(config, device, labels)
        self.attack = Attack.pgd(config.epsilon, config.attack_steps)

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Tensor:
        self.network.eval()  # the attack is on the network in use, and must not change its running statistics
        if self.config.rule == "pgd":
            attacked = self.attack(self.network, images, labels)
            self.network.train()
            return super().loss(attacked, labels, progress)
        attacked = self.attack(self.network, images, self.network(images).detach().softmax(1))
        self.network.train()
        plain, moved = self.network(images), self.network(attacked)
        divergence = kl_div(log_softmax(moved, 1), plain.softmax(1), reduction="batchmean")
        return super().loss(images, labels, progress) + self.config.trades_weight * divergence

    def metrics(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        attacked = self.attack(self.network, images, labels, row_seeds=range(len(images)))
        plain = super().metrics(images, labels)
        return {**plain, "accuracy_under_attack": self.network(attacked).argmax(1) == labels}
