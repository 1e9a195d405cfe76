"""A small Efficient-VDVAE (Hazami et al. 2022): images under a hierarchy of latents."""

import math
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from pydantic import Field, model_validator
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import softplus

from fmrgen.apps.training.objectives.base import Objective, ObjectiveConfig, psnr
from fmrgen.generators.networks.efficient_vdvae import PER_MIXTURE, BlockDown, EfficientVdvae, expected_image
from fmrgen.labels import Labels

_BETA = math.log(2)  # of the softplus that gives standard deviations


class Config(ObjectiveConfig):
    """The architecture, from fine to coarse: each level has the side, width, blocks and latent channels at its place.

    Saves a file that `kind: vdvae` reads.
    """

    kind: str = "vdvae"
    sides: list[int] = Field([32, 16, 8, 4], min_length=1, description="side of each level; the first is the image's")
    widths: list[int] = Field([16, 24, 32, 48], description="channels of each level")
    blocks: list[int] = Field([1, 1, 2, 2], description="groups of latents at each level")
    latent_channels: list[int] = Field([1, 2, 4, 8], description="channels of each group, by level")
    mixtures: int = Field(5, ge=1, description="logistic distributions for each pixel")
    deviation: float = Field(0.1, gt=0, description="spread of images about the expected one; less reconstructs better")
    warm_up: float = Field(0.3, ge=0, le=1, description="share of the run over which the divergence reaches its weight")

    @model_validator(mode="after")
    def _fit(self) -> "Config":
        if not len(self.sides) == len(self.widths) == len(self.blocks) == len(self.latent_channels):
            raise ValueError("sides, widths, blocks and latent_channels must have the same length")
        if any(fine % coarse or fine == coarse for fine, coarse in pairwise(self.sides)):
            raise ValueError("sides: each one must be a multiple of the next, and larger")
        return self

    def objective(self, device: torch.device, labels: Labels) -> "VdvaeObjective":
        """Return the objective; the network is built from the shapes of its weights, as the generator builds it."""
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
        """Yield the names and shapes of all convolutions."""
        up, down = "bottom_up", "top_down"
        first, last = self.widths[0], self.widths[-1]
        yield f"{up}.input_conv", (first, 3, 1, 1)
        yield f"{down}.output_conv", (PER_MIXTURE * self.mixtures, first, 1, 1)
        for level, width in enumerate(self.widths):
            place = f"{up}.levels_up_downsample.{level}"
            yield from _cell(f"{place}.residual_block.0", width, width)
            yield f"{place}.skip_projection", (width, width, 1, 1)
            if level + 1 < len(self.sides):
                stride = self.sides[level] // self.sides[level + 1]
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


def _cell(place: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Yield the names and shapes of four convolutions through half of `inputs` or `outputs`, whichever is less."""
    middle = max(1, min(inputs, outputs) // 2)
    layers = ((inputs, middle, 1), (middle, middle, 3), (middle, middle, 3), (middle, outputs, 1))
    for index, (depth, width, kernel) in enumerate(layers):
        yield f"{place}.convs.{2 * index + 1}", (width, depth, kernel, kernel)


class VdvaeObjective(Objective):
    """A bound on the likelihood of images per dimension: squared errors, plus the divergence of latents from the prior.

    Images are taken as normal around the expected image. The width of the network's mixture of logistics is not
    trained: the generator uses its mean alone, and the network would learn the width of a black background long before
    any shape.
    """

    network: EfficientVdvae

    def __init__(self, network: EfficientVdvae, config: Config) -> None:
        self.network, self.image_size = network, config.sides[0]
        self.deviation, self.warm_up = config.deviation, config.warm_up

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Tensor:
        weight = 1.0 if progress >= self.warm_up else progress / self.warm_up
        error, divergence = self._bound(images)
        return (error + weight * divergence).mean()

    def _bound(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the error and the divergence [B], with latents drawn from their posteriors."""
        images = images * 2 - 1
        skips = self.network.bottom_up(images)
        divergences = []

        def sampled(block: BlockDown, y: Tensor, prior: Tensor, level: int) -> Tensor:
            # Draws the latents of a block, and notes their divergence from the prior.
            mean, raw_deviation = block.posterior(y, skips[level])
            prior_mean, raw_prior_deviation = block.prior(prior)
            deviation, prior_deviation = softplus(raw_deviation, _BETA), softplus(raw_prior_deviation, _BETA)
            distance = ((mean - prior_mean) / prior_deviation).square() + (deviation / prior_deviation).square()
            divergence = 0.5 * distance - 0.5 - (deviation / prior_deviation).log()
            divergences.append(divergence.flatten(1).sum(1))
            return mean + deviation * torch.randn_like(mean)

        expected = expected_image(self.network.top_down(len(images), sampled))
        error = (expected - images).square().flatten(1).mean(1) / (2 * self.deviation**2)
        return error, torch.stack(divergences).sum(0) / images[0].numel()

    def metrics(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        latents = self.network.posterior_means(images * 2 - 1)
        reconstructions = expected_image(self.network.logits(latents)) / 2 + 0.5
        _, divergence = self._bound(images)
        return {"psnr": psnr(reconstructions, images), "divergence": divergence}

    def save(self, folder: Path) -> None:
        save_file(self.network.state_dict(), folder / "model.safetensors")
