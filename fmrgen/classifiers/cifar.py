"""Networks for 32 px images, from timm's by small edits (the paper's CIFAR-10 models)."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fmrgen.config import ClassifierConfig
from fmrgen.trust.recipes import paths_among

if TYPE_CHECKING:
    import torch
    from torch import nn

_MEAN, _STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]  # of CIFAR-10's training images


class Config(ClassifierConfig):
    """`checkpoint` is a file, an asset or `hf:owner/repo/file`; without one the weights are random."""

    kind: str = "cifar"
    model: Literal["resnet18"]
    checkpoint: str | None = None
    num_classes: int = Field(10, ge=2, le=100_000)
    mean: list[float] = Field(_MEAN, min_length=3, max_length=3)
    std: list[float] = Field(_STD, min_length=3, max_length=3)
    interpolation: Literal["auto", "bicubic", "bilinear"] = Field(
        "auto", description="how images of another size come to 32 px; auto: pixels' means, or bicubic"
    )

    def build(self, device: "torch.device | str" = "cpu") -> "nn.Module":
        from fmrgen.classifiers.base import Classifier, Normalize
        from fmrgen.weights.checkpoint import freeze, load_checkpoint

        network = _resnet18(self.num_classes)
        if self.checkpoint is not None:
            load_checkpoint(network, self.checkpoint)
        preprocess = Normalize(self.mean, self.std, size=32, interpolation=self.interpolation)
        return freeze(Classifier(network, preprocess, self.class_names), device)

    def code_it_runs(self) -> list[str]:
        return []

    def places_it_reads(self) -> list[str]:
        return paths_among(self.checkpoint)


def _resnet18(num_classes: int) -> "nn.Module":
    """ResNet-18 whose stem keeps all 32×32 pixels."""
    import timm
    from torch import nn

    network = timm.create_model("resnet18", num_classes=num_classes)
    network.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network
