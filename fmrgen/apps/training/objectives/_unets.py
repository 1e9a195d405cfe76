"""The common part of objectives whose network is a U-Net that predicts noise: network, moving average, files."""

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from fmrgen.apps.training.objectives.base import Objective, ObjectiveConfig, psnr

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fmrgen.engine.interfaces import Generator


class UnetConfig(ObjectiveConfig):
    """The architecture. The lowest level has attention, and each level below the first halves the sides."""

    image_size: int = Field(ge=8)
    widths: list[int] = Field(min_length=2)
    blocks_per_width: int = Field(1, ge=1)
    norm_groups: int = Field(8, ge=1)
    averaged_over: int = Field(500, ge=1, description="the weights are a moving average over about this many steps")

    def unet(self, device: "torch.device") -> Any:
        """Return the network, with random weights."""
        from diffusers import UNet2DModel

        plain_levels = len(self.widths) - 1
        unet = UNet2DModel(
            sample_size=self.image_size,
            block_out_channels=tuple(self.widths),
            down_block_types=(*("DownBlock2D",) * plain_levels, "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", *("UpBlock2D",) * plain_levels),
            layers_per_block=self.blocks_per_width,
            norm_num_groups=self.norm_groups,
            attention_head_dim=min(32, self.widths[-1]),
        )
        return unet.to(device)


class UnetObjective(Objective):
    """Trains a U-Net; the moving average of its weights is saved and tested."""

    def __init__(self, unet: Any, config: UnetConfig) -> None:
        from diffusers.training_utils import EMAModel

        self.network, self.image_size = unet, config.image_size
        self.average = EMAModel(unet.parameters(), decay=1 - 1 / config.averaged_over)

    def loss(self, images: "Tensor", labels: "Tensor", progress: float) -> "Tensor":
        return self.loss_of_noise(images * 2 - 1, progress)

    def after_step(self) -> None:
        self.average.step(self.network.parameters())

    @abstractmethod
    def loss_of_noise(self, images: "Tensor", progress: float) -> "Tensor":
        """Return the loss of images [B, 3, H, W] in [-1, 1], noised at random; `progress` runs from 0 to 1."""

    @abstractmethod
    def generator(self) -> "Generator":
        """Return the generator of the present network, without the residual."""

    def metrics(self, images: "Tensor", labels: "Tensor") -> "dict[str, Tensor]":
        generator = self.generator()
        reconstructions = generator.decode(generator.encode(images, labels))
        return {"psnr": psnr(reconstructions, images)}

    def state(self) -> dict[str, Any]:
        return {**super().state(), "average": self.average.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.average.load_state_dict(state["average"])
        self.average.to(self.network.device)

    def save(self, folder: Path) -> None:
        self.average.copy_to(self.network.parameters())
        self.pipeline().save_pretrained(folder)

    @abstractmethod
    def pipeline(self) -> Any:
        """Return the diffusers pipeline with the network and its noise schedule."""
