"""Latent diffusion models that were distilled to one step (SD-Turbo and its like), from an early time."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from fmrgen.config import Revision
from fmrgen.engine.interfaces import Generator
from fmrgen.errors import UserError
from fmrgen.generators.base import GeneratorConfig, check_image_size
from fmrgen.trust.recipes import paths_among

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Config(GeneratorConfig):
    """`model` is a pipeline of diffusers with an autoencoder, a `UNet2DConditionModel` that predicts noise, and one
    text encoder, such as stabilityai/sd-turbo. The text is `prompt` for all images.
    """

    kind: str = "one_step"
    model: str
    revision: Revision = None
    prompt: str = ""
    start: float = Field(0.2, gt=0, le=1, description="the time to which latents are noised, as a share of all")
    shell: bool = Field(True, description="after each step, scale the noised latent to the length that it began with")
    residual: bool = Field(True, description="add what the way back loses, so that an unmoved image is exact")

    def build(self, device: "torch.device | str" = "cpu") -> Generator:
        from diffusers import AutoencoderKL, UNet2DConditionModel

        from fmrgen.generators._ddim import alphas_of_pipeline
        from fmrgen.generators._denoisers import Kept, OneStep
        from fmrgen.weights.checkpoint import freeze
        from fmrgen.weights.pretrained import pretrained_model

        what = "generator.model"

        def part(loader: Any, subfolder: str) -> Any:
            return pretrained_model(loader, self.model, what, self.revision, subfolder=subfolder)

        vae, unet = part(AutoencoderKL, "vae"), part(UNet2DConditionModel, "unet")
        if unet.config.addition_embed_type or unet.config.time_cond_proj_dim or unet.config.class_embed_type:
            raise UserError(f"{what}: {self.model} wants more than a text (a size, or guidance); that is not supported")
        alphas = alphas_of_pipeline(self.model, self.revision)
        check_image_size(
            self.image_size, 2 ** (len(vae.config.block_out_channels) + len(unet.config.block_out_channels) - 2)
        )
        prompt = self._embedded_prompt(what).to(device)
        time = max(0, round(self.start * len(alphas)) - 1)
        kept, level = Kept(self.residual, self.shell), float(alphas[time])
        return OneStep(freeze(vae, device), freeze(unet, device), prompt, self.image_size, kept, time, level)

    def _embedded_prompt(self, what: str) -> "Tensor":
        """What the text encoder makes of the prompt, [1, L, D]; it is not needed any more afterwards."""
        import torch
        from transformers import AutoTokenizer, CLIPTextModel

        from fmrgen.weights.pretrained import from_pretrained, pretrained_model

        tokenizer = from_pretrained(AutoTokenizer, self.model, what, self.revision, subfolder="tokenizer")
        encoder = pretrained_model(CLIPTextModel, self.model, what, self.revision, subfolder="text_encoder").eval()
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        ids = tokenizer(
            self.prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            embedded: Tensor = encoder(ids).last_hidden_state
        return embedded

    def code_it_runs(self) -> list[str]:
        return []

    def places_it_reads(self) -> list[str]:
        return paths_among(self.model, self.mask)
