"""Zero-shot CLIP (paper §3.2): the probability of each label's prompt given the image."""

from typing import TYPE_CHECKING

from fmrgen.oracles._image_text import ImageTextConfig

if TYPE_CHECKING:
    import torch

    from fmrgen.oracles.zero_shot import ZeroShotOracle


class Config(ImageTextConfig):
    """`model` is a folder, an asset or a Hub id of a CLIP: `zero_shot` with the paper's model and prompt."""

    kind: str = "clip"
    model: str = "openai/clip-vit-base-patch32"

    def build(self, device: "torch.device | str" = "cpu") -> "ZeroShotOracle":
        from transformers import CLIPModel

        from fmrgen.oracles.zero_shot import zero_shot_oracle

        return zero_shot_oracle(CLIPModel, self, device)
