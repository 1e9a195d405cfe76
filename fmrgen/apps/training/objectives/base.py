"""What a training run trains."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrgen.config import ComponentConfig
from fmrgen.labels import Labels

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fmrgen.distributed.launch import Processes


class ObjectiveConfig(ComponentConfig):
    """What is to be trained, with random weights at first."""

    def objective(self, device: "torch.device", labels: Labels) -> "Objective":
        """A `Objective` on `device` for images of `labels`."""
        raise NotImplementedError


class Objective(ABC):
    """Something that learns: `network` holds the weights, `image_size` is the side of its images.

    The loop tells it of the `processes` that share a batch: it averages the gradients of `network` over them, and what
    else is trained or drawn is for the objective to average or share.
    """

    network: Any
    image_size: int
    processes: "Processes"

    @abstractmethod
    def loss(self, images: "Tensor", labels: "Tensor", progress: float) -> "Tensor":
        """The loss of a batch: images [B, 3, H, W] in [0, 1], labels [B], or probabilities [B, K]; `progress` runs
        from 0 to 1."""

    def after_step(self) -> None:  # noqa: B027 - most have nothing to do
        """Called when the weights have moved."""

    def loss_of_pair(self, images: "Tensor", copies: "Tensor", labels: "Tensor", progress: float) -> "Tensor":
        """The loss of images and of as many perturbed copies of them, of the same shapes and labels."""
        return self.loss(images, labels, progress) + self.loss(copies, labels, progress)

    @abstractmethod
    def metrics(self, images: "Tensor", labels: "Tensor") -> dict[str, "Tensor"]:
        """Per-image measures [B] of a test batch."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes what `build` of the matching component reads."""

    def state(self) -> dict[str, Any]:
        """All that a checkpoint has to keep: tensors, numbers and containers of these."""
        return {"network": self.network.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes back what `state` gave."""
        self.network.load_state_dict(state["network"])


def psnr(made: "Tensor", images: "Tensor") -> "Tensor":
    """Peak signal to noise ratio [B], in dB, of images [B, 3, H, W] in [0, 1] made after others; `made` is clipped."""
    return -10 * (made.clamp(0, 1) - images).square().flatten(1).mean(1).log10()
