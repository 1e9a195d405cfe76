"""Networks for 32 px images: those of the paper's CIFAR-10 models (Table 6), RobustBench's, and a small VGG."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fmrgen.config import ClassifierConfig

if TYPE_CHECKING:
    import torch
    from torch import nn


class Config(ClassifierConfig):
    """`checkpoint` is a file, an asset or `hf:owner/repo/file`, with names of timm or of kuangliu/pytorch-cifar.

    Without one the weights are random.
    """

    PLACES = ("checkpoint",)

    kind: str = "cifar"
    model: Literal[
        "resnet18",
        "resnet50",
        "preactresnet18",
        "vgg7",
        "vgg19",
        "googlenet",
        "densenet121",
        "mobilenet",
        "efficientnet_b0",
        "simpledla",
        "wide_resnet28_10",
        "wide_resnet34_10",
    ]
    checkpoint: str | None = None
    num_classes: int = Field(10, ge=2, le=100_000)
    # By default those of the channels of CIFAR-10's training images.
    mean: list[float] = Field([0.4914, 0.4822, 0.4465], min_length=3, max_length=3)
    std: list[float] = Field([0.2470, 0.2435, 0.2616], min_length=3, max_length=3)
    interpolation: Literal["auto", "bicubic", "bilinear"] = Field(
        "auto", description="how images of another size are resized to 32 px; auto: pixels' means, or bicubic"
    )

    def build(self, device: "torch.device | str" = "cpu") -> "nn.Module":
        return self.built(device, "classifier.checkpoint")

    def built(self, device: "torch.device | str", key: str) -> "nn.Module":
        """Return what `build` does; errors about the checkpoint begin with `key`, the recipe's key that names it."""
        from fmrgen.classifiers.base import Classifier, Normalize
        from fmrgen.classifiers.networks.cifar import NETWORKS, renamed
        from fmrgen.weights.checkpoint import freeze, load_exactly, read_checkpoint

        network = NETWORKS[self.model](self.num_classes)
        if self.checkpoint is not None:
            state = read_checkpoint(self.checkpoint, key)
            load_exactly(network, renamed(network, state), f"{key}: {self.checkpoint}")
        preprocess = Normalize(self.mean, self.std, size=32, interpolation=self.interpolation)
        return freeze(Classifier(network, preprocess, self.class_names, self.channels), device)
