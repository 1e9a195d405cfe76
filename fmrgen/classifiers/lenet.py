"""LeNet-5 with ReLU and max pooling (LeCun 1998; the paper's MNIST model), for 32 px digits."""

from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from fmrgen.config import ClassifierConfig

if TYPE_CHECKING:
    import torch
    from torch import nn


class Config(ClassifierConfig):
    """`checkpoint` is a file or an asset; without one the weights are random."""

    PLACES = ("checkpoint",)

    kind: str = "lenet"
    checkpoint: str | None = None
    num_classes: int = Field(10, ge=2, le=100_000)
    smooth: bool = Field(False, description="softplus and average pooling, which have no ties")

    def build(self, device: "torch.device | str" = "cpu") -> "nn.Module":
        from fmrgen.classifiers.base import Classifier, Normalize
        from fmrgen.weights.checkpoint import freeze, load_checkpoint

        network = lenet(self.num_classes, self.smooth)
        if self.checkpoint is not None:
            load_checkpoint(network, self.checkpoint)
        preprocess = Normalize([0.1] * 3, [0.28] * 3, size=32)  # of MNIST on its 32 px canvas
        return freeze(Classifier(network, preprocess, self.class_names, self.channels), device)


def lenet(num_classes: int, smooth: bool = False) -> "nn.Module":
    """Return a network that takes normalised images [B, 3, 32, 32] to logits [B, num_classes]; 62 thousand weights.

    A `smooth` one has no ties.
    """
    from torch import nn

    activation: Any = partial(nn.Softplus, beta=5) if smooth else nn.ReLU
    pool: Any = nn.AvgPool2d if smooth else nn.MaxPool2d
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 5), activation(), pool(2)),
        nn.Sequential(nn.Conv2d(6, 16, 5), activation(), pool(2)),
        nn.Flatten(),
        nn.Sequential(nn.Linear(400, 120), activation()),
        nn.Sequential(nn.Linear(120, 84), activation()),
        nn.Linear(84, num_classes),
    )
