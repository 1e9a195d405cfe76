"""A small Efficient-VDVAE (Hazami et al. 2022): a bound on the likelihood of images under a hierarchy of latents."""

import math
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from fmrgen.labels import Labels
from fmrgen.training.objectives.base import Objective, ObjectiveConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fmrgen.generators._efficient_vdvae import BlockDown, EfficientVdvae

_BETA = math.log(2)  # of the softplus that makes standard deviations, of latents and of colours
_SMALLEST = 1e-5  # probability of a colour below which its density stands for it


class Config(ObjectiveConfig):
    """The architecture, from fine to coarse: each level has the side, width, blocks and latent channels at its place.

    Saves a file that `kind: vdvae` reads.
    """

    kind: str = "vdvae"
    sides: list[int] = Field([32, 16, 8, 4], min_length=1, description="of the levels; the first one is the image's")
    widths: list[int] = Field([16, 24, 32, 48], description="of each level, in channels")
    blocks: list[int] = Field([1, 1, 2, 2], description="groups of latents at each level")
    latent_channels: list[int] = Field([1, 2, 4, 8], description="of each group of a level")
    mixtures: int = Field(5, ge=1, description="of logistics, for each pixel")
    warm_up: float = Field(0.3, ge=0, le=1, description="share of the run in which the divergence comes to its weight")

    @model_validator(mode="after")
    def _fit(self) -> "Config":
        if not len(self.sides) == len(self.widths) == len(self.blocks) == len(self.latent_channels):
            raise ValueError("sides, widths, blocks and latent_channels must be as many")
        if any(fine % coarse for fine, coarse in pairwise(self.sides)):
            raise ValueError("sides: each one must be a multiple of the next")
        return self

    def objective(self, device: "torch.device", labels: Labels) -> "VdvaeObjective":
        import torch

        from fmrgen.generators._efficient_vdvae import EfficientVdvae

        shapes = {f"{name}.weight": shape for name, shape in self._convolutions()}
        side = self.sides[-1]
        shapes["top_down.trainable_h"] = (1, self.widths[-1], side, side)
        for level, side in enumerate(self.sides[-2::-1], start=1):
            width = self.widths[-1 - level]
            shapes[f"top_down.levels_down_upsample.{level}.unpool.scale_bias"] = (1, width, side, side)
        network = EfficientVdvae({name: torch.empty(shape) for name, shape in shapes.items()})
        depth = sum(self.blocks)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith(("scale_bias", "trainable_h")):
                    parameter.zero_()
                elif name.endswith("z_projection.weight") or re.search(r"residual_block\..*convs\.7\.weight", name):
                    parameter.mul_(depth**-0.5)  # so that depth does not make the sum of all blocks large
        return VdvaeObjective(network.to(device), self)

    def _convolutions(self) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
        """Names and shapes of all convolutions."""
        up, down = "bottom_up", "top_down"
        first, last = self.widths[0], self.widths[-1]
        yield f"{up}.input_conv", (first, 3, 1, 1)
        yield f"{down}.output_conv", (10 * self.mixtures, first, 1, 1)
        for level, (width, stride) in enumerate(zip(self.widths, [*_strides(self.sides), 1], strict=True)):
            place = f"{up}.levels_up_downsample.{level}"
            yield from _cell(f"{place}.residual_block.0", width, width)
            yield f"{place}.skip_projection", (width, width, 1, 1)
            if stride > 1:
                yield f"{place}.pool.ops.0", (self.widths[level + 1], width, stride, stride)
        above = last
        for level, width in enumerate(reversed(self.widths)):
            latent, blocks = self.latent_channels[-1 - level], self.blocks[-1 - level]
            if level:
                yield f"{down}.levels_down_upsample.{level}.unpool.ops.0", (width, above, 1, 1)
            places = [f"{down}.levels_down_upsample.{level}"]
            places += [f"{down}.levels_down.{level}.{block}" for block in range(blocks - 1)]
            for place in places:
                yield from _cell(f"{place}.residual_block.0", width, width)
                yield from _cell(f"{place}.posterior_net.0", 2 * width, width)
                yield from _cell(f"{place}.prior_net.0", width, 2 * width)
                yield f"{place}.prior_layer.projection", (2 * latent, width, 1, 1)
                yield f"{place}.posterior_layer.projection", (2 * latent, width, 1, 1)
                yield f"{place}.z_projection", (width, latent, 1, 1)
            above = width


