"""Consistency models (Song et al. 2023): an image and a little noise, led back in one pass."""

from typing import TYPE_CHECKING

from pydantic import Field

from fmrgen.engine.interfaces import Generator
from fmrgen.errors import UserError
from fmrgen.generators.base import DenoiserConfig, check_image_size

if TYPE_CHECKING:
    import torch


class Config(DenoiserConfig):
    """`model` is a pipeline of diffusers with a `UNet2DModel`, such as openai/diffusers-cd_imagenet64_l2.

    Class-conditional networks are given the example's label, which must be one of theirs.
    """

    PLACES = ("model", "mask")

    kind: str = "consistency"
    model: str
    sigma: float = Field(0.5, gt=0, le=1000, description="standard deviation of the noise, for images in [-1, 1]")

    def build(self, device: "torch.device | str" = "cpu") -> Generator:
        from diffusers import CMStochasticIterativeScheduler, UNet2DModel

        from fmrgen.generators._denoisers import Consistency
        from fmrgen.weights.checkpoint import freeze
        from fmrgen.weights.pretrained import from_pretrained, pretrained_model

        pipeline = (self.model, "generator.model", self.revision)
        unet = pretrained_model(UNet2DModel, *pipeline, subfolder="unet")
        config = from_pretrained(CMStochasticIterativeScheduler, *pipeline, subfolder="scheduler").config
        check_image_size(self.image_size, 2 ** (len(unet.config.block_out_channels) - 1))
        if self.sigma <= config.sigma_min:
            raise UserError(f"generator.sigma: must be above {config.sigma_min}, the least that {self.model} knows")
        return Consistency(freeze(unet, device), self, self.sigma, config.sigma_min, config.sigma_data)
