"""Efficient-VDVAE (paper Table 3): a deep hierarchy of latents. The coarse ones are perturbed."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.errors import UserError, one_line
from fmrgen.generators.base import GeneratorConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fmrgen.generators.networks.efficient_vdvae import EfficientVdvae


class Config(GeneratorConfig):
    """`checkpoint` is an official file of Efficient-VDVAE (PyTorch); its averaged weights are used.

    Its finest groups are nearly pixels, so only those up to a side of `free_side` may move.
    """

    PLACES = ("checkpoint", "mask")

    kind: str = "vdvae"
    checkpoint: str
    free_side: int = Field(8, ge=1, description="groups of latents with sides up to this may move; the finer ones stay")

    def build(self, device: "torch.device | str" = "cpu") -> "Vdvae":
        import torch

        from fmrgen.generators.networks.efficient_vdvae import efficient_vdvae
        from fmrgen.weights.checkpoint import freeze, read_checkpoint

        subject = f"generator.checkpoint: {self.checkpoint}"
        network = efficient_vdvae(read_checkpoint(self.checkpoint, "generator.checkpoint"), subject)
        if network.image_size != self.image_size:
            raise UserError(
                f"generator.image_size: {self.checkpoint} generates images of {network.image_size} px; set that"
            )
        freeze(network, device)
        try:
            with torch.no_grad():
                blank = torch.zeros(1, 3, self.image_size, self.image_size, device=device)
                shapes = [tuple(group.shape[1:]) for group in network.posterior_means(blank)]
        except (AttributeError, RuntimeError) as error:
            raise UserError(f"{subject}: its blocks do not fit together: {one_line(error)}") from None
        smallest = min(shape[-1] for shape in shapes)
        if self.free_side < smallest:
            raise UserError(f"generator.free_side: no group has a side of {self.free_side} or less; use {smallest}")
        return Vdvae(network, self.image_size, shapes, self.free_side)


class Vdvae(Generator):
    """`free` holds the coarse groups, `fixed` the fine ones, each flat and one after the other, [B, N].

    All are the means of their posteriors, so that encoding is not random. Decoded images are expectations, too.
    """

    def __init__(
        self, network: "EfficientVdvae", image_size: int, shapes: list[tuple[int, ...]], free_side: int
    ) -> None:
        self.network = network
        self.image_size = image_size
        self.shapes = shapes  # [C, side, side] of each group
        self.is_free = [shape[-1] <= free_side for shape in shapes]

    def encode(self, images: "Tensor", labels: "Tensor") -> Latents:
        import torch

        free: list[Tensor] = []
        fixed: list[Tensor] = []
        for group, is_free in zip(self.network.posterior_means(images * 2 - 1), self.is_free, strict=True):
            groups = free if is_free else fixed
            groups.append(group.flatten(1))
        return Latents(torch.cat(free, 1), torch.cat(fixed, 1) if fixed else None)

    def decode(self, latents: Latents) -> "Tensor":
        from fmrgen.generators.networks.efficient_vdvae import expected_image

        image = expected_image(self.network.logits(self._groups(latents)))
        return (image / 2 + 0.5).clamp(0, 1)

    def _groups(self, latents: Latents) -> "list[Tensor]":
        """Return z of each group, [B, C, side, side]."""
        groups = list(zip(self.shapes, self.is_free, strict=True))
        free = iter(latents.free.split([math.prod(shape) for shape, is_free in groups if is_free], 1))
        fixed: Iterator[Tensor] = iter(())
        if latents.fixed is not None:
            fixed = iter(latents.fixed.split([math.prod(shape) for shape, is_free in groups if not is_free], 1))
        return [next(free if is_free else fixed).unflatten(1, shape) for shape, is_free in groups]
