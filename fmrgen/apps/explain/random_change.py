"""Images changed at random by one attribute: what `explain` suggests to train with."""

import torch
from torch import Tensor, nn

from fmrgen.apps.explain.attributes import ATTRIBUTES, Attribute
from fmrgen.errors import UserError, unknown_message

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

    def __init__(self, attribute: str | Attribute, least: float = -1.0, most: float = 1.0, share: float = 0.8) -> None:
        super().__init__()
        self.attribute = attribute if isinstance(attribute, Attribute) else attribute_named(attribute)
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


def attribute_named(name: str) -> Attribute:
    """Return the attribute of that name. Raises UserError if there is none."""
    by_name = {attribute.name: attribute for attribute in ATTRIBUTES}
    if name not in by_name:
        raise UserError(unknown_message(f"attribute {name!r}", name, by_name))
    return by_name[name]
