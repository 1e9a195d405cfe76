"""A small VQGAN: reconstruction, codebook and commitment losses, and a patch discriminator (Esser et al. 2021)."""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from fmrgen.apps.training.objectives.base import Objective, ObjectiveConfig, psnr
from fmrgen.generators.networks.vqgan import Architecture, VqganNetwork
from fmrgen.generators.networks.vqgan_files import load_model, save_model
from fmrgen.labels import Labels

_QUANTISER_START = 0.1  # share of the run before it
_DISCRIMINATOR_START = 0.5  # share of the run before it
_CODEBOOK_WEIGHT = 0.25  # of codes that follow latents; latents follow codes with weight 1


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
        None, description="a folder or asset of a VQGAN to start from, whose architecture is used too"
    )

    def objective(self, device: torch.device, labels: Labels) -> "VqganObjective":
        return VqganObjective(self, device)

    def network(self) -> VqganNetwork:
        """Return the network to begin with."""
        if self.start is not None:
            return load_model(self.start, None, "model.start")
        architecture = Architecture(
            ch=self.widths[0],
            widths=tuple(self.widths),
            attends=(False,) * len(self.widths),
            num_res_blocks=self.blocks_per_width,
            z_channels=self.latent_channels,
            embed_dim=self.latent_channels,
            n_embed=self.codebook_size,
            num_groups=self.norm_groups,
        )
        return VqganNetwork(architecture)


class VqganObjective(Objective):
    """Starts as a plain autoencoder, then sets its codebook to latents of a batch, then trains with a discriminator."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.network: VqganNetwork = config.network().to(device)
        self.image_size, self.adversarial_weight = config.image_size, config.adversarial_weight
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 32), (32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.discriminator = nn.Sequential(*layers, nn.Conv2d(64, 1, 3, padding=1)).to(device)
        self.discriminator_optimizer = torch.optim.AdamW(self.discriminator.parameters(), 1e-3, betas=(0.5, 0.9))
        self.codebook_laid = config.start is not None

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Tensor:
        images = images * 2 - 1
        latents = self.network.encode(images)
        if progress >= _QUANTISER_START and not self.codebook_laid:
            self._set_codebook(latents)
        codes, commitment = latents, torch.zeros_like(latents[0, 0, 0, 0])
        if self.codebook_laid:
            codes, commitment = self._quantized(latents)
        output = self.network.decode(codes)
        error = output - images
        loss = error.abs().mean() + error.square().mean() + commitment
        if progress >= _DISCRIMINATOR_START and self.adversarial_weight:
            self._train_discriminator(images, output.detach())
            with torch.autocast(images.device.type, enabled=False):
                loss = loss - self.adversarial_weight * self.discriminator(output.float()).mean()
        return loss

    def _quantized(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes of latents [B, C, H, W], and the loss that draws codes and latents to each other."""
        codebook = self.network.quantize
        vectors = latents.permute(0, 2, 3, 1).contiguous()
        nearest = codebook.embedding(codebook.numbers(vectors.detach()))
        codes = vectors + (nearest - vectors).detach()
        of_latents = (nearest.detach() - vectors).square().mean()
        of_codes = (nearest - vectors.detach()).square().mean()
        return codes.permute(0, 3, 1, 2), of_latents + _CODEBOOK_WEIGHT * of_codes

    def _set_codebook(self, latents: Tensor) -> None:
        """Set the codebook to latents [B, C, H, W] at random places."""
        points = latents.detach().permute(0, 2, 3, 1).flatten(0, 2)
        codebook = self.network.quantize.embedding.weight.data
        codebook.copy_(points[torch.randint(len(points), (len(codebook),))])
        self.processes.share(codebook)
        self.codebook_laid = True

    def _train_discriminator(self, real: Tensor, fake: Tensor) -> None:
        # Autocast caches weights, and would use those from before the step.
        with torch.autocast(real.device.type, enabled=False):
            real_logits, fake_logits = self.discriminator(real.float()), self.discriminator(fake.float())
            loss = (1 - real_logits).relu().mean() + (1 + fake_logits).relu().mean()
        self.discriminator_optimizer.zero_grad()
        loss.backward()
        self.processes.average_gradients(self.discriminator)
        self.discriminator_optimizer.step()

    def metrics(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        latents = self.network.encode(images * 2 - 1)
        output = self.network.decode(self.network.quantize(latents)) / 2 + 0.5
        return {"psnr": psnr(output, images), "latent_std": latents.flatten(1).std(1)}

    def save(self, folder: Path) -> None:
        save_model(self.network, folder)

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
