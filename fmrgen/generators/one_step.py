"""Latent diffusion models distilled to one step or a few (SD-Turbo, latent consistency models), from an early time."""

from typing import TYPE_CHECKING

from pydantic import Field

from fmrgen.engine.interfaces import Generator
from fmrgen.errors import UserError
from fmrgen.generators.base import DenoiserConfig, check_image_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_KEY = "generator.model"


class Config(DenoiserConfig):
    """`model` is a pipeline of diffusers with an autoencoder, a `UNet2DConditionModel` that predicts noise, and one
    text encoder, such as stabilityai/sd-turbo or SimianLuo/LCM_Dreamshaper_v7. The text is `prompt` for all images.
    """

    FOLDERS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
    PLACES = ("model", "mask")

    kind: str = "one_step"
    model: str
    prompt: str = ""
    guidance: float = Field(8.5, ge=1, description="the guidance scale, for latent consistency models only")
    start: float = Field(0.2, gt=0, le=1, description="the time to which latents are noised, as a share of all")

    def build(self, device: "torch.device | str" = "cpu") -> Generator:
        import torch
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from diffusers.models.embeddings import get_timestep_embedding

        from fmrgen.generators._denoisers import OneStep
        from fmrgen.generators.networks.ddim import alphas_of_pipeline
        from fmrgen.weights.checkpoint import freeze
        from fmrgen.weights.pretrained import pretrained_model

        vae = pretrained_model(AutoencoderKL, self.model, _KEY, self.revision, subfolder="vae")
        unet = pretrained_model(UNet2DConditionModel, self.model, _KEY, self.revision, subfolder="unet")
        if unet.config.addition_embed_type or unet.config.class_embed_type:
            raise UserError(
                f"{_KEY}: {self.model} needs more than a prompt (a size, or a class), which is not supported"
            )
        alphas = alphas_of_pipeline(self.model, self.revision)
        # Each halves the sides once less than it has levels.
        halvings = len(vae.config.block_out_channels) + len(unet.config.block_out_channels) - 2
        check_image_size(self.image_size, 2**halvings)
        prompt = self._embedded_prompt().to(device)
        time = max(0, round(self.start * len(alphas)) - 1)
        level = float(alphas[time])
        guidance = None
        width = unet.config.time_cond_proj_dim
        if width:  # a latent consistency model, which gets 1000 times the scale less 1, embedded like a time
            guidance = get_timestep_embedding(torch.tensor([1000 * (self.guidance - 1)]), width, downscale_freq_shift=1)
            guidance = guidance.to(device)
        return OneStep(freeze(vae, device), freeze(unet, device), prompt, self, time, level, guidance)

    def _embedded_prompt(self) -> "Tensor":
        """Return the text encoder's output for the prompt, [1, L, D]; the encoder itself is not needed afterwards."""
        import torch
        from transformers import AutoTokenizer, CLIPTextModel

        from fmrgen.weights.pretrained import from_pretrained, pretrained_model

        tokenizer = from_pretrained(AutoTokenizer, self.model, _KEY, self.revision, subfolder="tokenizer")
        encoder = pretrained_model(CLIPTextModel, self.model, _KEY, self.revision, subfolder="text_encoder").eval()
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        ids = tokenizer(
            self.prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            embedded: Tensor = encoder(ids).last_hidden_state
        return embedded
