"""Generator, classifier and oracle of the paper's sizes with random weights, for timing where no weights are at hand.

VQGAN f=16 with 16,384 codes at 224 px (76 M parameters), ResNet-50, and CLIP's ViT-B/32 image tower over K labels.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fmrgen import ClassifierConfig, ComponentConfig, GeneratorConfig
from fmrgen.classifiers.base import Classifier, Normalize
from fmrgen.generators.vqgan import Vqgan
from fmrgen.labels import Labels
from fmrgen.oracles import clip
from fmrgen.oracles.zero_shot import ZeroShotOracle
from fmrgen.weights.checkpoint import freeze


class RandomVqgan(GeneratorConfig):
    kind: str = "benchmarks.imagenet_shapes:RandomVqgan"
    image_size: int = 224

    def build(self, device: torch.device | str = "cpu") -> Vqgan:
        from fmrgen.generators.networks.vqgan import Architecture, VqganNetwork

        torch.manual_seed(0)
        attends = (False, False, False, False, True)
        network = VqganNetwork(Architecture(128, (128, 128, 256, 256, 512), attends, 2, 256, 256, 16384))
        return Vqgan(freeze(network, device), self.image_size)


class RandomResNet50(ClassifierConfig):
    kind: str = "benchmarks.imagenet_shapes:RandomResNet50"
    labels: int = 10

    def build(self, device: torch.device | str = "cpu") -> nn.Module:
        import timm

        torch.manual_seed(1)
        network = timm.create_model("resnet50", num_classes=self.labels)
        preprocess = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224)
        return freeze(Classifier(network, preprocess), device)


class RandomClip(ComponentConfig):
    kind: str = "benchmarks.imagenet_shapes:RandomClip"

    def build(self, device: torch.device | str = "cpu") -> ZeroShotOracle:
        from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

        torch.manual_seed(2)
        model = freeze(CLIPModel(CLIPConfig()), device)
        return _AnyLabels(model, None, CLIPImageProcessor(), clip.Config(prompts=["{class}"]))


class _AnyLabels(ZeroShotOracle):
    """Without a tokenizer: a random direction for each label."""

    _text: Tensor

    def set_labels(self, labels: Labels) -> None:
        directions: Any = torch.randn(len(labels), self.model.config.projection_dim)
        self._text = nn.functional.normalize(directions, dim=-1).to(self.model.device)
