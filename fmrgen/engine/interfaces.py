"""The interfaces of generators and oracles, which the engine calls in every pass."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from fmrgen.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from fmrgen.labels import Labels


class Latents(NamedTuple):
    """Latents of B images: `free` [B, …], which a step may move, and `fixed` [B, …] or None, which it may not."""

    free: "Tensor"
    fixed: "Tensor | None" = None


class Generator(ABC):
    """The generator g: encodes images to latents and decodes latents to images, each row by itself.

    Attributes:
        image_size: side of its images in pixels.
        row_seeds: one integer per row, from the recipe's seed and the example's id, set before each `encode`. It is
            the only source of randomness, for example through `noise`.
        derived: names of attributes that are computed from others. All other tensors in attributes, lists and mappings
            are weights, and are digested.
        encode_is_slow: whether `encode` is so slow that its latents are worth caching on disk.
    """

    derived: tuple[str, ...] = ()
    encode_is_slow: bool = False
    image_size: int
    row_seeds: Sequence[int] = ()

    @abstractmethod
    def encode(self, images: "Tensor", labels: "Tensor") -> Latents:
        """Return the latents of images. Runs without gradient, once per image, and may be slow.

        Args:
            images: [B, 3, H, W] in [0, 1], H = W = `image_size`.
            labels: [B], int64.

        Returns:
            Latents with B rows.
        """

    def encode_quickly(self, images: "Tensor", labels: "Tensor") -> Latents:
        """Return latents shaped as those of `encode`, of any quality, for a trial. Override it if `encode` is slow."""
        return self.encode(images, labels)

    @abstractmethod
    def decode(self, latents: Latents) -> "Tensor":
        """Return the images of latents, differentiably.

        Args:
            latents: B rows from `encode`, whose `free` has moved.

        Returns:
            [B, 3, H, W] in [0, 1]; gradients reach `latents.free`.
        """

    def project(self, latents: Latents, start: "Tensor") -> "Tensor":
        """Return `free` after a step: unchanged, unless a generator knows where its latents belong.

        Args:
            latents: B rows, `free` as the step has left it.
            start: `free` as `encode` returned it, of the same shape.

        Returns:
            `free`, of the same shape, each row by itself.
        """
        return latents.free

    def noise(self, like: "Tensor") -> "Tensor":
        """Return standard normal noise, row i drawn from `row_seeds[i]` alone (from i if no seeds are set).

        Args:
            like: [B, …], whose shape, dtype and device the noise has.

        Returns:
            Noise of the shape of `like`.
        """
        import torch

        rows = []
        for values, seed in zip(like, self.row_seeds or range(len(like)), strict=True):
            generator = torch.Generator().manual_seed(seed)
            rows.append(torch.randn(values.shape, generator=generator, dtype=like.dtype))
        return torch.stack(rows).to(like.device)


NONE = -1  # the label of an image in which an oracle sees none of the classes


class Originals(NamedTuple):
    """The originals of generated images: `images` [B, 3, H, W] in [0, 1], and their `labels` [B]."""

    images: "Tensor"
    labels: "Tensor"


class Judgement(NamedTuple):
    """An oracle's judgement of B images over K labels.

    Attributes:
        probabilities: [B, K]; unless `labels` say otherwise, the highest decides.
        score: [B, K], the oracle's own measure (CLIP: cosine similarity).
        labels: [B], int64, the label that the oracle sees, or `NONE` for none of them.
        members: the judgement of each member by its name, if the oracle is a panel.
    """

    probabilities: "Tensor"
    score: "Tensor"
    labels: "Tensor | None" = None
    members: "Mapping[str, Judgement]" = MappingProxyType({})

    @property
    def decided(self) -> "Tensor":
        """The label that the oracle sees in each image, or `NONE`: [B], int64."""
        return self.probabilities.argmax(1) if self.labels is None else self.labels


class Oracle(ABC):
    """The oracle h: judges images [B, 3, H, W] in [0, 1], each by itself, without gradient.

    Attributes:
        derived: names of attributes that are computed, for example from the labels. All other tensors in attributes,
            lists and mappings are weights, and are digested.
        member_names: names of a panel's members, in the order of its judgements' `members`.
        needs_originals: whether it compares images with their originals.
    """

    derived: tuple[str, ...] = ()
    member_names: tuple[str, ...] = ()
    needs_originals: bool = False

    @property
    def deciding(self) -> "Oracle":
        """The oracle whose probabilities are reported: itself, or a panel's first member if others only have a veto."""
        return self

    def set_labels(self, labels: "Labels") -> None:  # noqa: B027 - an oracle that knows its labels needs nothing here
        """Prepare to judge over these K labels. Called once, before the first `judge`."""

    @abstractmethod
    def judge(self, images: "Tensor", originals: Originals | None = None) -> Judgement:
        """Return the judgement of each image over the labels.

        Args:
            images: [B, 3, H, W] in [0, 1], on the 8-bit grid.
            originals: the original of each image, for an oracle that compares the two. When an original is judged, it
                is passed here too. Jobs always pass them.

        Returns:
            Probabilities and scores, [B, K] each, and optionally labels and members.
        """

    def logits(self, images: "Tensor") -> "Tensor":
        """Return the logits behind `judge`, differentiable in the images, for attacks on the oracle itself (App. L).

        Args:
            images: [B, 3, H, W] in [0, 1].

        Returns:
            [B, K].

        Raises:
            UserError: this oracle has no gradient.
        """
        raise UserError(f"oracle: a {type(self).__name__} has no gradient, so it can't be attacked")
