"""What the engine needs of a generator and an oracle: the two that it calls in every pass."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from fmrgen.labels import Labels


class Latents(NamedTuple):
    """`free` [B, …] is what a step may move; `fixed` [B, …] or None is context of each image that it may not."""

    free: "Tensor"
    fixed: "Tensor | None" = None


class Generator(ABC):
    """The generator g: encodes images to latents and decodes latents to images, each row by itself.

    Attributes:
        image_size: side of its images in pixels.
        row_seeds: set before each `encode` to one integer per row, made of the recipe's seed and the example's id:
            anything random is drawn from it, for instance by `noise`.
        derived: names of attributes that are computed from others. All other tensors in attributes, lists and mappings
            are its weights, and are digested.
        encode_is_dear: whether `encode` takes so long that what it finds is worth keeping on disk.
    """

    derived: tuple[str, ...] = ()
    encode_is_dear: bool = False
    image_size: int
    row_seeds: Sequence[int] = ()

    @abstractmethod
    def encode(self, images: "Tensor", labels: "Tensor") -> Latents:
        """The latents of images. Runs without gradient, once per image, and may be slow.

        Args:
            images: [B, 3, H, W] in [0, 1], H = W = `image_size`.
            labels: [B], int64.

        Returns:
            Latents with B rows.
        """

    def encode_quickly(self, images: "Tensor", labels: "Tensor") -> Latents:
        """Latents of the shapes that `encode` gives, however poor, for a trial; `encode`, unless that is slow."""
        return self.encode(images, labels)

    @abstractmethod
    def decode(self, latents: Latents) -> "Tensor":
        """The images of latents, differentiably.

        Args:
            latents: B rows of what `encode` returned, `free` moved.

        Returns:
            [B, 3, H, W] in [0, 1]; gradients reach `latents.free`.
        """

    def project(self, latents: Latents, start: "Tensor") -> "Tensor":
        """Where `free` is to be after a step; as it is, unless a generator knows where its latents belong.

        Args:
            latents: B rows, `free` as the step has left it.
            start: `free` as `encode` found it, of the same shape.

        Returns:
            `free`, of the same shape, each row by itself.
        """
        return latents.free

    def noise(self, like: "Tensor") -> "Tensor":
        """Standard normal noise, row i drawn from `row_seeds[i]` alone (from i where no seeds are set).

        Args:
            like: [B, …], whose shape, dtype and device the noise has.

        Returns:
            Noise of the shape of `like`.
        """
        import torch

        seeds = self.row_seeds or range(len(like))
        rows = [
            torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(seed), dtype=like.dtype)
            for _, seed in zip(like, seeds, strict=True)
        ]
        return torch.stack(rows).to(like.device)


NONE = -1  # the label of an image in which an oracle sees none of the classes


class Originals(NamedTuple):
    """What images were made of: `images` [B, 3, H, W] in [0, 1], and their `labels` [B]."""

    images: "Tensor"
    labels: "Tensor"


class Judgement(NamedTuple):
    """What an oracle says of B images over K labels.

    Attributes:
        probabilities: [B, K]; unless `labels` say otherwise, the highest decides.
        score: [B, K], the oracle's own measure (CLIP: cosine similarity).
        labels: [B], int64, what it sees, `NONE` where that is not one of the labels.
        members: of a panel the judgement of each member, by its name.
    """

    probabilities: "Tensor"
    score: "Tensor"
    labels: "Tensor | None" = None
    members: "Mapping[str, Judgement]" = MappingProxyType({})

    @property
    def decided(self) -> "Tensor":
        """What the oracle sees: a label or `NONE`, [B], int64."""
        return self.probabilities.argmax(1) if self.labels is None else self.labels


class Oracle(ABC):
    """The oracle h: judges images [B, 3, H, W] in [0, 1], each by itself, without gradient.

    Attributes:
        derived: names of attributes that are computed from others, as from the labels. All other tensors in attributes,
            lists and mappings are its weights, and are digested.
        member_names: of a panel, in the order of its judgements' `members`.
        needs_originals: whether it looks at the originals of images, and not at the images alone.
    """

    derived: tuple[str, ...] = ()
    member_names: tuple[str, ...] = ()
    needs_originals: bool = False

    @property
    def deciding(self) -> "Oracle":
        """What its probabilities are of: itself, or of a panel in which others only have a veto the first member."""
        return self

    def set_labels(self, labels: "Labels") -> None:  # noqa: B027 - an oracle that knows its labels needs nothing here
        """Called once, before the first `judge`, with the K labels to judge over."""

    @abstractmethod
    def judge(self, images: "Tensor", originals: Originals | None = None) -> Judgement:
        """The judgement of each image over the labels.

        Args:
            images: [B, 3, H, W] in [0, 1], on the 8-bit grid.
            originals: what each image was made of, for an oracle that compares; most look at the images alone. Where
                originals themselves are judged, they are their own. Jobs always tell them.

        Returns:
            Probabilities and scores, [B, K] each, and what else it has to say.
        """

    def logits(self, images: "Tensor") -> "Tensor":
        """What `judge` is the softmax of, with gradients to the images: for attacks on the oracle itself (App. L).

        Args:
            images: [B, 3, H, W] in [0, 1].

        Returns:
            [B, K].

        Raises:
            UserError: this oracle tells no gradient.
        """
        from fmrgen.errors import UserError

        raise UserError(f"oracle: a {type(self).__name__} has no gradient, so it can't be attacked")
