"""Diffusion models (paper Table 3): images are noised to an early time by inverted DDIM, perturbed, and led back."""

from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from fmrgen.engine.interfaces import Generator
from fmrgen.errors import UserError
from fmrgen.generators.base import DenoiserConfig, check_image_size

if TYPE_CHECKING:
    import numpy as np
    import torch

    from fmrgen.generators._denoisers import Diffusion

_COMMON = {"qkv_order": "head_qkv", "rescale_times": False}
_ADM = {**_COMMON, "head_channels": 64, "noise_schedule": "linear", "training_steps": 1000}
_IDDPM = {**_COMMON, "heads": 4, "noise_schedule": "cosine", "training_steps": 4000, "rescale_times": True}
_ATTENTION = ("heads", "head_channels")  # of which each file has one
_SETTINGS = ("qkv_order", "noise_schedule", "training_steps", "rescale_times")
# The settings that cannot be read from the tensors of guided-diffusion and improved-diffusion.
OFFICIAL: dict[str, dict[str, Any]] = {
    "64x64_diffusion.pt": {**_ADM, "qkv_order": "qkv_head", "noise_schedule": "cosine"},
    "128x128_diffusion.pt": {**_ADM, "head_channels": None, "heads": 4},
    "256x256_diffusion.pt": _ADM,
    "256x256_diffusion_uncond.pt": _ADM,
    "512x512_diffusion.pt": _ADM,
    "cifar10_uncond_50M_500K.pt": _IDDPM,
    "imagenet64_uncond_100M_1500K.pt": _IDDPM,
    "imagenet64_cond_270M_250K.pt": {**_IDDPM, "rescale_times": False},
}


class Config(DenoiserConfig):
    """Either `checkpoint`, an official file of guided-diffusion (ADM) or improved-diffusion, or `model`, a pipeline of
    diffusers with an unconditional `UNet2DModel`.

    Official files are recognised by their names. For a file with another name, set the keys from `heads` to
    `rescale_times`, which its tensors do not tell. Class-conditional networks are given the example's label, which must
    be one of theirs.
    """

    PLACES = ("checkpoint", "model", "mask")

    kind: str = "diffusion"
    checkpoint: str | None = None
    model: str | None = None
    heads: int | None = Field(None, ge=1, description="heads of each attention layer; or set head_channels")
    head_channels: int | None = Field(None, ge=1, description="channels of each head")
    qkv_order: Literal["head_qkv", "qkv_head"] | None = Field(None, description="order of qkv rows; newer: qkv_head")
    noise_schedule: Literal["linear", "cosine"] | None = None
    training_steps: int | None = Field(None, ge=10, le=100_000)
    rescale_times: bool | None = Field(None, description="whether the network gets times as if there were 1,000")
    start: float = Field(0.2, gt=0, le=1, description="the time to which images are noised, as a share of all")
    steps: int = Field(4, ge=1, le=1000, description="passes of the network from there back to an image")
    refinements: int = Field(3, ge=0, le=100, description="of each step of the inversion")

    @model_validator(mode="after")
    def _one_origin(self) -> "Config":
        if (self.model is None) == (self.checkpoint is None):
            raise ValueError("give either checkpoint or model")
        return self

    def build(self, device: "torch.device | str" = "cpu") -> "Generator":
        from fmrgen.weights.checkpoint import freeze

        unet, alphas, rescale = self._of_checkpoint() if self.model is None else self._of_pipeline()
        return self.generator(freeze(unet, device), alphas, rescale)

    def generator(self, unet: Any, alphas: "np.ndarray", rescale: bool) -> "Diffusion":
        """Return the generator of a network, with the other settings of this section.

        `unet` goes from x_t [B, 3, H, W] and times [B] to the noise in x_t; `alphas` [T] are the share of the signal
        that is left at each training step; with `rescale` the network gets times as if there were 1,000. Raises
        UserError if the images do not fit the network, or there are more steps than times.
        """
        from fmrgen.generators._denoisers import Diffusion

        check_image_size(self.image_size, 2 ** (len(unet.config.block_out_channels) - 1))
        grid = [round(self.start * len(alphas) * step / self.steps) - 1 for step in range(1, self.steps + 1)]
        if len({*grid}) < len(grid) or grid[0] < 0:
            raise UserError(
                f"generator.steps: {self.steps} steps do not fit between 0 and the time {self.start:g}; use fewer"
            )
        levels = [1.0, *(float(alphas[index]) for index in grid)]  # 1 is no noise
        times: list[float] = [index * 1000 / len(alphas) if rescale else index for index in grid]
        return Diffusion(unet, self, levels, times, self.refinements)

    def _of_checkpoint(self) -> tuple[Any, Any, bool]:
        """Return the network, the cumulative alphas, and whether times are rescaled."""
        from fmrgen.generators.networks.ddim import alphas_cumprod
        from fmrgen.generators.networks.openai_unet import Heads, openai_unet
        from fmrgen.weights.checkpoint import read_checkpoint

        file = str(self.checkpoint)
        settings = self._checkpoint_settings(file)
        heads = Heads(settings.get("heads"), settings.get("head_channels"), settings["qkv_order"])
        state = read_checkpoint(file, "generator.checkpoint")
        unet = openai_unet(state, heads, self.image_size, f"generator.checkpoint: {file}")
        return unet, alphas_cumprod(settings["noise_schedule"], settings["training_steps"]), settings["rescale_times"]

    def _checkpoint_settings(self, file: str) -> dict[str, Any]:
        """Return the settings of an official file, with those of this section over them.

        Raises UserError if both together leave one open.
        """
        settings: dict[str, Any] = dict(OFFICIAL.get(PurePath(file).name, {}))
        own = self.model_dump(include={*_ATTENTION, *_SETTINGS}, exclude_none=True)
        if own.keys() & _ATTENTION:
            settings |= dict.fromkeys(_ATTENTION)  # the file's own must not stay beside the user's
        settings |= own
        missing = [name for name in _SETTINGS if name not in settings]
        if not settings.get("heads") and not settings.get("head_channels"):
            missing.insert(0, "heads")
        if missing:
            keys = ", ".join(f"generator.{name}" for name in missing)
            raise UserError(
                f"generator.{missing[0]}: not in {file}, which is not named like an official file; set {keys}"
            )
        return settings

    def _of_pipeline(self) -> tuple[Any, Any, bool]:
        """Return the network, the cumulative alphas, and that times are not rescaled."""
        from diffusers import UNet2DModel

        from fmrgen.generators.networks.ddim import alphas_of_pipeline
        from fmrgen.weights.pretrained import pretrained_model

        model = str(self.model)
        unet = pretrained_model(UNet2DModel, model, "generator.model", self.revision, subfolder="unet")
        return unet, alphas_of_pipeline(model, self.revision), False
