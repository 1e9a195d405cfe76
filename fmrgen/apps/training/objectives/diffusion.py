"""A small diffusion model (Ho et al. 2020): predicts the noise in images that were noised to random times."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from fmrgen.apps.training.objectives._unets import UnetConfig, UnetObjective
from fmrgen.apps.training.objectives.base import psnr
from fmrgen.labels import Labels

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fmrgen.generators._denoisers import Diffusion


class Config(UnetConfig):
    """Saves a pipeline that `kind: diffusion` reads; its noise is scheduled linearly."""

    kind: str = "diffusion"
    training_steps: int = Field(1000, ge=100, description="times from an image to pure noise")

    def objective(self, device: "torch.device", labels: Labels) -> "DiffusionObjective":
        return DiffusionObjective(self.unet(device), self)


class DiffusionObjective(UnetObjective):
    """The mean squared error of the predicted noise."""

    def __init__(self, unet: Any, config: Config) -> None:
        from diffusers import DDIMScheduler

        super().__init__(unet, config)
        scale = 1000 / config.training_steps  # the usual betas are for 1,000 steps
        self.scheduler = DDIMScheduler(
            num_train_timesteps=config.training_steps,
            beta_start=scale * 1e-4,
            beta_end=scale * 0.02,
            clip_sample=False,
            set_alpha_to_one=True,
            steps_offset=0,
        )

    def loss_of_noise(self, images: "Tensor", progress: float) -> "Tensor":
        import torch
        from torch.nn.functional import mse_loss

        times = torch.randint(self.scheduler.config.num_train_timesteps, (len(images),), device=images.device)
        noise = torch.randn_like(images)
        return mse_loss(self.network(self.scheduler.add_noise(images, noise, times), times).sample, noise)

    def metrics(self, images: "Tensor", labels: "Tensor") -> "dict[str, Tensor]":
        """Return the quality of reconstructions and of denoised images.

        An inversion is exact however poor the network is, so its error in predicting noise is reported too.
        """
        import torch

        from fmrgen.generators.networks.ddim import move

        generator = self.generator()
        level, last = generator.levels[-1], len(generator.times) - 1
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
        noised = move(images * 2 - 1, noise, 1.0, level)
        denoised = move(noised, generator.eps(noised, last, None), level, 1.0) / 2 + 0.5
        return {**super().metrics(images, labels), "psnr_of_denoised": psnr(denoised, images)}

    def generator(self) -> "Diffusion":
        from fmrgen.generators.diffusion import Config as GeneratorConfig

        config = GeneratorConfig(model="this", image_size=self.image_size, residual=False)
        return config.generator(self.network, self.scheduler.alphas_cumprod.double().cpu().numpy(), rescale=False)

    def pipeline(self) -> Any:
        from diffusers import DDIMPipeline

        return DDIMPipeline(self.network, self.scheduler)
