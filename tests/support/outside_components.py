"""A classifier, a generator and an oracle that live outside the package: all that anyone's own need to be."""

import torch
from torch import nn

from fmrgen import ComponentConfig, Generator, Judgement, Latents, Oracle, OracleConfig
from fmrgen.labels import Labels
from fmrgen.recipe.job import load_recipe, parse_classifier


class SmallNet(nn.Module):
    """Images in [0, 1] to logits of ten digits, from the means of a 4×4 grid."""

    def __init__(self, width=16):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, width), nn.Tanh(), nn.Linear(width, 10)
        )

    def forward(self, images):
        return self.layers(images)


READY = SmallNet()  # a network that is made already


class SmallNetConfig(ComponentConfig):
    kind: str = "outside_components:SmallNetConfig"
    width: int = 16

    def build(self, device="cpu"):
        return SmallNet(self.width).to(device).eval().requires_grad_(False)


class Tint(Generator):
    """Adds one free colour to the whole image."""

    image_size = 32

    def encode(self, images, labels):
        return Latents(images.new_zeros(len(images), 3, 1, 1), images)

    def decode(self, latents):
        return (latents.fixed + latents.free).clamp(0, 1)


class TintConfig(ComponentConfig):
    kind: str = "outside_components:TintConfig"

    def build(self, device="cpu"):
        return Tint()


class NotTooBright(Oracle):
    """Accepts whatever label an image has until it gets bright."""

    def __init__(self, limit=0.3):
        self.limit = limit

    def judge(self, images, originals=None):
        bright = (images.flatten(1).mean(1) > self.limit).to(images.dtype)
        probabilities = torch.stack([1 - bright, *[bright / 9] * 9], dim=1)
        return Judgement(probabilities, probabilities)


class NotTooBrightConfig(ComponentConfig):
    kind: str = "outside_components:NotTooBrightConfig"

    def build(self, device="cpu"):
        return NotTooBright()


class HalfTrained(nn.Module):
    """LeNet that knows five of the ten digits."""

    def __init__(self):
        super().__init__()
        self.lenet = parse_classifier("asset:mnist/lenet")[1].build()

    def forward(self, images):
        logits = self.lenet(images)
        return torch.cat([logits[:, :5], logits[:, 5:] * 0 - 100], 1)


class AnyClassConfig(OracleConfig):
    kind: str = "outside_components:AnyClassConfig"

    def build(self, device="cpu"):
        return NotTooBright()


class ComparingConfig(AnyClassConfig):
    kind: str = "outside_components:ComparingConfig"

    def build(self, device="cpu"):
        oracle = NotTooBright()
        oracle.needs_originals = True
        return oracle


class Dim(HalfTrained):
    """LeNet that is shown darker images."""

    def forward(self, images):
        return self.lenet(images * 0.4)


class LenetTwice(nn.Module):
    """The shipped LeNet, called otherwise."""

    def __init__(self):
        super().__init__()
        self.inside = nn.ModuleDict({"net": parse_classifier("asset:mnist/lenet")[1].build()})

    def forward(self, images):
        return self.inside["net"](images)


class OracleItself(nn.Module):
    """The demo's oracle as a classifier."""

    def __init__(self):
        super().__init__()
        self.oracle = load_recipe("mnist-lenet").oracle.build("cpu")
        self.oracle.set_labels(Labels([str(digit) for digit in range(10)]))

    def forward(self, images):
        return self.oracle.logits(images)


class LenetWithOracle(OracleItself):
    """Its log-probabilities, and those of LeNet added."""

    def __init__(self):
        super().__init__()
        self.lenet = parse_classifier("asset:mnist/lenet")[1].build()
        self.clip = nn.ModuleList(part for part in vars(self.oracle).values() if isinstance(part, nn.Module))

    def forward(self, images):
        return super().forward(images).log_softmax(1) + self.lenet(images).log_softmax(1)
