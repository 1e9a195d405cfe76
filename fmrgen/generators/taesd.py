"""The tiny autoencoders of madebyollin/taesd, from their own files: of SD, SDXL, SD3, FLUX.1 and FLUX.2."""

from typing import TYPE_CHECKING

from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.generators.base import GeneratorConfig, check_image_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Config(GeneratorConfig):
    """`encoder` and `decoder` are the two files of a model, such as `taef2_encoder.pth` and `taef2_decoder.pth`."""

    PLACES = ("encoder", "decoder", "mask")

    kind: str = "taesd"
    encoder: str
    decoder: str

    def build(self, device: "torch.device | str" = "cpu") -> "Taesd":
        from fmrgen.generators.networks.taesd import DOWNSAMPLING, load_decoder, load_encoder
        from fmrgen.weights.checkpoint import freeze

        check_image_size(self.image_size, DOWNSAMPLING)
        encoder, decoder = load_encoder(self.encoder), load_decoder(self.decoder)
        return Taesd(freeze(encoder, device), freeze(decoder, device), self.image_size)


class Taesd(Generator):
    """`free` is the latent, [B, C, H/8, W/8], of which the decoder takes 3·tanh(latent / 3)."""

    def __init__(self, encoder: "nn.Module", decoder: "nn.Module", image_size: int) -> None:
        self.encoder, self.decoder, self.image_size = encoder, decoder, image_size

    def encode(self, images: "Tensor", labels: "Tensor") -> Latents:
        return Latents(self.encoder(images))

    def decode(self, latents: Latents) -> "Tensor":
        decoded: Tensor = self.decoder((latents.free / 3).tanh() * 3)
        return decoded.clamp(0, 1)
