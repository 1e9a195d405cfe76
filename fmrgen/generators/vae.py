"""Autoencoders of diffusers with a continuous latent: KL (SD, SDXL, SD3, FLUX), Tiny, DC, RAE, and those of videos."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from fmrgen.config import HubModel, Revision
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.errors import UserError, one_line
from fmrgen.generators.base import GeneratorConfig, check_image_size, on_shell

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Config(GeneratorConfig):
    """`model` is a diffusers folder or Hub id; `subfolder` for an autoencoder inside a pipeline.

    Autoencoders of videos (Wan, Qwen-Image, Cosmos) see each image as a single frame.
    """

    PLACES = ("model", "mask")

    kind: str = "vae"
    model: str
    subfolder: str | None = Field(None, pattern=r"^\w[\w-]*$")
    revision: Revision = None
    shell: bool = Field(False, description="after each step, scale the latent back to its initial length")

    def hub_model(self) -> HubModel | None:
        model = super().hub_model()
        return None if model is None else model._replace(folders=(self.subfolder or "",))

    def build(self, device: "torch.device | str" = "cpu") -> "Vae":
        from fmrgen.weights.checkpoint import freeze
        from fmrgen.weights.pretrained import pretrained_model

        options = {} if self.subfolder is None else {"subfolder": self.subfolder}
        loader = self._autoencoder_class(options)
        model = pretrained_model(loader, self.model, "generator.model", self.revision, **options)
        vae = Vae(freeze(model, device), self.image_size, self.shell)
        self._check_size(vae, device)
        return vae

    def _check_size(self, vae: "Vae", device: "torch.device | str") -> None:
        """Raise UserError unless an image of the configured size comes back in that size."""
        import torch

        blank = torch.zeros(1, 3, self.image_size, self.image_size, device=device)
        try:
            with torch.no_grad():
                latents = vae.encode(blank, torch.zeros(1, dtype=torch.int64))
                decoded = vae.decode(latents).shape[-1]
        except Exception as error:  # each autoencoder has errors of its own
            raise UserError(
                f"generator.model: {self.model} is a {type(vae.model).__name__} and fails on an image of "
                f"{self.image_size} px: {type(error).__name__}: {one_line(error)}"
            ) from error
        check_image_size(self.image_size, max(1, decoded // latents.free.shape[-1]))
        if decoded != self.image_size:
            raise UserError(f"generator.image_size: {self.model} generates images of {decoded} px; use {decoded}")

    def _autoencoder_class(self, options: dict[str, str]) -> Any:
        """Return the class of diffusers that the model's config names. Raises UserError for any other."""
        import diffusers

        from fmrgen.weights.assets import resolve_path

        try:
            config = diffusers.AutoencoderKL.load_config(resolve_path(self.model), revision=self.revision, **options)
        except OSError as error:
            raise UserError(f"generator.model: {self.model} can't be loaded: {one_line(error)}") from error
        name = str(config.get("_class_name"))
        if "Autoencoder" not in name or not hasattr(diffusers, name):
            raise UserError(f"generator.model: {self.model} is not one of diffusers' autoencoders")
        return getattr(diffusers, name)


class Vae(Generator):
    """`free` is the latent, [B, C, h, w], or [B, C, 1, h, w] of one frame; for a distribution its mode, so that
    encoding is not random."""

    def __init__(self, model: Any, image_size: int, shell: bool = False) -> None:
        from torch import nn

        self.model = model
        self.image_size = image_size
        self.shell = shell
        self.is_of_videos = any(isinstance(module, nn.Conv3d) for module in model.modules())
        self.is_in_unit_range = type(model).__name__ == "AutoencoderRAE"  # all others take and give [-1, 1]

    def encode(self, images: "Tensor", labels: "Tensor") -> Latents:
        if not self.is_in_unit_range:
            images = images * 2 - 1
        if self.is_of_videos:
            images = images.unsqueeze(2)
        output = self.model.encode(images)
        if "latent_dist" in output:
            return Latents(output.latent_dist.mode())
        if "latents" in output:
            return Latents(output.latents)
        return Latents(output.latent)

    def project(self, latents: Latents, start: "Tensor") -> "Tensor":
        return on_shell(latents.free, start) if self.shell else latents.free

    def decode(self, latents: Latents) -> "Tensor":
        sample: Tensor = self.model.decode(latents.free).sample
        if self.is_of_videos:
            sample = sample[:, :, 0]
        if not self.is_in_unit_range:
            sample = sample / 2 + 0.5
        return sample.clamp(0, 1)
