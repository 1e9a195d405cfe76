"""Autoencoders of diffusers with a continuous latent: AutoencoderKL, AutoencoderTiny and their like."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from fmrgen.config import Revision
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.errors import UserError, one_line
from fmrgen.generators.base import GeneratorConfig, check_image_size
from fmrgen.trust.recipes import paths_among

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Config(GeneratorConfig):
    """`model` is a diffusers folder or Hub id; `subfolder` for an autoencoder inside a pipeline."""

    kind: str = "vae"
    model: str
    subfolder: str | None = Field(None, pattern=r"^\w[\w-]*$")
    revision: Revision = None

    def build(self, device: "torch.device | str" = "cpu") -> "Vae":
        from fmrgen.weights.checkpoint import freeze
        from fmrgen.weights.pretrained import pretrained_model

        options = {} if self.subfolder is None else {"subfolder": self.subfolder}
        loader = self._autoencoder_class(options)
        model = pretrained_model(loader, self.model, "generator.model", self.revision, **options)
        vae = Vae(freeze(model, device), self.image_size)
        check_image_size(self.image_size, vae.downsampling)
        return vae

    def code_it_runs(self) -> list[str]:
        return []

    def places_it_reads(self) -> list[str]:
        return paths_among(self.model, self.mask)

    def _autoencoder_class(self, options: dict[str, str]) -> Any:
        import diffusers

        from fmrgen.weights.assets import resolve_path

        try:
            config = diffusers.AutoencoderKL.load_config(resolve_path(self.model), revision=self.revision, **options)
        except OSError as error:
            raise UserError(f"generator.model: {self.model} can't be loaded: {one_line(error)}") from error
        name = str(config.get("_class_name"))
        if not name.startswith("Autoencoder") or not hasattr(diffusers, name):
            raise UserError(f"generator.model: {self.model} is not one of diffusers' autoencoders")
        return getattr(diffusers, name)


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
