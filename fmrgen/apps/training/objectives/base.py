"""The base classes of training objectives."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmrgen.config import ComponentConfig
from fmrgen.distributed.launch import Processes
from fmrgen.labels import Labels


class ObjectiveConfig(ComponentConfig):
    """The config of an objective."""

    def objective(self, device: torch.device, labels: Labels) -> "Objective":
        """Return the objective on `device` for images of `labels`, with random weights."""
        raise NotImplementedError


class Objective(ABC):
    """A network with its loss, metrics and files.

    The training loop sets `processes`, which share a batch. It averages the gradients of `network` over them, and the
    objective itself has to average or share whatever else it trains or draws.
    """

    network: Any  # holds the weights
    image_size: int  # side in pixels
    processes: Processes

    @abstractmethod
    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Return the loss of images [B, 3, H, W] in [0, 1] with labels [B], or probabilities [B, K].

        `progress` is that of the run, from 0 to 1.
        """

    def loss_of_pair(self, images: Tensor, copies: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Return the loss of images and of their perturbed copies, which have the same labels; all as for `loss`."""
        return self.loss(images, labels, progress) + self.loss(copies, labels, progress)

    @abstractmethod
    def metrics(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return measures of each image [B] of a test batch, by name."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the files that `build` of the matching component reads."""

    def state(self) -> dict[str, Any]:
        """Return the contents of a checkpoint: tensors, numbers and containers of these."""
        return {"network": self.network.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.network.load_state_dict(state["network"])


def psnr(reconstructions: Tensor, images: Tensor) -> Tensor:
    """Return the peak signal to noise ratio [B], in dB, of reconstructions of images [B, 3, H, W] in [0, 1].

    Reconstructions are clipped to [0, 1].
    """
    return -10 * (reconstructions.clamp(0, 1) - images).square().flatten(1).mean(1).log10()
