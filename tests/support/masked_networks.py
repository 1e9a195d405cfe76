"""Networks made of the shipped LeNet: most answer as it does and hand over another gradient than their own.

A recipe names each as `masked_networks:NAME`, by its key in one of the four tables.
"""

from functools import cache, partial

import torch
from torch import nn
from torch.nn import functional as F

from fmrgen.recipe.job import parse_classifier

SIZE = 32


class Lenet(nn.Module):
    """What `answer` makes of LeNet and the images."""

    def __init__(self, answer):
        super().__init__()
        self.inner, self.answer = parse_classifier("asset:mnist/lenet")[1].build(), answer
        self.class_names = self.inner.class_names

    def forward(self, images):
        return self.answer(self.inner, images)


class _TurnedGradient(torch.autograd.Function):
    """The image, with the gradient that `turn` makes of its own."""

    @staticmethod
    def forward(ctx, images, turn):
        ctx.turn = turn
        return images.view_as(images)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.turn(gradient), None


# Ways to answer


def turned(turn):
    """LeNet's gradient, turned."""
    return lambda lenet, images: lenet(_TurnedGradient.apply(images, turn))


def masked(guide):
    """The answers of LeNet, the gradient of `guide`."""

    def answer(lenet, images):
        guided = guide(lenet, images)
        return lenet(images).detach() + guided - guided.detach()

    return answer


def seen(change):
    """The gradient that LeNet has where `change` puts the images."""
    return masked(lambda lenet, images: lenet(change(images)))


def near(lead, hidden):
    """LeNet with its own gradient where its logits differ by `lead` or more, and `hidden` nearer the boundary."""

    def answer(lenet, images):
        logits = lenet(images)
        first, second = logits.topk(2, dim=1).values.unbind(1)
        return torch.where((first - second > lead).unsqueeze(1), logits, hidden(lenet, images))

    return answer


def smooth(side):
    return turned(lambda gradient: F.avg_pool2d(gradient, side, 1, side // 2))


def shifted(rows, columns):
    return turned(lambda gradient: gradient.roll((rows, columns), (-2, -1)))


def flipped(share, seed):
    """This share of the gradient's entries have the other sign, always the same."""
    drawn = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    return turned(lambda gradient: gradient * torch.where(drawn < share, -1.0, 1.0))


def rough(height):
    """LeNet with its own gradient, whose logits jump by up to `height` with every change of an image by grey levels."""

    def answer(lenet, images):
        places = (1e5 * images.mean((1, 2, 3))).floor().unsqueeze(1) + 97 * torch.arange(10.0, device=images.device)
        levels = (43758.5453 * (12.9898 * places).sin()).frac()  # as good as random, the same for the same image
        return lenet(images) + height * levels

    return answer


def sparse(share):
    """LeNet with this share of the features of its first convolution, the strongest, the others 0: which, jumps."""

    def strongest(module, inputs, features):
        flat = features.flatten(1)
        least = flat.topk(int(flat.shape[1] * share), dim=1).values[:, -1:]
        return (flat * (flat >= least)).view_as(features)

    def answer(lenet, images):
        first = next(module for module in lenet.modules() if isinstance(module, nn.Conv2d))
        with first.register_forward_hook(strongest):
            return lenet(images)

    return answer


# What needs more than a line


@cache
def _another_lenet():
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return parse_classifier("{kind: lenet, num_classes: 10}")[1].build()


_PATTERN = torch.randn(3 * SIZE * SIZE, 10, generator=torch.Generator().manual_seed(0))  # a gradient for each class
_LOWER_INDICES = torch.arange(SIZE) < SIZE // 2


def _block_means(images):
    return F.interpolate(F.avg_pool2d(images, 8), scale_factor=8)


def _half_rounded(lenet, images):
    """Eight grey levels by rounding, which has no gradient, and a trace of the mean, which has one."""
    return lenet((images * 7).round() / 7) + 1e-4 * images.mean((1, 2, 3)).unsqueeze(1) * torch.arange(10.0)


def _noisy(gradient):
    """With noise of three times its length."""
    noise = torch.randn(gradient.shape[1:], generator=torch.Generator().manual_seed(3))
    length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return gradient + 3 * length * noise / noise.norm()


def _four_levels(images):
    """Four grey levels, with the gradient of none."""
    return images + ((images * 3).round() / 3 - images).detach()


def _rippled(logits):
    """With a wave on each logit, steep beside its height."""
    return logits + 0.1 * (20 * logits).sin()


_random = masked(lambda lenet, images: images.flatten(1) @ _PATTERN)
_decoy = masked(lambda lenet, images: _another_lenet()(images))
_reversed = turned(lambda gradient: -gradient)
_vanishing = turned(torch.zeros_like)  # as where outputs saturate

# A gradient that does not show the way, …
MASKED = {
    "random_gradient": _random,
    "decoy": _decoy,
    "block_means": seen(_block_means),
    "HalfRounded": _half_rounded,
    "reversed_gradient": _reversed,
    "mirrored_gradient": turned(lambda gradient: gradient.flip(-1)),
    "shifted_gradient": shifted(5, 9),
    "smooth_gradient": smooth(15),
    "gradient_of_the_negative": seen(lambda images: 1 - images),
    "SureThenMasked": near(3.5, _random),
    "masked_near_by": near(1.5, _random),
    "masked_from_afar": near(7.0, _random),
    "decoy_near_the_boundary": near(3.5, _decoy),
    "reversed_near_the_boundary": near(3.5, _reversed),
    "smooth_near_the_boundary": near(3.5, smooth(15)),
    "half_gradient": turned(lambda gradient: gradient * _LOWER_INDICES),
    "flipped_signs": flipped(0.4, seed=1),
    "slightly_shifted_gradient": shifted(2, 1),
    "slightly_smooth_gradient": smooth(5),
}
# … such that were made after the bounds were set, to test them, …
LATER = {
    "three_in_ten_flipped": flipped(0.3, seed=2),
    "upper_half": turned(lambda gradient: gradient * _LOWER_INDICES.unsqueeze(1)),
    "smooth_over_9_pixels": smooth(9),
    "noisy_gradient": turned(_noisy),
    "of_moved_images": seen(lambda images: images.roll(2, -1)),
    "noisy_near_the_boundary": near(2.5, turned(_noisy)),
    "vanishing_near_the_boundary": near(3.5, _vanishing),
    "vanishing_nearer": near(2.0, _vanishing),
    "vanishing_near_by": near(1.0, _vanishing),
}
# … one that is the network's own and rough, …
ROUGH = {
    "rough_1": rough(1.0),
    "rough_2": rough(2.0),
    "Rough": rough(4.0),
    "rough_8": rough(8.0),
    "sparser": sparse(0.05),
    "sparsest": sparse(0.03),
}
# … or its own, with images or logits changed in a way that hides nothing.
HONEST = {
    "hot": lambda lenet, images: 0.01 * lenet(images),
    "cold": lambda lenet, images: 100.0 * lenet(images),
    "four_levels": lambda lenet, images: lenet(_four_levels(images)),
    "rippled": lambda lenet, images: _rippled(lenet(images)),
    "blurred": lambda lenet, images: lenet(F.avg_pool2d(images, 3, 1, 1)),
    "sparse": sparse(0.1),
}
for _name, _answer in {**MASKED, **LATER, **ROUGH, **HONEST}.items():
    globals()[_name] = partial(Lenet, _answer)
