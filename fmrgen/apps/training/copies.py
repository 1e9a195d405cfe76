"""The perturbed copies of training images: one static copy of each, from a perturbed split (the paper's App. G)."""

import torch
from torch import Tensor

from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb, resize
from fmrgen.split.open import open_split


class PerturbedCopies:
    """The images of a split by their ids, kept as the files that they are. A row that is not valid has no copy."""

    def __init__(self, reference: str, size: int) -> None:
        """Raises UserError for a split without ids, or one that can't be read."""
        self.reference, self.size = reference, size
        split = open_split(reference)
        if missing := {"id", "image"} - set(split.features):
            raise UserError(f"copies: {reference} has no column {min(missing)}")
        columns = [name for name in ("id", "image", "valid") if name in split.features]
        self.files = {
            int(row["id"]): split.image_of(row["image"])
            for row in split.stored_rows(["image"], columns)
            if row.get("valid", True)
        }

    def of(self, ids: Tensor, images: Tensor) -> Tensor:
        """The copies of images, uint8 [B, 3, H, W], with those ids [B]; of one without a copy the image itself."""
        return torch.stack([self._copy(int(number), image) for number, image in zip(ids, images, strict=True)])

    def _copy(self, number: int, image: Tensor) -> Tensor:
        stored = self.files.get(number)
        if stored is None:
            return image
        pixels = resize(open_rgb(stored), self.size, "crop")
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)
