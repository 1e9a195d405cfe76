"""Images changed at random by one attribute: what `explain` suggests to train with."""

import torch
from torch import Tensor, nn

from fmrgen.apps.explain.attributes import BY_NAME, Attribute
from fmrgen.errors import UserError, unknown_message

# Of the images: those that are changed by the first attribute that is named, and by each further one. Chosen on twenty
# networks: docs/results/repairs.md.
SHARE_OF_FIRST, SHARE_OF_FURTHER = 0.8, 0.3
_AMOUNTS = 4  # that are drawn for a batch: each image gets one of them


class RandomChange(nn.Module):
    """A transform for training that changes some images by a random amount of an attribute.

    It takes and returns images [B, 3, H, W] or [3, H, W] in [0, 1], on any device, and draws from torch's global
    random state. Put it before the normalisation.

    Args:
        attribute: what to change: the name of one that `explain` tries, such as `size`, or one of your own.
        least: the smallest amount, from -1.
        most: the largest, up to 1; 0 changes nothing.
        share: of the images that are changed, from 0 to 1.

    Raises:
        UserError: there is no such attribute, or the amounts or the share are outside their range.
    """

    def __init__(
        self, attribute: str | Attribute, least: float = -1.0, most: float = 1.0, share: float = SHARE_OF_FIRST
    ) -> None:
        super().__init__()
        if isinstance(attribute, str):
            if attribute not in BY_NAME:
                raise UserError(unknown_message(f"attribute {attribute!r}", attribute, BY_NAME))
            attribute = BY_NAME[attribute]
        self.attribute = attribute
        if not -1 <= least <= most <= 1:
            raise UserError(
                f"{self.attribute.name}: amounts go from -1 to 1, the least first, not {least:g} to {most:g}"
            )
        if not 0 <= share <= 1:
            raise UserError(f"{self.attribute.name}: the share of images to change is from 0 to 1, not {share:g}")
        self.least, self.most, self.share = least, most, share

    def extra_repr(self) -> str:
        return f"{self.attribute.name!r}, least={self.least:g}, most={self.most:g}, share={self.share:g}"

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        if images.dim() == 3:
            return self(images.unsqueeze(0)).squeeze(0)
        amounts = self.least + (self.most - self.least) * torch.rand(_AMOUNTS)
        drawn = torch.randint(_AMOUNTS, (len(images),))
        drawn[torch.rand(len(images)) >= self.share] = -1  # these stay as they are
        changed = images.clone()
        for number, amount in enumerate(amounts.tolist()):
            rows = (drawn == number).nonzero()[:, 0].to(images.device)
            if len(rows):
                changed[rows] = self.attribute.change(images[rows], amount).to(images)
        return changed
