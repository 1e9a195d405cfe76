"""The tiny autoencoders of madebyollin/taesd (SD, SDXL, SD3, FLUX.1 and FLUX.2), from their own files."""

from typing import TYPE_CHECKING

from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.generators.base import GeneratorConfig, check_image_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


_BOUND = 3  # of the latent's values, as in the first layer of madebyollin's own decoders


class Config(GeneratorConfig):
    """`encoder` and `decoder` are the two files of a model, such as `taef2_encoder.pth` and `taef2_decoder.pth`."""

    FILES = ("encoder", "decoder", "mask")
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
    """`free` is the latent, [B, C, H/8, W/8]; the decoder takes 3·tanh(latent / 3)."""

    def __init__(self, encoder: "nn.Module", decoder: "nn.Module", image_size: int) -> None:
        self.encoder = encoder
        self.decoder = decoder
        self.image_size = image_size

    def encode(self, images: "Tensor", labels: "Tensor") -> Latents:
        return Latents(self.encoder(images))

    def decode(self, latents: Latents) -> "Tensor":
        decoded: Tensor = self.decoder((latents.free / _BOUND).tanh() * _BOUND)
        return decoded.clamp(0, 1)
