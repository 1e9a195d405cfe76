"""A small consistency model (Song and Dhariwal 2023): its outputs for an image at two levels of noise agree."""

import math
from typing import TYPE_CHECKING, Any

from pydantic import Field

from fmrgen.apps.training.objectives._unets import UnetConfig, UnetObjective
from fmrgen.labels import Labels

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fmrgen.generators._denoisers import Consistency

_RHO = 7  # the spacing of levels, as in Karras et al. 2022
_LEVELS = (10, 160)  # their number at the start and at the end of the run
_HUBER = 0.00054  # of the pseudo-Huber loss, times the root of an image's dimensions
_LOG_SIGMA = (-1.1, 2.0)  # mean and standard deviation of the logarithms of levels that are drawn


class Config(UnetConfig):
    """Saves a pipeline that `kind: consistency` reads."""

    kind: str = "consistency_model"
    sigma_max: float = Field(80.0, gt=0, description="the highest level of noise that it learns, for images in [-1, 1]")

    def objective(self, device: "torch.device", labels: Labels) -> "ConsistencyObjective":
        return ConsistencyObjective(self.unet(device), self)


class ConsistencyObjective(UnetObjective):
    """The pseudo-Huber distance of the network's output for a noised image to its own, held fixed, a level below."""

    def __init__(self, unet: Any, config: Config) -> None:
        from diffusers import CMStochasticIterativeScheduler

        super().__init__(unet, config)
        self.scheduler = CMStochasticIterativeScheduler(sigma_max=config.sigma_max)

    def loss_of_noise(self, images: "Tensor", progress: float) -> "Tensor":
        """Return the loss at random levels of noise, of which there are more and more during the run."""
        import torch

        first, last = _LEVELS
        count = min(last, first * 2 ** int(progress * (math.log2(last / first) + 1)))
        lowest = self.scheduler.config["sigma_min"] ** (1 / _RHO)
        highest = self.scheduler.config["sigma_max"] ** (1 / _RHO)
        levels = torch.linspace(lowest, highest, count + 1, device=images.device) ** _RHO
        mean, deviation = _LOG_SIGMA
        cumulative = torch.erf((levels.log() - mean) / (deviation * math.sqrt(2)))
        drawn = torch.multinomial(cumulative.diff(), len(images), replacement=True)
        noise = torch.randn_like(images)
        lower, upper = levels[drawn], levels[drawn + 1]
        denoiser = self.generator()
        with torch.no_grad():
            target = denoiser.denoised(images + _as_images(lower) * noise, lower)
        denoised = denoiser.denoised(images + _as_images(upper) * noise, upper)
        constant = _HUBER * math.sqrt(images[0].numel())
        distance = ((denoised - target).square().flatten(1).sum(1) + constant**2).sqrt() - constant
        return (distance / (upper - lower)).mean()

    def generator(self) -> "Consistency":
        from fmrgen.generators._denoisers import Consistency, Kept

        config = self.scheduler.config
        corrections = Kept(residual=False, shell=False)
        return Consistency(self.network, self.image_size, corrections, 0.5, config.sigma_min, config.sigma_data)

    def pipeline(self) -> Any:
        from diffusers import ConsistencyModelPipeline

        return ConsistencyModelPipeline(self.network, self.scheduler)


def _as_images(levels: "Tensor") -> "Tensor":
    """Return numbers [B] as [B, 1, 1, 1]."""
    return levels.view(-1, 1, 1, 1)