def _strides(sides: list[int]) -> list[int]:
    return [fine // coarse for fine, coarse in pairwise(sides)]


def _cell(place: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Four convolutions through half of `inputs` or `outputs`, whichever is less."""
    middle = max(1, min(inputs, outputs) // 2)
    for index, (depth, width, kernel) in enumerate(
        ((inputs, middle, 1), (middle, middle, 3), (middle, middle, 3), (middle, outputs, 1))
    ):
        yield f"{place}.convs.{2 * index + 1}", (width, depth, kernel, kernel)


class VdvaeObjective(Objective):
    """Bits per colour of an image: of its pixels given the latents, and of the latents' divergence from the prior."""

    network: "EfficientVdvae"

    def __init__(self, network: "EfficientVdvae", config: Config) -> None:
        self.network, self.image_size, self.warm_up = network, config.sides[0], config.warm_up

    def loss(self, images: "Tensor", labels: "Tensor", progress: float) -> "Tensor":
        weight = 1.0 if progress >= self.warm_up else progress / self.warm_up
        pixels, divergence = self._bits(images)
        return (pixels + weight * divergence).mean()

    def _bits(self, images: "Tensor") -> "tuple[Tensor, Tensor]":
        """Bits per colour [B] of the pixels, and of the latents."""
        import torch
        from torch.nn.functional import softplus

        images = images * 2 - 1
        skips = self.network.bottom_up(images)
        divergences = []

        def sampled(block: "BlockDown", y: "Tensor", prior: "Tensor", level: int) -> "Tensor":
            mean, raw = block.posterior(y, skips[level])
            expected, raw_expected = block.prior(prior)
            deviation, allowed = softplus(raw, _BETA), softplus(raw_expected, _BETA)
            distance = ((mean - expected) / allowed).square() + (deviation / allowed).square()
            divergence = 0.5 * distance - 0.5 - (deviation / allowed).log()
            divergences.append(divergence.flatten(1).sum(1))
            return mean + deviation * torch.randn_like(mean)

        logits = self.network.top_down(len(images), sampled)
        colours = images[0].numel() * math.log(2)
        surprise = -log_likelihood(images, logits).flatten(1).sum(1)
        return surprise / colours, torch.stack(divergences).sum(0) / colours

    def metrics(self, images: "Tensor", labels: "Tensor") -> "dict[str, Tensor]":
        from fmrgen.generators._efficient_vdvae import expected_image

        made = expected_image(self.network.logits(self.network.posterior_means(images * 2 - 1))) / 2 + 0.5
        pixels, divergence = self._bits(images)
        return {
            "bits_per_colour": pixels + divergence,
            "psnr": -10 * (made.clamp(0, 1) - images).square().flatten(1).mean(1).log10(),
        }

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        save_file(self.network.state_dict(), folder / "model.safetensors")


def log_likelihood(images: "Tensor", logits: "Tensor") -> "Tensor":
    """Of the colours of each pixel under its mixture of discretised logistics (Salimans et al. 2017).

    Args:
        images: [B, 3, H, W] in [-1, 1], on the 8-bit grid.
        logits: [B, 10 M, H, W], laid out as `expected_image` reads them.

    Returns:
        [B, H, W], natural logarithms.
    """
    import torch
    from torch.nn.functional import logsigmoid, softplus

    mixtures = logits.shape[1] // 10
    shares, rest = logits.split([mixtures, 9 * mixtures], 1)
    means, raw_scales, raw_leanings = rest.unflatten(1, (3, 3, mixtures)).unbind(2)
    leanings = raw_leanings.tanh()
    colours = images.unsqueeze(2)
    red, green = colours[:, 0], colours[:, 1]
    leaning = [torch.zeros_like(leanings[:, 0]), leanings[:, 0] * red, leanings[:, 1] * red + leanings[:, 2] * green]
    centred = colours - means - torch.stack(leaning, 1)
    scales = softplus(raw_scales, _BETA).clamp(min=1e-5)
    above, below = (centred + 1 / 255) / scales, (centred - 1 / 255) / scales
    inside = above.sigmoid() - below.sigmoid()
    middle = centred / scales
    density = middle - scales.log() - 2 * softplus(middle) - math.log(255 / 2)
    found = torch.where(inside > _SMALLEST, inside.clamp(min=1e-12).log(), density)
    found = torch.where(colours <= -1 + 1e-4, logsigmoid(above), found)
    found = torch.where(colours >= 1 - 1e-4, logsigmoid(-below), found)
    return (found.sum(1) + shares.log_softmax(1)).logsumexp(1)
