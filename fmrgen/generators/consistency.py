"""Consistency models (Song et al. 2023): an image and a little noise, led back in one pass."""

from typing import TYPE_CHECKING

from pydantic import Field

from fmrgen.config import Revision
from fmrgen.engine.interfaces import Generator
from fmrgen.errors import UserError
from fmrgen.generators.base import GeneratorConfig, check_image_size

if TYPE_CHECKING:
    import torch


class Config(GeneratorConfig):
    """`model` is a pipeline of diffusers with a `UNet2DModel`, such as openai/diffusers-cd_imagenet64_l2.

    Class-conditional networks are given the example's label, which must be one of theirs.
    """

    FOLDERS = ("unet", "scheduler")
    PLACES = ("model", "mask")

    kind: str = "consistency"
    model: str
    revision: Revision = None
    sigma: float = Field(0.5, gt=0, le=1000, description="standard deviation of the noise, for images in [-1, 1]")
    shell: bool = Field(
        True,
        description="after each step, scale the noised image to the length that it began with",
    )
    residual: bool = Field(True, description="add what the round trip loses, so that an unmoved image is exact")

    def build(self, device: "torch.device | str" = "cpu") -> Generator:
        from diffusers import CMStochasticIterativeScheduler, UNet2DModel

        from fmrgen.generators._denoisers import Consistency, Kept
        from fmrgen.weights.checkpoint import freeze
        from fmrgen.weights.pretrained import from_pretrained, pretrained_model

        key = "generator.model"
        unet = pretrained_model(UNet2DModel, self.model, key, self.revision, subfolder="unet")
        scheduler = from_pretrained(
            CMStochasticIterativeScheduler, self.model, key, self.revision, subfolder="scheduler"
        )
        check_image_size(self.image_size, 2 ** (len(unet.config.block_out_channels) - 1))
        config = scheduler.config
        if self.sigma <= config.sigma_min:
            raise UserError(f"generator.sigma: must be above {config.sigma_min}, the least that {self.model} knows")
        options = Kept(self.residual, self.shell)
        unet = freeze(unet, device)
        return Consistency(unet, self.image_size, options, self.sigma, config.sigma_min, config.sigma_data)
