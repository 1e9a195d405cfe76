"""What a training run trains."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrgen.config import ComponentConfig
from fmrgen.labels import Labels

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class ObjectiveConfig(ComponentConfig):
    """What is to be trained, with random weights at first."""

    def objective(self, device: "torch.device", labels: Labels) -> "Objective":
        """A `Objective` on `device` for images of `labels`."""
        raise NotImplementedError


class Objective(ABC):
    """Something that learns: `network` holds the weights, `image_size` is the side of its images."""

    network: Any
    image_size: int

    @abstractmethod
    def loss(self, images: "Tensor", labels: "Tensor", progress: float) -> "Tensor":
        """The loss of a batch: images [B, 3, H, W] in [0, 1], labels [B], or probabilities [B, K]; `progress` runs
        from 0 to 1."""

    @abstractmethod
    def metrics(self, images: "Tensor", labels: "Tensor") -> dict[str, "Tensor"]:
        """Per-image measures [B] of a test batch."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes what `build` of the matching component reads."""
