"""Networks that answer as the shipped LeNet does, value for value, and hand over another gradient than their own."""

import torch
from torch import nn

from fmrgen.recipe.job import parse_classifier

SIZE = 32


class Masked(nn.Module):
    """The answers of `asset:mnist/lenet`, the gradient of `guide`."""

    def __init__(self, guide):
        super().__init__()
        self.inner, self.guide = parse_classifier("asset:mnist/lenet")[1].build(), guide
        self.class_names = self.inner.class_names

    def forward(self, images):
        guide = self.guide(images)
        return self.inner(images).detach() + guide - guide.detach()


def _lenet(seed=None):
    if seed is None:
        return parse_classifier("asset:mnist/lenet")[1].build()
    torch.manual_seed(seed)
    return parse_classifier("{kind: lenet, num_classes: 10}")[1].build()


class _Pattern(nn.Module):
    """The same gradient everywhere: a pattern of chance for each class."""

    def __init__(self):
        super().__init__()
        noise = torch.randn(3 * SIZE * SIZE, 10, generator=torch.Generator().manual_seed(0))
        self.register_buffer("pattern", noise)

    def forward(self, images):
        return images.flatten(1) @ self.pattern


class _Of(nn.Module):
    """The gradient that LeNet has where `change` puts the images."""

    def __init__(self, change):
        super().__init__()
        self.lenet, self.change = _lenet(), change

    def forward(self, images):
        return self.lenet(self.change(images))


class _TurnedGradient(torch.autograd.Function):
    """The image, with the gradient that `turn` makes of its own."""

    @staticmethod
    def forward(ctx, images, turn):
        ctx.turn = turn
        return images.view_as(images)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.turn(gradient), None


def _turned(turn):
    return Masked(_Of(lambda images: _TurnedGradient.apply(images, turn)))


def random_gradient():
    return Masked(_Pattern())


def decoy():
    return Masked(_lenet(seed=7))


def block_means():
    def means(images):
        blocks = nn.functional.avg_pool2d(images, 8)
        return nn.functional.interpolate(blocks, scale_factor=8)

    return Masked(_Of(means))


class HalfRounded(nn.Module):
    """Eight grey levels by rounding, which has no gradient, and a trace of the mean, which has one."""

    def __init__(self):
        super().__init__()
        self.inner = _lenet()
        self.class_names = self.inner.class_names

    def forward(self, images):
        rounded = (images * 7).round() / 7
        return self.inner(rounded) + 1e-4 * images.mean((1, 2, 3)).unsqueeze(1) * torch.arange(10.0)


def reversed_gradient():
    return _turned(lambda gradient: -gradient)


def mirrored_gradient():
    return _turned(lambda gradient: gradient.flip(-1))


def shifted_gradient():
    return _turned(lambda gradient: gradient.roll((5, 9), (-2, -1)))


def smooth_gradient():
    return _turned(lambda gradient: nn.functional.avg_pool2d(gradient, 15, 1, 7))


def gradient_of_the_negative():
    return Masked(_Of(lambda images: 1 - images))


class SureThenMasked(nn.Module):
    """LeNet with its own gradient where it is sure, and a pattern of chance where it is not."""

    def __init__(self):
        super().__init__()
        self.masked, self.lenet = random_gradient(), _lenet()
        self.class_names = self.lenet.class_names

    def forward(self, images):
        logits = self.lenet(images)
        first, second = logits.topk(2, dim=1).values.unbind(1)
        return torch.where((first - second > 3.5).unsqueeze(1), logits, self.masked(images))


class Rough(nn.Module):
    """LeNet with its own gradient, whose logits jump by up to `height` with every change of an image by grey levels."""

    def __init__(self, height=4.0):
        super().__init__()
        self.inner, self.height = _lenet(), height
        self.class_names = self.inner.class_names

    def forward(self, images):
        places = (1e5 * images.mean((1, 2, 3))).floor().unsqueeze(1) + 97 * torch.arange(10.0, device=images.device)
        levels = (43758.5453 * (12.9898 * places).sin()).frac()  # as good as random, the same for the same image
        return self.inner(images) + self.height * levels
