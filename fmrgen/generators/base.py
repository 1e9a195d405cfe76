"""What the configs of generators share. The generator itself is `fmrgen.engine.interfaces.Generator`."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from fmrgen.config import ComponentConfig, Revision
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.errors import UserError
from fmrgen.image_files import LARGEST_SIDE

if TYPE_CHECKING:
    from torch import Tensor


class GeneratorConfig(ComponentConfig):
    """The keys that every built-in generator has."""

    image_size: int = Field(ge=8, le=LARGEST_SIDE, description="side of the images in pixels")
    mask: str | None = Field(None, description="file from fmrgen sparsify: the dimensions of the latent that may move")


class DenoiserConfig(GeneratorConfig):
    """The keys of generators that noise an image and lead it back: which of its properties an unmoved latent keeps."""

    FOLDERS: ClassVar[tuple[str, ...]] = ("unet", "scheduler")

    revision: Revision = None
    shell: bool = Field(True, description="after each step, scale what was noised to the length that it began with")
    residual: bool = Field(True, description="add what the round trip loses, so that an unmoved image is exact")


def on_shell(free: "Tensor", start: "Tensor") -> "Tensor":
    """Return latents `free` [B, …] scaled, row by row, to the length that `start` [B, …] has."""
    start_length = start.flatten(1).norm(dim=1)
    length = free.flatten(1).norm(dim=1)
    ratio = start_length / length.where(length > 0, 1.0)
    return free * ratio.view(-1, *[1] * (free.ndim - 1))


def mask_of(config: ComponentConfig) -> str | None:
    """Return the mask file of a generator's config; None if it has none, or is not built in."""
    return config.mask if isinstance(config, GeneratorConfig) else None


def encode_blank(generator: Generator, blank: "Tensor") -> Latents:
    """Return the latents of the image `blank` [1, 3, H, W], whose shapes and dtypes are those of any image."""
    import torch

    generator.row_seeds = [0]
    with torch.no_grad():
        latents = generator.encode_quickly(blank, torch.zeros(1, dtype=torch.int64, device=blank.device))
    generator.row_seeds = ()
    return latents


def check_image_size(image_size: int, factor: int) -> None:
    """Raise UserError unless `image_size` is a multiple of the downsampling `factor`."""
    if image_size % factor:
        nearest = max(factor, round(image_size / factor) * factor)
        raise UserError(f"generator.image_size: {image_size} is not a multiple of {factor}; use {nearest}")


def check_class(labels: "Tensor", classes: int | None) -> None:
    """Raise UserError if one of `labels` [B] is not below the number of a network's `classes`.

    Does nothing for an unconditional network, whose `classes` is None.
    """
    if classes is None:
        return
    highest = int(labels.max())
    if highest >= classes:
        raise UserError(f"generator: its network has {classes} classes, and an example has the label {highest}")
