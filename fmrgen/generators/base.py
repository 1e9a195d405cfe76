"""The generator g: what an image becomes when its latent is moved."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from fmrgen.config import ComponentConfig
from fmrgen.sources.images import LARGEST_SIDE

if TYPE_CHECKING:
    from torch import Tensor


class GeneratorConfig(ComponentConfig):
    """What every generator understands."""

    image_size: int = Field(ge=8, le=LARGEST_SIDE, description="side of the images in pixels")
    mask: str | None = Field(None, description="file of fmrgen sparsify: the dimensions of the latent that may move")


def mask_of(config: ComponentConfig) -> str | None:
    """The mask of a generator's config; None where it has none, or is of anyone's own making."""
    return config.mask if isinstance(config, GeneratorConfig) else None


class Latents(NamedTuple):
    """`free` [B, …] is what a step may move; `fixed` [B, …] or None is context of each image that it may not."""

    free: "Tensor"
    fixed: "Tensor | None" = None


class Generator(ABC):
    """Encodes images to latents and decodes latents to images, each row by itself.

    `image_size` is the side of its images in pixels. `row_seeds` is set before each `encode` to one integer per row,
    made of the recipe's seed and the example's id: anything random is drawn from it, for instance by `noise`.
    """

    image_size: int
    row_seeds: Sequence[int] = ()

    @abstractmethod
    def encode(self, images: "Tensor", labels: "Tensor") -> Latents:
        """Latents of images [B, 3, H, W] in [0, 1] with labels [B]. Runs without gradient and may be dear."""

    @abstractmethod
    def decode(self, latents: Latents) -> "Tensor":
        """Images [B, 3, H, W] in [0, 1]; gradients reach `latents.free`."""

    def noise(self, like: "Tensor") -> "Tensor":
        """Standard normal noise of the shape of `like` [B, …], row i from `row_seeds[i]` alone (from i where unset)."""
        import torch

        seeds = self.row_seeds or range(len(like))
        rows = [
            torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(seed), dtype=like.dtype)
            for _, seed in zip(like, seeds, strict=True)
        ]
        return torch.stack(rows).to(like.device)


def encode_blank(generator: Generator, blank: "Tensor") -> Latents:
    """The latents of the image `blank` [1, 3, H, W], to see what they are like."""
    import torch

    generator.row_seeds = [0]
    with torch.no_grad():
        latents = generator.encode(blank, torch.zeros(1, dtype=torch.int64, device=blank.device))
    generator.row_seeds = ()
    return latents


def check_image_size(image_size: int, factor: int) -> None:
    """Raises UserError where `image_size` is not a multiple of the downsampling `factor`."""
    from fmrgen.errors import UserError

    if image_size % factor:
        near = max(factor, round(image_size / factor) * factor)
        raise UserError(f"generator.image_size: {image_size} is no multiple of {factor}; {near} would be")
