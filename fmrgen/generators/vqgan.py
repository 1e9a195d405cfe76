"""VQGAN (paper §3.2), from its authors' files and the ports of them."""

from typing import TYPE_CHECKING

from pydantic import model_validator

from fmrgen.config import Revision
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.generators.base import GeneratorConfig, check_image_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fmrgen.generators.networks.vqgan import VqganNetwork


class Config(GeneratorConfig):
    """Either `model`, or `checkpoint` and `config`.

    `model` is a folder, an asset or a Hub id with a `config.json` and weights: a `VQModel` of diffusers, or weights
    under taming's names, also in Flax's format. `checkpoint` and `config` are taming's files (`.ckpt`, `.yaml`).
    """

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
        from fmrgen.generators.networks.vqgan_files import load_checkpoint_and_config, load_model
        from fmrgen.weights.checkpoint import freeze

        if self.checkpoint is not None and self.config is not None:
            network = load_checkpoint_and_config(self.checkpoint, self.config)
        else:
            network = load_model(str(self.model), self.revision)
        check_image_size(self.image_size, network.architecture.factor)
        freeze(network, device)
        return Vqgan(network, self.image_size)


class Vqgan(Generator):
    """`free` is the latent before the codebook, [B, C, H/f, W/f]; the gradient goes straight through the codebook."""

    def __init__(self, network: "VqganNetwork", image_size: int) -> None:
        self.network = network
        self.image_size = image_size

    def encode(self, images: "Tensor", labels: "Tensor") -> Latents:
        return Latents(self.network.encode(images * 2 - 1))

    def decode(self, latents: Latents) -> "Tensor":
        images = self.network.decode(self.network.quantize(latents.free))
        return (images / 2 + 0.5).clamp(0, 1)
