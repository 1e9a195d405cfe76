"""Generators that lead a noised image back: the noised image is the latent, what the way back loses goes with it."""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.generators.base import check_class, on_shell
from fmrgen.generators.networks.ddim import invert, move


class Kept(NamedTuple):
    """What a latent keeps: the residual of the unmoved image, and its length after each step."""

    residual: bool
    shell: bool


class Denoiser(Generator):
    """`free` is the noised image, or its noised latent.

    `fixed`, [B, C, H, W], holds what the way back loses (three channels, with `residual`), and the label of
    class-conditional networks (one channel).
    """

    def __init__(self, image_size: int, kept: Kept, classes: int | None) -> None:
        self.image_size, self.kept, self.classes = image_size, kept, classes

    @abstractmethod
    def noised(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """The latents of images [B, 3, H, W] in [-1, 1]."""

    @abstractmethod
    def way_back(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """The images, in [-1, 1], of latents, differentiably."""

    def encode(self, images: Tensor, labels: Tensor) -> Latents:
        check_class(labels, self.classes)
        conditions = None if self.classes is None else labels
        clean = images * 2 - 1
        latents = self.noised(clean, conditions)
        context = [clean - self.way_back(latents, conditions)] if self.kept.residual else []
        if conditions is not None:
            context.append(conditions.to(images.dtype)[:, None, None, None].expand(-1, 1, *images.shape[2:]))
        return Latents(latents, torch.cat(context, 1) if context else None)

    def decode(self, latents: Latents) -> Tensor:
        free, context = latents
        conditions = None
        if context is not None and self.classes is not None:
            conditions = context[:, -1, 0, 0].long()
        clean = self.way_back(free, conditions)
        if context is not None and self.kept.residual:
            clean = clean + context[:, :3]
        return (clean / 2 + 0.5).clamp(0, 1)

    def project(self, latents: Latents, start: Tensor) -> Tensor:
        return on_shell(latents.free, start) if self.kept.shell else latents.free


class Diffusion(Denoiser):
    """`free` is x_t at the time to which DDIM was inverted, [B, 3, H, W]."""

    encode_is_dear = True

    def __init__(
        self, unet: Any, image_size: int, kept: Kept, levels: list[float], times: list[float], refinements: int
    ) -> None:
        super().__init__(image_size, kept, unet.config.num_class_embeds)
        self.unet, self.refinements = unet, refinements
        self.levels, self.times = levels, times  # cumulative alphas, from none on; the times that the network gets

    def noised(self, images: Tensor, labels: Tensor | None) -> Tensor:
        x = images
        for step, (at, to) in enumerate(zip(self.levels, self.levels[1:], strict=False)):
            x = invert(x, lambda x, step: self.eps(x, step, labels), step, at, to, self.refinements)
        return x

    def way_back(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """The image to which DDIM leads x_t. Of each step only its x is kept for the gradient."""
        x = latents
        for step in reversed(range(len(self.times))):
            to, at = self.levels[step : step + 2]

            def stepped(x: Tensor, step: int = step, at: float = at, to: float = to) -> Tensor:
                return move(x, self.eps(x, step, labels), at, to)

            x = checkpoint(stepped, x, use_reentrant=False) if x.requires_grad else stepped(x)
        return x

    def eps(self, x: Tensor, step: int, labels: Tensor | None) -> Tensor:
        """The noise that the network sees in x; what it says of the variance is left out."""
        times = x.new_full((len(x),), self.times[step])
        predicted: Tensor = self.unet(x, times, class_labels=labels).sample
        return predicted[:, :3]


class Consistency(Denoiser):
    """A consistency model (Song et al. 2023): `free` is the image with Gaussian noise of one level, [B, 3, H, W]."""

    def __init__(
        self, unet: Any, image_size: int, kept: Kept, sigma: float, sigma_min: float, sigma_data: float
    ) -> None:
        super().__init__(image_size, kept, unet.config.num_class_embeds)
        self.unet, self.sigma, self.sigma_min, self.sigma_data = unet, sigma, sigma_min, sigma_data

    def noised(self, images: Tensor, labels: Tensor | None) -> Tensor:
        return images + self.sigma * self.noise(images)

    def way_back(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        return self.denoised(latents, latents.new_full((len(latents),), self.sigma), labels)

    def denoised(self, noised: Tensor, sigmas: Tensor, labels: Tensor | None = None) -> Tensor:
        """The images to which `noised` [B, 3, H, W] leads from levels [B] of noise."""
        wide = sigmas.view(-1, 1, 1, 1)
        both, above = (wide**2 + self.sigma_data**2).sqrt(), wide - self.sigma_min
        predicted: Tensor = self.unet(noised / both, 250 * sigmas.log(), class_labels=labels).sample[:, :3]
        skip = self.sigma_data**2 / (above**2 + self.sigma_data**2)
        return skip * noised + above * self.sigma_data / both * predicted


class OneStep(Denoiser):
    """A distilled latent diffusion model (SD-Turbo, an LCM): `free` is its latent, noised to one early time,
    [B, C, H/f, W/f]."""

    def __init__(
        self,
        vae: Any,
        unet: Any,
        prompt: Tensor,
        image_size: int,
        kept: Kept,
        time: int,
        level: float,
        guidance: Tensor | None = None,
    ) -> None:
        super().__init__(image_size, kept, None)
        self.vae, self.unet = vae, unet
        self.guidance = guidance  # [1, D], its embedding for a latent consistency model
        self.prompt = prompt  # [1, L, D], what the text encoder made of it
        self.time, self.level = time, level  # the time that the network gets, and the cumulative alpha there

    def noised(self, images: Tensor, labels: Tensor | None) -> Tensor:
        latents: Tensor = self.vae.encode(images).latent_dist.mode() * self.vae.config.scaling_factor
        return self.level**0.5 * latents + (1 - self.level) ** 0.5 * self.noise(latents)

    def way_back(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        times = latents.new_full((len(latents),), self.time)
        prompt = self.prompt.to(latents.dtype).expand(len(latents), -1, -1)
        guidance = None if self.guidance is None else self.guidance.to(latents.dtype).expand(len(latents), -1)
        eps = self.unet(latents, times, encoder_hidden_states=prompt, timestep_cond=guidance).sample
        clean = move(latents, eps, self.level, 1.0)
        decoded: Tensor = self.vae.decode(clean / self.vae.config.scaling_factor).sample
        return decoded
