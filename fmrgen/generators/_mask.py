"""Sparse generators (paper §3.2.1): of the latent only the dimensions of a mask move."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.errors import UserError, one_line
from fmrgen.generators.base import encode_blank
from fmrgen.weights.digest import weights_sha256
from fmrgen.weights.pretrained import local_file


def masked(generator: Generator, reference: str, blank: Tensor) -> "MaskedGenerator":
    """`generator` with the mask file `reference`, tried on the image `blank` [1, 3, H, W].

    Raises UserError where the file is not a mask, or one for latents of another shape.
    """
    mask, metadata = read_mask_file(local_file(reference, "generator.mask"), f"generator.mask: {reference}")
    if metadata.get("generator_sha256") not in (None, weights_sha256(generator)):
        raise UserError(f"generator.mask: {reference} was found for other weights; make one with fmrgen sparsify")
    latents = encode_blank(generator, blank)
    if latents.fixed is not None and not latents.fixed.is_floating_point():
        raise UserError(f"generator.mask: the context of this generator is {latents.fixed.dtype}, it can't be masked")
    if mask.shape != latents.free.shape[1:]:
        shapes = f"{list(mask.shape)}, this generator's are {list(latents.free.shape[1:])}"
        raise UserError(f"generator.mask: {reference} is for latents of {shapes}; make one with fmrgen sparsify")
    return MaskedGenerator(generator, mask.to(blank.device), latents)


def read_mask_file(path: Path, what: str) -> tuple[Tensor, dict[str, str]]:
    """The mask of a file, and what it tells of itself. Raises UserError, which begins with `what`, for a broken one."""
    try:
        with safe_open(path, "pt") as file:
            mask, metadata = file.get_tensor("mask"), file.metadata() or {}
    except Exception as error:  # a broken file can fail anywhere in the reader, which runs nothing that it says
        raise UserError(f"{what} is not a mask; make one with fmrgen sparsify: {one_line(error)}") from None
    if mask.dtype is not torch.bool or not mask.any():
        raise UserError(f"{what} frees no dimension; make one with fmrgen sparsify")
    return mask, metadata


class _Mask(nn.Module):
    """The flat indices of the dimensions that move, as a buffer: so they count among the generator's weights."""

    kept: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", mask.flatten().nonzero().squeeze(1))


class MaskedGenerator(Generator):
    """Another generator, of whose latent `free` holds the dimensions in the mask alone, [B, n].

    All of the latent, and the inner generator's own context, lie flat in `fixed`.
    """

    def __init__(self, generator: Generator, mask: Tensor, like: Latents) -> None:
        self.generator, self.image_size = generator, generator.image_size
        self.encode_is_dear = generator.encode_is_dear
        self.mask = _Mask(mask)
        self.shape, self.size = mask.shape, mask.numel()
        self.fixed_shape = None if like.fixed is None else like.fixed.shape[1:]

    def encode(self, images: Tensor, labels: Tensor) -> Latents:
        self.generator.row_seeds = self.row_seeds
        return self._of_whole(self.generator.encode(images, labels))

    def encode_quickly(self, images: Tensor, labels: Tensor) -> Latents:
        self.generator.row_seeds = self.row_seeds
        return self._of_whole(self.generator.encode_quickly(images, labels))

    def _of_whole(self, latents: Latents) -> Latents:
        free, fixed = latents
        whole = free.flatten(1)
        context = whole if fixed is None else torch.cat([whole, fixed.reshape(len(fixed), -1)], 1)
        return Latents(whole[:, self.mask.kept], context)

    def decode(self, latents: Latents) -> Tensor:
        return self.generator.decode(self._whole(latents))

    def project(self, latents: Latents, start: Tensor) -> Tensor:
        """Of where the inner generator has all of the latent, the dimensions that may move."""
        if type(self.generator).project is Generator.project:
            return latents.free  # it leaves them alone: the whole need not be put together at each step
        whole = self._whole(latents)
        begun = self._whole(Latents(start, latents.fixed)).free
        return self.generator.project(whole, begun).flatten(1)[:, self.mask.kept]

    def _whole(self, latents: Latents) -> Latents:
        """The inner generator's own latents."""
        context = latents.fixed
        assert context is not None
        whole = context[:, : self.size].to(latents.free.dtype).index_copy(1, self.mask.kept, latents.free)
        fixed = None if self.fixed_shape is None else context[:, self.size :].reshape(-1, *self.fixed_shape)
        return Latents(whole.unflatten(1, self.shape), fixed)
