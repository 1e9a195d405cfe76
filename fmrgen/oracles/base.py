"""The oracle h: images to a judgement over the job's labels."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from fmrgen.labels import Labels


class Judgement(NamedTuple):
    """`probabilities` [B, K] decide; `score` [B, K] is the oracle's own measure (CLIP: cosine similarity)."""

    probabilities: "Tensor"
    score: "Tensor"


class Oracle(ABC):
    """Judges images [B, 3, H, W] in [0, 1], each by itself, without gradient."""

    def set_labels(self, labels: "Labels") -> None:  # noqa: B027 - an oracle that knows its labels needs nothing here
        """Called once, before the first `judge`, with the labels to judge over."""

    @abstractmethod
    def judge(self, images: "Tensor") -> Judgement:
        """The judgement of each image over the labels."""
