"""A small consistency model (Song and Dhariwal 2023): what it answers for an image under two levels of noise agrees."""

import math
from typing import TYPE_CHECKING, Any

from pydantic import Field

from fmrgen.apps.training.objectives._unets import UnetConfig, UnetObjective
from fmrgen.labels import Labels

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fmrgen.generators._denoisers import Consistency

_RHO = 7  # how levels are spaced, as in Karras et al. 2022
_LEVELS = (10, 160)  # how many there are at the start and at the end of the run
_HUBER = 0.00054  # of the pseudo-Huber loss, times the root of an image's dimensions
_LOG_SIGMA = (-1.1, 2.0)  # mean and standard deviation of the logarithms of levels that are drawn


class Config(UnetConfig):
    """Saves a pipeline that `kind: consistency` reads."""

    kind: str = "consistency_model"
    sigma_max: float = Field(80.0, gt=0, description="the highest level of noise that it learns, for images in [-1, 1]")

    def objective(self, device: "torch.device", labels: Labels) -> "ConsistencyObjective":
        return ConsistencyObjective(self.unet(device), self)


class ConsistencyObjective(UnetObjective):
    """The pseudo-Huber distance of the network's answer for a noised image to its own, held fixed, a level below."""

    def __init__(self, unet: Any, config: Config) -> None:
        from diffusers import CMStochasticIterativeScheduler

        super().__init__(unet, config)
        self.scheduler = CMStochasticIterativeScheduler(sigma_max=config.sigma_max)

    def loss_of_noise(self, images: "Tensor", progress: float) -> "Tensor":
        import torch

        first, last = _LEVELS
        count = min(last, first * 2 ** int(progress * (math.log2(last / first) + 1)))
        least, most = (self.scheduler.config[name] ** (1 / _RHO) for name in ("sigma_min", "sigma_max"))
        levels = torch.linspace(least, most, count + 1, device=images.device) ** _RHO
        mean, deviation = _LOG_SIGMA
        below = torch.erf((levels.log() - mean) / (deviation * math.sqrt(2)))
        drawn = torch.multinomial(below.diff(), len(images), replacement=True)
        noise = torch.randn_like(images)
        denoiser, lower, upper = self.generator(), levels[drawn], levels[drawn + 1]
        with torch.no_grad():
            target = denoiser.denoised(images + _wide(lower) * noise, lower)
        found = denoiser.denoised(images + _wide(upper) * noise, upper)
        constant = _HUBER * math.sqrt(images[0].numel())
        distance = ((found - target).square().flatten(1).sum(1) + constant**2).sqrt() - constant
        return (distance / (upper - lower)).mean()

    def generator(self) -> "Consistency":
        from fmrgen.generators._denoisers import Consistency, Kept

        config = self.scheduler.config
        kept = Kept(residual=False, shell=False)
        return Consistency(self.network, self.image_size, kept, 0.5, config.sigma_min, config.sigma_data)

    def pipeline(self) -> Any:
        from diffusers import ConsistencyModelPipeline

        return ConsistencyModelPipeline(self.network, self.scheduler)


def _wide(levels: "Tensor") -> "Tensor":
    return levels.view(-1, 1, 1, 1)
