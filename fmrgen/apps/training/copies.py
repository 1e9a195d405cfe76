"""The perturbed copies of training images: one static copy of each, from a perturbed split (the paper's App. G)."""

import torch
from torch import Tensor

from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb, resize
from fmrgen.split.open import open_split
from fmrgen.split.rows import reading


class PerturbedCopies:
    """The images of a split by their ids, in memory as files. A row that is not valid has no copy.

    Copies have a side of `size` pixels. Raises UserError if the split has no ids, or can't be read.
    """

    def __init__(self, reference: str, size: int) -> None:
        self.reference, self.size = reference, size
        split = open_split(reference)
        missing = {"id", "image"} - set(split.features)
        if missing:
            raise UserError(f"copies: {reference} has no column {min(missing)}")
        columns = [name for name in ("id", "image", "valid") if name in split.features]
        self.files = {}
        with reading(split.name):
            for table in split.tables(columns=columns):
                for row in table.to_pylist():
                    if row.get("valid", True):
                        self.files[int(row["id"])] = split.image_of(row["image"])

    def of(self, ids: Tensor, images: Tensor) -> Tensor:
        """Return the copies of images, uint8 [B, 3, H, W], with `ids` [B]; an image without a copy stays as it is."""
        pairs = zip(ids.tolist(), images, strict=True)
        return torch.stack([self._copy(example_id, image) for example_id, image in pairs])

    def _copy(self, example_id: int, image: Tensor) -> Tensor:
        stored = self.files.get(example_id)
        if stored is None:
            return image
        pixels = resize(open_rgb(stored), self.size, "crop")
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)
