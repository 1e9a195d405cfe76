"""Random changes that leave the class alone, drawn for each image by itself."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fmrgen.apps.training.recipe import AugmentConfig
from fmrgen.engine.interfaces import Generator, Latents

_ROTATION, _SCALE, _SHEAR, _SHIFT, _WAVE = math.radians(12), 0.12, 0.15, 0.1, 0.08


@torch.no_grad()
def augment(
    images: Tensor, labels: Tensor, config: AugmentConfig, generator: Generator | None, classes: int
) -> tuple[Tensor, Tensor]:
    """Images [B, 3, H, W] in [0, 1], changed as `config` says, and their labels [B]; of mixed ones the probabilities of
    all `classes`, [B, K]."""
    if config.warp:
        images = _warp(images, config.warp)
    if config.crop:
        images = _crop(images, config.crop)
    if config.flip:
        mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
    if generator is not None and (count := round(config.reconstruct * len(images))):
        images = torch.cat([_reconstruct(images[:count], labels[:count], config, generator), images[count:]])
    if config.blur:
        images = _blur(images, config.blur)
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
    return torch.stack([image[:, y : y + side, x : x + side] for image, (y, x) in zip(padded, corners, strict=True)])


def _mix(images: Tensor, probabilities: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Each image with another one of the batch, and what they show (Zhang et al. 2018)."""
    share = torch.distributions.Beta(alpha, alpha).sample((len(images),)).to(images)
    other = torch.randperm(len(images), device=images.device)
    wide = share.view(-1, 1, 1, 1)
    mixed = wide * images + (1 - wide) * images[other]
    return mixed, share.unsqueeze(1) * probabilities + (1 - share.unsqueeze(1)) * probabilities[other]


def _uniform(rows: int, limit: float, like: Tensor) -> Tensor:
    return (torch.rand(rows, device=like.device) * 2 - 1) * limit


def _warp(images: Tensor, strength: float) -> Tensor:
    rows = len(images)
    angle, shear = _uniform(rows, _ROTATION * strength, images), _uniform(rows, _SHEAR * strength, images)
    scale = (1 + _uniform(rows, _SCALE, images)) ** strength
    rotation = torch.stack([angle.cos(), -angle.sin() + shear, angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    shift = torch.stack([_uniform(rows, _SHIFT * strength, images) for _ in "xy"], 1).unsqueeze(2)
    grid = F.affine_grid(
        torch.cat([rotation * scale.view(-1, 1, 1), shift], 2), list(images.shape), align_corners=False
    )
    wave = torch.randn(rows, 2, 4, 4, device=images.device) * _WAVE * strength
    grid = grid + F.interpolate(wave, images.shape[-2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, align_corners=False)


def _reconstruct(images: Tensor, labels: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    latents = generator.encode(images, labels)
    strength = torch.rand(len(images), *[1] * (latents.free.ndim - 1), device=images.device).square()
    moved = latents.free + strength * config.latent_noise * torch.randn_like(latents.free)
    return generator.decode(Latents(moved, latents.fixed))


def _blur(images: Tensor, largest: float) -> Tensor:
    sigma = torch.rand(len(images), 1, device=images.device).square() * largest + 1e-3
    reach = math.ceil(2 * largest)
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    kernel = (-0.5 * (offsets / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    channels = images.flatten(0, 1).unsqueeze(0)
    for shape in ((-1, 1, 1, 2 * reach + 1), (-1, 1, 2 * reach + 1, 1)):
        padding = (0, reach) if shape[-1] > 1 else (reach, 0)
        channels = F.conv2d(channels, kernel.view(shape), padding=padding, groups=channels.shape[1])
    return channels.view_as(images)
