"""The paper's "basic transformations" (§3.1): rotation, translation, scale, brightness, contrast and additive noise."""

from typing import TYPE_CHECKING

from pydantic import Field

from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.generators.base import GeneratorConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# What one unit of each free parameter does, so that one step size suits them all.
_ROTATION = 0.5  # radians
_TRANSLATION = 0.2  # of the image's side
_LOG_SCALE = 0.3
_BRIGHTNESS = 0.3  # of the white level
_LOG_CONTRAST = 0.5
_NOISE = 0.2  # standard deviation


class Config(GeneratorConfig):
    """`image_size` is any."""

    PLACES = ("mask",)

    kind: str = "transform"
    image_size: int = Field(224, ge=8)

    def build(self, device: "torch.device | str" = "cpu") -> "Transform":
        return Transform(self.image_size)


class Transform(Generator):
    """`free` [B, 7]: rotation, translation (x, y), log scale, brightness, log contrast, noise; zero is no change.

    `fixed` [B, 6, H, W] is the image and its own noise pattern.
    """

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def encode(self, images: "Tensor", labels: "Tensor") -> Latents:
        import torch

        return Latents(images.new_zeros(len(images), 7), torch.cat([images, self.noise(images)], dim=1))

    def decode(self, latents: Latents) -> "Tensor":
        import torch
        from torch.nn.functional import affine_grid, grid_sample

        assert latents.fixed is not None
        image, noise = latents.fixed.split(3, dim=1)
        angle, x, y, scale, brightness, contrast, amount = latents.free.unbind(dim=1)
        # The grid says where each pixel of the output lies in the input: the inverse of the image's transform.
        shrink = (-scale * _LOG_SCALE).exp()
        cos = (angle * _ROTATION).cos() * shrink
        sin = (angle * _ROTATION).sin() * shrink
        entries = [cos, -sin, -2 * _TRANSLATION * x, sin, cos, -2 * _TRANSLATION * y]  # [-1, 1] is the image's side
        affine = torch.stack(entries, dim=1).view(-1, 2, 3)
        grid = affine_grid(affine, list(image.shape), align_corners=False)
        moved = grid_sample(image, grid, padding_mode="border", align_corners=False)
        brightness = brightness.view(-1, 1, 1, 1)
        contrast = contrast.view(-1, 1, 1, 1)
        amount = amount.view(-1, 1, 1, 1)
        toned = (moved - 0.5) * (contrast * _LOG_CONTRAST).exp() + 0.5 + _BRIGHTNESS * brightness
        return (toned + _NOISE * amount * noise).clamp(0, 1)
