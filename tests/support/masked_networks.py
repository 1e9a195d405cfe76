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
    """LeNet with its own gradient where its logits differ by `lead` or more, and that of `masked` nearer the boundary."""

    def __init__(self, lead=3.5, masked=random_gradient):
        super().__init__()
        self.masked, self.lenet, self.lead = masked(), _lenet(), lead
        self.class_names = self.lenet.class_names

    def forward(self, images):
        logits = self.lenet(images)
        first, second = logits.topk(2, dim=1).values.unbind(1)
        return torch.where((first - second > self.lead).unsqueeze(1), logits, self.masked(images))


def masked_near_by():
    return SureThenMasked(1.5)


def masked_from_afar():
    return SureThenMasked(7.0)


def decoy_near_the_boundary():
    return SureThenMasked(3.5, decoy)


def reversed_near_the_boundary():
    return SureThenMasked(3.5, reversed_gradient)


def smooth_near_the_boundary():
    return SureThenMasked(3.5, smooth_gradient)


def half_gradient():
    """The gradient of the left half of the image alone."""

    def left(gradient):
        gradient = gradient.clone()
        gradient[..., SIZE // 2 :] = 0
        return gradient

    return _turned(left)


def flipped_signs():
    """Four in ten entries of the gradient have the other sign, always the same."""
    signs = torch.where(torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) < 0.4, -1.0, 1.0)
    return _turned(lambda gradient: gradient * signs)


def slightly_shifted_gradient():
    return _turned(lambda gradient: gradient.roll((2, 1), (-2, -1)))


def slightly_smooth_gradient():
    return _turned(lambda gradient: nn.functional.avg_pool2d(gradient, 5, 1, 2))


def three_in_ten_flipped():
    signs = torch.where(torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) < 0.3, -1.0, 1.0)
    return _turned(lambda gradient: gradient * signs)


def upper_half():
    """The gradient of the upper half of the image alone."""

    def upper(gradient):
        gradient = gradient.clone()
        gradient[..., SIZE // 2 :, :] = 0
        return gradient

    return _turned(upper)


def smooth_over_9_pixels():
    return _turned(lambda gradient: nn.functional.avg_pool2d(gradient, 9, 1, 4))


def noisy_gradient():
    """With noise of three times its length."""

    def noisy(gradient):
        noise = torch.randn(gradient.shape[1:], generator=torch.Generator().manual_seed(3))
        length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return gradient + 3 * length * noise / noise.norm()

    return _turned(noisy)


def of_moved_images():
    """The gradient that LeNet has for the image two pixels to the left."""
    return Masked(_Of(lambda images: images.roll(2, -1)))


def noisy_near_the_boundary():
    return SureThenMasked(2.5, noisy_gradient)


def _vanishing(lead):
    """LeNet's own gradient, and none nearer the boundary, as where outputs saturate."""
    return SureThenMasked(lead, lambda: _turned(torch.zeros_like))


def vanishing_near_the_boundary():
    return _vanishing(3.5)


def vanishing_nearer():
    return _vanishing(2.0)


def vanishing_near_by():
    return _vanishing(1.0)


def rough_1():
    return Rough(1.0)


def rough_2():
    return Rough(2.0)


def rough_8():
    return Rough(8.0)


class Honest(nn.Module):
    """LeNet with its own gradient, its images or its logits changed in a way that hides nothing."""

    def __init__(self, before=None, after=None):
        super().__init__()
        self.inner, self.before, self.after = _lenet(), before or nn.Identity(), after or nn.Identity()
        self.class_names = self.inner.class_names

    def forward(self, images):
        return self.after(self.inner(self.before(images)))


class _Levels(nn.Module):
    """So many grey levels, with the gradient of none."""

    def __init__(self, levels):
        super().__init__()
        self.levels = levels

    def forward(self, images):
        rounded = (images * (self.levels - 1)).round() / (self.levels - 1)
        return images + (rounded - images).detach()


class _Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, logits):
        return self.scale * logits


def _strongest(features, share):
    """A share of the features of each image, the strongest, the others 0: which these are changes with a jump."""
    flat = features.flatten(1)
    least = flat.topk(int(flat.shape[1] * share), dim=1).values[:, -1:]
    return (flat * (flat >= least)).view_as(features)


class _Ripples(nn.Module):
    """A wave on each logit, steep beside its height."""

    def forward(self, logits):
        return logits + 0.1 * (20 * logits).sin()


def hot():
    return Honest(after=_Scaled(0.01))


def cold():
    return Honest(after=_Scaled(100.0))


def four_levels():
    return Honest(before=_Levels(4))


def rippled():
    return Honest(after=_Ripples())


def _sparse(share):
    """LeNet with a sparse activation behind its first convolution."""
    network = Honest()
    first = next(module for module in network.inner.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda module, inputs, output: _strongest(output, share))
    return network


def sparse():
    return _sparse(0.1)


def sparser():
    return _sparse(0.05)


def sparsest():
    return _sparse(0.03)


def blurred():
    return Honest(before=nn.AvgPool2d(3, 1, 1))


# What each is: a gradient that does not show the way, one that is the network's own and rough, or neither.
MASKED = {
    network.__name__: network
    for network in (
        random_gradient, decoy, block_means, HalfRounded, reversed_gradient, mirrored_gradient, shifted_gradient,
        smooth_gradient, gradient_of_the_negative, SureThenMasked, masked_near_by, masked_from_afar,
        decoy_near_the_boundary, reversed_near_the_boundary, smooth_near_the_boundary, half_gradient, flipped_signs,
        slightly_shifted_gradient, slightly_smooth_gradient,
    )
}  # fmt: skip


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


# Made after the bounds were set, to test them.
LATER = {
    network.__name__: network
    for network in (
        three_in_ten_flipped, upper_half, smooth_over_9_pixels, noisy_gradient, of_moved_images, noisy_near_the_boundary,
        vanishing_near_the_boundary, vanishing_nearer, vanishing_near_by,
    )
}  # fmt: skip
ROUGH = {network.__name__: network for network in (rough_1, rough_2, Rough, rough_8, sparser, sparsest)}
HONEST = {network.__name__: network for network in (hot, cold, four_levels, rippled, blurred, sparse)}
