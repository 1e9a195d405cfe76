"""A small VQGAN: reconstruction, codebook and commitment losses, and a patch discriminator (Esser et al. 2021)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from fmrgen.apps.training.objectives.base import Objective, ObjectiveConfig, psnr
from fmrgen.config import SINCE_0_2
from fmrgen.labels import Labels
from fmrgen.weights.pretrained import pretrained_model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_QUANTISER_START = 0.1  # share of the run before it
_DISCRIMINATOR_START = 0.5  # share of the run before it


class Config(ObjectiveConfig):
    """The architecture, or a VQGAN to start from; the downsampling factor is 2 to the number of widths less one."""

    kind: str = "vqgan"
    image_size: int = Field(ge=8)
    widths: list[int] = Field([16, 32], min_length=1)
    blocks_per_width: int = Field(1, ge=1)
    latent_channels: int = Field(4, ge=1)
    codebook_size: int = Field(256, ge=2)
    norm_groups: int = Field(8, ge=1)
    adversarial_weight: float = Field(0.02, ge=0)
    start: str | None = Field(
        None,
        description="a diffusers folder or asset of a VQModel to go on from, whose architecture is taken too",
        json_schema_extra=SINCE_0_2,
    )

    def objective(self, device: "torch.device", labels: Labels) -> "VqganObjective":
        from diffusers import VQModel

        if self.start is not None:
            started = pretrained_model(VQModel, self.start, "model.start").train()
            return VqganObjective(started.to(device), self)
        model = VQModel(
            block_out_channels=tuple(self.widths),
            down_block_types=("DownEncoderBlock2D",) * len(self.widths),
            up_block_types=("UpDecoderBlock2D",) * len(self.widths),
            layers_per_block=self.blocks_per_width,
            latent_channels=self.latent_channels,
            num_vq_embeddings=self.codebook_size,
            norm_num_groups=self.norm_groups,
            sample_size=self.image_size,
        )
        return VqganObjective(model.to(device), self)


class VqganObjective(Objective):
    """Starts as a plain autoencoder, then sets its codebook to latents of a batch, then trains with a discriminator."""

    def __init__(self, model: Any, config: Config) -> None:
        import torch
        from torch import nn

        self.network = model
        self.image_size = config.image_size
        self.adversarial_weight = config.adversarial_weight
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 32), (32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.discriminator = nn.Sequential(*layers, nn.Conv2d(64, 1, 3, padding=1)).to(model.device)
        self.discriminator_optimizer = torch.optim.AdamW(self.discriminator.parameters(), 1e-3, betas=(0.5, 0.9))
        self.codebook_laid = config.start is not None

    def loss(self, images: "Tensor", labels: "Tensor", progress: float) -> "Tensor":
        import torch

        images = images * 2 - 1
        latents = self.network.encode(images).latents
        if progress >= _QUANTISER_START and not self.codebook_laid:
            self._set_codebook(latents)
        output = self.network.decode(latents, force_not_quantize=not self.codebook_laid)
        error = output.sample - images
        loss = error.abs().mean() + error.square().mean() + output.commit_loss.mean()
        if progress >= _DISCRIMINATOR_START and self.adversarial_weight:
            self._train_discriminator(images, output.sample.detach())
            with torch.autocast(images.device.type, enabled=False):
                loss = loss - self.adversarial_weight * self.discriminator(output.sample.float()).mean()
        return loss

    def _set_codebook(self, latents: "Tensor") -> None:
        """Set the codebook to latents [B, C, H, W] at random places."""
        import torch

        points = latents.detach().permute(0, 2, 3, 1).flatten(0, 2)
        codebook = self.network.quantize.embedding.weight.data
        codebook.copy_(points[torch.randint(len(points), (len(codebook),))])
        self.processes.share(codebook)
        self.codebook_laid = True

    def _train_discriminator(self, real: "Tensor", fake: "Tensor") -> None:
        import torch

        # Autocast caches weights, and would use those from before the step.
        with torch.autocast(real.device.type, enabled=False):
            real_logits, fake_logits = self.discriminator(real.float()), self.discriminator(fake.float())
            loss = (1 - real_logits).relu().mean() + (1 + fake_logits).relu().mean()
        self.discriminator_optimizer.zero_grad()
        loss.backward()
        self.processes.average_gradients(self.discriminator)
        self.discriminator_optimizer.step()

    def metrics(self, images: "Tensor", labels: "Tensor") -> "dict[str, Tensor]":
        latents = self.network.encode(images * 2 - 1).latents
        output = self.network.decode(latents).sample / 2 + 0.5
        return {"psnr": psnr(output, images), "latent_std": latents.flatten(1).std(1)}

    def save(self, folder: Path) -> None:
        self.network.save_pretrained(folder)

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "judge": self.discriminator.state_dict(),
            "optimizer": self.discriminator_optimizer.state_dict(),
            "codebook_laid": self.codebook_laid,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.discriminator.load_state_dict(state["judge"])
        self.discriminator_optimizer.load_state_dict(state["optimizer"])
        self.codebook_laid = state["codebook_laid"]
