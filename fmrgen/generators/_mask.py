"""Sparse generators (paper §3.2.1): only the dimensions of the latent that are in a mask move."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.errors import UserError, one_line
from fmrgen.generators.base import encode_blank
from fmrgen.weights.digest import weights_sha256
from fmrgen.weights.pretrained import local_file


def masked(generator: Generator, reference: str, blank: Tensor) -> "MaskedGenerator":
    """Return `generator` with a mask, tried on a blank image [1, 3, H, W] on the generator's device.

    `reference` is the mask file, as `local_file` takes it. Raises UserError if the file is not a mask, or is one for
    other weights or for latents of another shape.
    """
    mask, metadata = read_mask_file(local_file(reference, "generator.mask"), f"generator.mask: {reference}")
    if metadata.get("generator_sha256") not in (None, weights_sha256(generator)):
        raise UserError(f"generator.mask: {reference} belongs to other weights; create one with fmrgen sparsify")
    latents = encode_blank(generator, blank)
    if latents.fixed is not None and not latents.fixed.is_floating_point():
        raise UserError(f"generator.mask: the context of this generator is {latents.fixed.dtype}, it can't be masked")
    if mask.shape != latents.free.shape[1:]:
        shapes = f"{list(mask.shape)}, this generator's are {list(latents.free.shape[1:])}"
        raise UserError(f"generator.mask: {reference} is for latents of {shapes}; make one with fmrgen sparsify")
    return MaskedGenerator(generator, mask.to(blank.device), latents)


def read_mask_file(path: Path, subject: str) -> tuple[Tensor, dict[str, str]]:
    """Return the mask of a file, bool, and the file's metadata. Raises UserError, starting with `subject`."""
    try:
        with safe_open(path, "pt") as file:
            mask, metadata = file.get_tensor("mask"), file.metadata() or {}
    except Exception as error:  # a broken file can fail anywhere in the reader, which runs no code from it
        raise UserError(f"{subject} is not a mask; create one with fmrgen sparsify: {one_line(error)}") from None
    if mask.dtype is not torch.bool or not mask.any():
        raise UserError(f"{subject} selects no dimension; create one with fmrgen sparsify")
    return mask, metadata


class MaskedGenerator(Generator):
    """Another generator, with the dimensions in the mask alone as `free`, [B, n].

    `fixed` holds, flat, the whole latent and then the inner generator's own context.
    """

    def __init__(self, generator: Generator, mask: Tensor, example: Latents) -> None:
        self.generator = generator
        self.image_size = generator.image_size
        self.encode_is_slow = generator.encode_is_slow
        self.mask = {"kept": mask.flatten().nonzero().squeeze(1)}  # flat indices; the names count in weights' digests
        self.shape = mask.shape
        self.size = mask.numel()
        self.fixed_shape = None if example.fixed is None else example.fixed.shape[1:]

    def encode(self, images: Tensor, labels: Tensor) -> Latents:
        self.generator.row_seeds = self.row_seeds
        return self._select(self.generator.encode(images, labels))

    def encode_quickly(self, images: Tensor, labels: Tensor) -> Latents:
        self.generator.row_seeds = self.row_seeds
        return self._select(self.generator.encode_quickly(images, labels))

    def _select(self, latents: Latents) -> Latents:
        """Return this generator's latents, from the inner generator's."""
        free, fixed = latents
        whole = free.flatten(1)
        context = whole if fixed is None else torch.cat([whole, fixed.reshape(len(fixed), -1)], 1)
        return Latents(whole[:, self.mask["kept"]], context)

    def decode(self, latents: Latents) -> Tensor:
        return self.generator.decode(self._restore(latents))

    def project(self, latents: Latents, start: Tensor) -> Tensor:
        """Return the free dimensions of the whole latent, as the inner generator projects it."""
        if type(self.generator).project is Generator.project:
            return latents.free  # nothing is projected, so the whole latent need not be restored at each step
        whole = self._restore(latents)
        whole_start = self._restore(Latents(start, latents.fixed)).free
        return self.generator.project(whole, whole_start).flatten(1)[:, self.mask["kept"]]

    def _restore(self, latents: Latents) -> Latents:
        """Return the inner generator's latents, from this one's."""
        context = latents.fixed
        assert context is not None
        whole = context[:, : self.size].to(latents.free.dtype).index_copy(1, self.mask["kept"], latents.free)
        fixed = None
        if self.fixed_shape is not None:
            fixed = context[:, self.size :].reshape(-1, *self.fixed_shape)
        return Latents(whole.unflatten(1, self.shape), fixed)
