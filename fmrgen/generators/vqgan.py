"""VQGAN (paper §3.2), on diffusers' VQModel; taming-transformers' original files load as they are."""

from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from fmrgen.config import Revision
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.generators.base import GeneratorConfig, check_image_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Config(GeneratorConfig):
    """Either `model` (a diffusers folder, asset or Hub id), or taming's `checkpoint` (.ckpt) and `config` (.yaml)."""

    FILES = ("checkpoint", "config", "mask")
    PLACES = ("model", "checkpoint", "config", "mask")

    kind: str = "vqgan"
    model: str | None = None
    revision: Revision = None
    checkpoint: str | None = None
    config: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> "Config":
        has_both_or_none = (self.model is None) == (self.checkpoint is None)
        if has_both_or_none or (self.checkpoint is None) != (self.config is None):
            raise ValueError("give either model, or checkpoint and config")
        return self

    def build(self, device: "torch.device | str" = "cpu") -> "Vqgan":
        from diffusers import VQModel

        from fmrgen.generators.networks.taming import load_taming
        from fmrgen.weights.checkpoint import freeze
        from fmrgen.weights.pretrained import pretrained_model

        if self.checkpoint is not None and self.config is not None:
            model = load_taming(self.checkpoint, self.config)
        else:
            model = pretrained_model(VQModel, str(self.model), "generator.model", self.revision)
        check_image_size(self.image_size, 2 ** (len(model.config.block_out_channels) - 1))
        return Vqgan(freeze(model, device), self.image_size)


class Vqgan(Generator):
    """`free` is the latent before the quantiser, [B, C, H/f, W/f]; the gradient goes straight through the quantiser."""

    def __init__(self, model: Any, image_size: int) -> None:
        self.model = model
        self.image_size = image_size

    def encode(self, images: "Tensor", labels: "Tensor") -> Latents:
        return Latents(self.model.encode(images * 2 - 1).latents)

    def decode(self, latents: Latents) -> "Tensor":
        return (self.model.decode(latents.free).sample / 2 + 0.5).clamp(0, 1)
