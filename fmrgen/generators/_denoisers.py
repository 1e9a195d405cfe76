"""Generators that denoise: the latent is the noised image, perturbed before the network leads it back to an image."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.generators.base import DenoiserConfig, check_class, on_shell
from fmrgen.generators.networks.ddim import invert, move

# A consistency network gets 1000 times the c_noise of EDM, ln(sigma) / 4 (Karras et al. 2022, Table 1).
_TIME_PER_LOG_SIGMA = 250


class Denoiser(Generator):
    """`free` is the noised image, or its noised latent.

    `fixed`, [B, C, H, W], holds the residual of the round trip (three channels, with `residual`), and the label of
    class-conditional networks (one channel).
    """

    def __init__(self, unet: Any, config: DenoiserConfig, classes: int | None) -> None:
        self.unet, self.classes = unet, classes
        self.image_size, self.residual, self.shell = config.image_size, config.residual, config.shell

    @abstractmethod
    def noised(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Return the latents of images [B, 3, H, W] in [-1, 1]."""

    @abstractmethod
    def way_back(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Return the images, in [-1, 1], of latents, differentiably."""

    def encode(self, images: Tensor, labels: Tensor) -> Latents:
        check_class(labels, self.classes)
        conditions = None if self.classes is None else labels
        clean = images * 2 - 1
        latents = self.noised(clean, conditions)
        context = []
        if self.residual:
            context.append(clean - self.way_back(latents, conditions))
        if conditions is not None:
            label_channel = conditions.to(images.dtype)[:, None, None, None]
            context.append(label_channel.expand(-1, 1, *images.shape[2:]))
        return Latents(latents, torch.cat(context, 1) if context else None)

    def decode(self, latents: Latents) -> Tensor:
        free, context = latents
        conditions = None
        if context is not None and self.classes is not None:
            conditions = context[:, -1, 0, 0].long()
        clean = self.way_back(free, conditions)
        if context is not None and self.residual:
            clean = clean + context[:, :3]
        return (clean / 2 + 0.5).clamp(0, 1)

    def project(self, latents: Latents, start: Tensor) -> Tensor:
        return on_shell(latents.free, start) if self.shell else latents.free


class Diffusion(Denoiser):
    """`free` is x_t at the time to which DDIM was inverted, [B, 3, H, W]."""

    encode_is_slow = True

    def __init__(
        self, unet: Any, config: DenoiserConfig, levels: list[float], times: list[float], refinements: int
    ) -> None:
        """Take the network and the grid of its steps.

        `unet`, a model of diffusers, goes from x_t [B, 3, H, W] and times [B] to the noise in x_t. `levels` are
        cumulative alphas, one more than `times`, from 1 (no noise) on; the network gets `times` at each level but the
        first. Each step of the inversion is refined `refinements` times.
        """
        super().__init__(unet, config, unet.config.num_class_embeds)
        self.levels, self.times, self.refinements = levels, times, refinements

    def noised(self, images: Tensor, labels: Tensor | None) -> Tensor:
        def eps(x: Tensor, step: int) -> Tensor:
            return self.eps(x, step, labels)

        x = images
        for step in range(len(self.times)):
            level, next_level = self.levels[step : step + 2]
            x = invert(x, eps, step, level, next_level, self.refinements)
        return x

    def way_back(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Return the images to which DDIM leads x_t. For the gradient, only the x of each step is stored."""
        x = latents
        for step in reversed(range(len(self.times))):
            if x.requires_grad:
                x = checkpoint(self._step_back, x, step, labels, use_reentrant=False)
            else:
                x = self._step_back(x, step, labels)
        return x

    def _step_back(self, x: Tensor, step: int, labels: Tensor | None) -> Tensor:
        next_level, level = self.levels[step : step + 2]
        return move(x, self.eps(x, step, labels), level, next_level)

    def eps(self, x: Tensor, step: int, labels: Tensor | None) -> Tensor:
        """Return the noise that the network sees in x [B, 3, H, W], without the variance that some predict too."""
        times = x.new_full((len(x),), self.times[step])
        predicted: Tensor = self.unet(x, times, class_labels=labels).sample
        return predicted[:, :3]


class Consistency(Denoiser):
    """A consistency model (Song et al. 2023): `free` is the image with Gaussian noise of one level, [B, 3, H, W]."""

    def __init__(self, unet: Any, config: DenoiserConfig, sigma: float, sigma_min: float, sigma_data: float) -> None:
        """Take the network and its noise levels, all standard deviations for images in [-1, 1].

        `unet`, a model of diffusers, goes from scaled images and times to its raw prediction. `sigma` is the noise that
        `encode` adds; `sigma_min` the lowest level of the model, at which it changes nothing; `sigma_data` that of the
        images that it was trained on.
        """
        super().__init__(unet, config, unet.config.num_class_embeds)
        self.sigma, self.sigma_min, self.sigma_data = sigma, sigma_min, sigma_data

    def noised(self, images: Tensor, labels: Tensor | None) -> Tensor:
        return images + self.sigma * self.noise(images)

    def way_back(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        sigmas = latents.new_full((len(latents),), self.sigma)
        sigma = sigmas.view(-1, 1, 1, 1)
        above_min = sigma - self.sigma_min
        total_std = (sigma**2 + self.sigma_data**2).sqrt()  # of a noised image
        times = _TIME_PER_LOG_SIGMA * sigmas.log()
        predicted: Tensor = self.unet(latents / total_std, times, class_labels=labels).sample[:, :3]
        # c_skip and c_out of Song et al. 2023, appendix C: at `sigma_min` the image is left as it is.
        c_skip = self.sigma_data**2 / (above_min**2 + self.sigma_data**2)
        return c_skip * latents + above_min * self.sigma_data / total_std * predicted


class OneStep(Denoiser):
    """A distilled latent diffusion model (SD-Turbo, an LCM): `free` is its latent, noised to one early time,
    [B, C, H/f, W/f]."""

    def __init__(
        self,
        vae: Any,
        unet: Any,
        prompt: Tensor,
        config: DenoiserConfig,
        time: int,
        level: float,
        guidance: Tensor | None = None,
    ) -> None:
        """Take the parts of the pipeline, all models of diffusers.

        `unet` goes from noised latents, times and a prompt to the noise in the latents, and gets `time` as their time,
        at which the cumulative alpha is `level`. `prompt` is its embedding by the text encoder, [1, L, D]; `guidance`
        its embedding [1, D], for a latent consistency model.
        """
        super().__init__(unet, config, None)
        self.vae, self.prompt, self.guidance = vae, prompt, guidance
        self.time, self.level = time, level

    def noised(self, images: Tensor, labels: Tensor | None) -> Tensor:
        latents: Tensor = self.vae.encode(images).latent_dist.mode() * self.vae.config.scaling_factor
        return self.level**0.5 * latents + (1 - self.level) ** 0.5 * self.noise(latents)

    def way_back(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        rows = len(latents)
        times = latents.new_full((rows,), self.time)
        prompt = self.prompt.to(latents.dtype).expand(rows, -1, -1)
        guidance = None
        if self.guidance is not None:
            guidance = self.guidance.to(latents.dtype).expand(rows, -1)
        eps = self.unet(latents, times, encoder_hidden_states=prompt, timestep_cond=guidance).sample
        clean = move(latents, eps, self.level, 1.0)
        decoded: Tensor = self.vae.decode(clean / self.vae.config.scaling_factor).sample
        return decoded
