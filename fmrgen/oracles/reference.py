"""Judges whether an image still looks like its original to a vision model, as CNS-Bench filters; without classes."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from fmrgen.config import Revision
from fmrgen.engine.interfaces import NONE, Judgement, Oracle, Originals
from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.oracles.base import OracleConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_ORIGINALS_AT_ONCE = 16  # always filled up: the features of a row must not depend on the number of rows


class Config(OracleConfig):
    """`model` is a folder, an asset or a Hub id of a vision model, as DINOv2, DINOv3 or a CLIP."""

    PLACES = ("model",)

    kind: str = "reference"
    model: str = "facebook/dinov2-base"
    revision: Revision = None
    threshold: float = Field(
        0.7, gt=-1, lt=1, description="lowest cosine between the features of image and original that counts as the same"
    )

    def build(self, device: "torch.device | str" = "cpu") -> "ReferenceOracle":
        from transformers import AutoModel

        from fmrgen.weights.checkpoint import freeze
        from fmrgen.weights.pretrained import image_processor, pretrained_model

        load: dict[str, Any] = {"reference": self.model, "key": "oracle.model", "revision": self.revision}
        model = freeze(pretrained_model(AutoModel, **load).float(), device)
        return ReferenceOracle(model, image_processor(**load), self.threshold)


class ReferenceOracle(Oracle):
    """Decides for the label of the original if the cosine of their features is at least `threshold`, else for `NONE`.

    It does not distinguish classes: the score of the original's label is that cosine, its probability likewise (0 if
    negative); those of all other labels are 0. So it belongs into a panel, with a judge that knows classes.
    """

    derived = ("_seen", "_features_seen")
    needs_originals = True

    def __init__(self, model: Any, processor: Any, threshold: float) -> None:
        self.model = model
        self.processor = processor
        self.threshold = threshold
        self._classes = 0
        self._seen: Tensor | None = None  # the originals of the last call; most are those of the next call too
        self._features_seen: Tensor | None = None

    def set_labels(self, labels: Labels) -> None:
        self._classes = len(labels)

    def judge(self, images: "Tensor", originals: Originals | None = None) -> Judgement:
        import torch

        if not self._classes:
            raise UserError("oracle: does not know its labels yet; call set_labels(fmrgen.Labels(names)) first")
        if originals is None:
            raise UserError("oracle: compares images with their originals; pass both, judge(images, originals)")
        with torch.no_grad():
            cosines = (self._features(images) * self._features_of(originals.images)).sum(1)
        score = cosines.new_zeros(len(images), self._classes).scatter(
            1, originals.labels.unsqueeze(1), cosines.unsqueeze(1)
        )
        labels = originals.labels.masked_fill(cosines < self.threshold, NONE)
        return Judgement(score.clamp(min=0), score, labels)

    def _features_of(self, originals: "Tensor") -> "Tensor":
        """Return the features [B, D] of originals.

        Those of the last call are not computed again: an image stays in its row for many calls.
        """
        import torch

        features = None
        changed = torch.ones(len(originals), dtype=torch.bool, device=originals.device)
        if self._seen is not None and self._features_seen is not None and self._seen.shape == originals.shape:
            features = self._features_seen.clone()
            changed = (self._seen != originals).flatten(1).any(1)
        rows = changed.nonzero().flatten().tolist()
        for start in range(0, len(rows), _ORIGINALS_AT_ONCE):
            batch = rows[start : start + _ORIGINALS_AT_ONCE]
            padding = batch[-1:] * (_ORIGINALS_AT_ONCE - len(batch))
            batch_features = self._features(originals[batch + padding])[: len(batch)]
            if features is None:
                features = batch_features.new_empty(len(originals), batch_features.shape[1])
            features[batch] = batch_features
        assert features is not None
        self._seen = originals.clone()
        self._features_seen = features
        return features

    def _features(self, images: "Tensor") -> "Tensor":
        """Return the features [B, D] of images, of length 1."""
        from torch.nn.functional import normalize

        from fmrgen.engine.images import to_bytes
        from fmrgen.oracles._image_text import in_full_precision

        inputs = self.processor(images=to_bytes(images), return_tensors="pt").to(self.model.device)
        with in_full_precision():
            if hasattr(self.model, "get_image_features"):
                features = self.model.get_image_features(**inputs).pooler_output
            else:
                features = self.model(**inputs).pooler_output
        return normalize(features, dim=-1)
