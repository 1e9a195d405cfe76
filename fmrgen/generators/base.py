"""What the configs of generators share. The generator itself is `fmrgen.engine.interfaces.Generator`."""

from typing import TYPE_CHECKING

from pydantic import Field

from fmrgen.config import SINCE_0_2, ComponentConfig
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.errors import UserError
from fmrgen.image_files import LARGEST_SIDE

if TYPE_CHECKING:
    from torch import Tensor


class GeneratorConfig(ComponentConfig):
    """What every generator understands."""

    image_size: int = Field(ge=8, le=LARGEST_SIDE, description="side of the images in pixels")
    mask: str | None = Field(None, description="file from fmrgen sparsify: the dimensions of the latent that may move")


SHELL = Field(
    False, description="after each step, scale the latent back to its initial length", json_schema_extra=SINCE_0_2
)


def on_shell(free: "Tensor", start: "Tensor") -> "Tensor":
    """Latents [B, …] scaled, row by row, to the length that `start` [B, …] has."""
    begun, now = start.flatten(1).norm(dim=1), free.flatten(1).norm(dim=1)
    return free * (begun / now.where(now > 0, 1.0)).view(-1, *[1] * (free.ndim - 1))


def mask_of(config: ComponentConfig) -> str | None:
    """The mask of a generator's config; None where it has none, or is not built in."""
    return config.mask if isinstance(config, GeneratorConfig) else None


def encode_blank(generator: Generator, blank: "Tensor") -> Latents:
    """The latents of the image `blank` [1, 3, H, W], to see what they are like."""
    import torch

    generator.row_seeds = [0]
    with torch.no_grad():
        latents = generator.encode_quickly(blank, torch.zeros(1, dtype=torch.int64, device=blank.device))
    generator.row_seeds = ()
    return latents


def check_image_size(image_size: int, factor: int) -> None:
    """Raises UserError where `image_size` is not a multiple of the downsampling `factor`."""
    if image_size % factor:
        near = max(factor, round(image_size / factor) * factor)
        raise UserError(f"generator.image_size: {image_size} is not a multiple of {factor}; use {near}")


def check_class(labels: "Tensor", classes: int | None) -> None:
    """Raises UserError where one of `labels` [B] is not one of a network's `classes` (None for one that knows none)."""
    if classes is not None and int(labels.max()) >= classes:
        raise UserError(
            f"generator: its network knows {classes} classes, and an example has the label {int(labels.max())}"
        )
