"""Autoencoders of diffusers with a continuous latent: AutoencoderKL, AutoencoderTiny and their like."""

from typing import TYPE_CHECKING, Any

from fmrgen.generators.base import Generator, GeneratorConfig, Latents, check_image_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Config(GeneratorConfig):
    """`model` is a diffusers folder or Hub id; `subfolder` for an autoencoder inside a pipeline."""

    kind: str = "vae"
    model: str
    subfolder: str | None = None
    revision: str | None = None

    def build(self, device: "torch.device | str" = "cpu") -> "Vae":
        from diffusers import AutoModel

        from fmrgen.classifiers.base import freeze
        from fmrgen.hub import from_pretrained

        options = {} if self.subfolder is None else {"subfolder": self.subfolder}
        model = from_pretrained(AutoModel, self.model, "generator.model", self.revision, **options)
        vae = Vae(freeze(model, device), self.image_size)
        check_image_size(self.image_size, vae.downsampling)
        return vae


class Vae(Generator):
    """`free` is the latent, [B, C, H/f, W/f]; for a distribution its mode, so that encoding is not random."""

    def __init__(self, model: Any, image_size: int) -> None:
        self.model = model
        self.image_size = image_size

    @property
    def downsampling(self) -> int:
        """f, from the widths of the encoder."""
        config = self.model.config
        widths = config.get("block_out_channels") or config["encoder_block_out_channels"]
        return 2 ** (len(widths) - 1)

    def encode(self, images: "Tensor", labels: "Tensor") -> Latents:
        output = self.model.encode(images * 2 - 1)
        return Latents(output.latent_dist.mode() if "latent_dist" in output else output.latents)

    def decode(self, latents: Latents) -> "Tensor":
        return (self.model.decode(latents.free).sample / 2 + 0.5).clamp(0, 1)
