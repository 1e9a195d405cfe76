"""Random changes that preserve the class, drawn for each image by itself."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fmrgen.apps.explain.random_change import SHARE_OF_FIRST, SHARE_OF_FURTHER, RandomChange
from fmrgen.apps.training.recipe import AugmentConfig
from fmrgen.classifiers.base import without_colours
from fmrgen.engine.interfaces import Generator, Latents

# The largest changes of a warp of strength 1.
_ROTATION = math.radians(12)
_SCALE = 0.12  # of the size
_SHEAR = 0.15
_SHIFT = 0.1  # of half the width
_WAVE = 0.08  # of half the width: the standard deviation of elastic waves
_WAVE_NODES = 4  # across and up, between which elastic waves are interpolated
_MIN_SIGMA = 1e-3  # of a blur: 0 has no kernel
_TINT = 0.15  # of a channel, in doublings


@torch.no_grad()
def augment(
    images: Tensor, labels: Tensor, config: AugmentConfig, generator: Generator | None, classes: int
) -> tuple[Tensor, Tensor]:
    """Return images changed at random, and their labels; if images are mixed, the probabilities of all classes [B, K].

    Images are [B, 3, H, W] in [0, 1], labels [B]. Without a generator there are no reconstructions.
    """
    if config.warp:
        images = _warp(images, config.warp)
    if config.crop:
        images = _crop(images, config.crop)
    if config.flip:
        mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
    for place, (name, (least, most)) in enumerate(config.change.items()):
        share = SHARE_OF_FURTHER if place else SHARE_OF_FIRST
        images = RandomChange(name, least, most, share)(images)
    reconstructed = round(config.reconstruct * len(images))
    if generator is not None and reconstructed:
        first = _reconstruct(images[:reconstructed], labels[:reconstructed], config, generator)
        images = torch.cat([first, images[reconstructed:]])
    if config.blur:
        images = _blur(images, config.blur)
    if config.colour:
        images = _recolour(images, config.colour)
    if config.cutout:
        images = _cut_out(images, config.cutout)
    if config.noise:
        strength = torch.rand(len(images), 1, 1, 1, device=images.device).square() * config.noise
        images = images + strength * torch.randn_like(images)
    if config.mixup:
        images, labels = _mix(images, F.one_hot(labels, classes).to(images.dtype), config.mixup)
    return images.clamp(0, 1), labels


def _crop(images: Tensor, border: int) -> Tensor:
    side = images.shape[-1]
    padded = F.pad(images, (border,) * 4)
    corners = torch.randint(2 * border + 1, (len(images), 2)).tolist()
    crops = [image[:, y : y + side, x : x + side] for image, (y, x) in zip(padded, corners, strict=True)]
    return torch.stack(crops)


def _mix(images: Tensor, probabilities: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return each image mixed with another one of the batch, and the mixed probabilities (Zhang et al. 2018)."""
    share = torch.distributions.Beta(alpha, alpha).sample((len(images),)).to(images)
    other = torch.randperm(len(images), device=images.device)
    image_share = share.view(-1, 1, 1, 1)
    mixed = image_share * images + (1 - image_share) * images[other]
    return mixed, share.unsqueeze(1) * probabilities + (1 - share.unsqueeze(1)) * probabilities[other]


def _uniform(rows: int, limit: float, like: Tensor) -> Tensor:
    """Return numbers between -`limit` and `limit`, [rows]."""
    return (torch.rand(rows, device=like.device) * 2 - 1) * limit


def _warp(images: Tensor, strength: float) -> Tensor:
    """Return images that are rotated, sheared, scaled, shifted and bent by elastic waves."""
    rows = len(images)
    angle = _uniform(rows, _ROTATION * strength, images)
    shear = _uniform(rows, _SHEAR * strength, images)
    scale = (1 + _uniform(rows, _SCALE, images)) ** strength
    rotation = torch.stack([angle.cos(), -angle.sin() + shear, angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    shift_x = _uniform(rows, _SHIFT * strength, images)
    shift_y = _uniform(rows, _SHIFT * strength, images)
    shift = torch.stack([shift_x, shift_y], 1).unsqueeze(2)
    matrix = torch.cat([rotation * scale.view(-1, 1, 1), shift], 2)  # [B, 2, 3]
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    wave = torch.randn(rows, 2, _WAVE_NODES, _WAVE_NODES, device=images.device) * _WAVE * strength
    grid = grid + F.interpolate(wave, images.shape[-2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _reconstruct(images: Tensor, labels: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Return reconstructions from latents with random noise."""
    latents = generator.encode(images, labels)
    strength = torch.rand(len(images), *[1] * (latents.free.ndim - 1), device=images.device).square()
    moved = latents.free + strength * config.latent_noise * torch.randn_like(latents.free)
    return generator.decode(Latents(moved, latents.fixed))


def _blur(images: Tensor, largest: float) -> Tensor:
    """Return images under a Gaussian blur of at most `largest` pixels, which differs between images."""
    sigma = torch.rand(len(images), 1, device=images.device).square() * largest + _MIN_SIGMA
    reach = math.ceil(2 * largest)
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    kernel = (-0.5 * (offsets / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    channels = F.pad(images, (reach,) * 4, mode="replicate")
    channels = channels.flatten(0, 1).unsqueeze(0)  # [1, 3 B, H, W]: each channel has its own kernel
    across, up = kernel.view(-1, 1, 1, 2 * reach + 1), kernel.view(-1, 1, 2 * reach + 1, 1)
    channels = F.conv2d(channels, across, groups=channels.shape[1])
    channels = F.conv2d(channels, up, groups=channels.shape[1])
    return channels.view_as(images)


def _recolour(images: Tensor, strength: float) -> Tensor:
    """Return images of another brightness, contrast, saturation and tint."""
    rows = len(images)

    def factor(doublings: float, channels: int = 1) -> Tensor:
        return torch.exp2(_uniform(rows * channels, doublings * strength, images)).view(rows, channels, 1, 1)

    grey = without_colours(images)
    images = grey + (images - grey) * factor(1)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * factor(0.5)
    return (images * factor(1) * factor(_TINT, 3)).clamp(0, 1)


def _cut_out(images: Tensor, share: float) -> Tensor:
    """Return images with a square of their mean colour at a random place (DeVries and Taylor 2017)."""
    rows, _, height, width = images.shape
    side = share * min(height, width)
    inside = []
    for length in (height, width):
        centre = torch.rand(rows, 1, device=images.device) * length
        place = torch.arange(length, device=images.device) + 0.5
        inside.append((place - centre).abs() <= side / 2)
    square = inside[0].unsqueeze(2) & inside[1].unsqueeze(1)  # [B, H, W]
    return torch.where(square.unsqueeze(1), images.mean((2, 3), keepdim=True), images)
