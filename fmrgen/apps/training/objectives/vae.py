"""A small autoencoder with a Gaussian latent (Kingma and Welling 2014; Rombach et al. 2022)."""

from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from fmrgen.apps.training.objectives.base import Objective, ObjectiveConfig, psnr
from fmrgen.labels import Labels


class Config(ObjectiveConfig):
    """The architecture; the downsampling factor is 2 to the number of widths less one. Saves what `kind: vae` reads."""

    kind: str = "vae"
    image_size: int = Field(ge=8)
    widths: list[int] = Field(min_length=1)
    blocks_per_width: int = Field(1, ge=1)
    latent_channels: int = Field(4, ge=1)
    norm_groups: int = Field(8, ge=1)
    kl_weight: float = Field(1e-4, ge=0, description="of the divergence from a standard normal, per latent dimension")

    def objective(self, device: torch.device, labels: Labels) -> "VaeObjective":
        return VaeObjective(self, device)


class VaeObjective(Objective):
    """Absolute and squared error of reconstructions from sampled latents, and the latents' divergence."""

    def __init__(self, config: Config, device: torch.device) -> None:
        from diffusers import AutoencoderKL

        self.image_size, self.kl_weight = config.image_size, config.kl_weight
        self.network = AutoencoderKL(
            block_out_channels=tuple(config.widths),
            down_block_types=("DownEncoderBlock2D",) * len(config.widths),
            up_block_types=("UpDecoderBlock2D",) * len(config.widths),
            layers_per_block=config.blocks_per_width,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_groups,
            sample_size=config.image_size,
        ).to(device)

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Tensor:
        images = images * 2 - 1
        posterior = self.network.encode(images).latent_dist
        error = self.network.decode(posterior.sample()).sample - images
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        loss: Tensor = error.abs().mean() + error.square().mean() + self.kl_weight * divergence
        return loss

    def metrics(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        latents = self.network.encode(images * 2 - 1).latent_dist.mode()
        reconstructions = self.network.decode(latents).sample / 2 + 0.5
        return {"psnr": psnr(reconstructions, images), "latent_std": latents.flatten(1).std(1)}

    def save(self, folder: Path) -> None:
        self.network.save_pretrained(folder)
