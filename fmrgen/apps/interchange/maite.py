"""Splits and classifiers as tools of the MAITE family take them, and their models as classifiers.

MAITE's protocols are structural, so nothing here needs the package.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from datasets import Value
from torch import Tensor, nn

from fmrgen.classifiers.base import Classifier
from fmrgen.engine.images import to_bytes
from fmrgen.errors import UserError
from fmrgen.split.open import open_split

Pixels = Literal["bytes", "floats"]
_ROUNDING = 1e-3
_PLAIN = ("bool", "int32", "int64", "float32", "float64", "string")


class MaiteDataset:
    """A split as a MAITE dataset for image classification: `dataset[i]` is (image, target, metadata).

    Images are [3, H, W], uint8, or with `pixels="floats"` float32 in [0, 1]; targets are one-hot, float32 [K]. The
    metadata of an image are its `id` and the plain columns of its row. Rows stay in memory as stored, and are decoded
    on access.

    Args:
        split: what `open_split` takes.
        column: `image`, or `original`.
        only_valid: leave out rows that are not valid, which do not count in PA.
        pixels: `bytes` or `floats`.

    Raises:
        UserError: this is not a split, its labels have no names, or it has no such column.
    """

    def __init__(self, split: Any, *, column: str = "image", only_valid: bool = True, pixels: Pixels = "bytes") -> None:
        self._opened, self._column, self._pixels = open_split(split), column, pixels
        features, name = self._opened.features, self._opened.name
        for wanted in (column, "label"):
            if wanted not in features:
                raise UserError(f"{name}: has no column {wanted}; choose from {', '.join(features)}")
        labels = self._opened.labels
        if labels is None:
            raise UserError(f"{name}: its labels have no names; give a split whose label column is a ClassLabel")
        self._plain = []  # columns of single values, which go along as metadata
        for key, feature in features.items():
            if isinstance(feature, Value) and feature.dtype in _PLAIN:
                self._plain.append(key)
        rows = self._opened.stored_rows([column], [column, "label", *self._plain])
        self._rows = [row for row in rows if not only_valid or row.get("valid", True)]
        self._classes = len(labels)
        self.metadata: dict[str, Any] = {"id": name, "index2label": dict(enumerate(labels.names))}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        row = self._rows[index]
        metadata = {"id": index} | {key: row[key] for key in self._plain}
        label = row["label"]
        if label is None or not 0 <= label < self._classes:
            raise UserError(
                f"{self._opened.name}: id {metadata['id']}: its label is not one of the {self._classes} classes"
            )
        image = np.asarray(self._opened.decode(row[self._column], f"id {metadata['id']}: its {self._column}"))
        image = image.transpose(2, 0, 1)
        if self._pixels == "floats":
            image = image.astype(np.float32) / 255
        return image, np.eye(self._classes, dtype=np.float32)[label], metadata


class MaiteModel:
    """A classifier as a MAITE model for image classification: a batch of images [3, H, W] to probabilities [K] each.

    Args:
        classifier: images [B, 3, H, W] in [0, 1] to logits [B, K], in evaluation mode.
        name: the model's id.
        class_names: names of the outputs; by default the classifier's own.
        pixels: range of the images: `bytes` from 0 to 255, or `floats` from 0 to 1.
    """

    def __init__(
        self, classifier: nn.Module, name: str, class_names: Sequence[str] | None = None, pixels: Pixels = "bytes"
    ) -> None:
        self._classifier, self._scale = classifier.eval(), 255 if pixels == "bytes" else 1
        names = class_names or getattr(classifier, "class_names", None) or ()
        self.metadata: dict[str, Any] = {"id": name, "index2label": dict(enumerate(names))}

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Any], /) -> list[np.ndarray]:
        if not len(batch):
            return []
        parameter = next(self._classifier.parameters(), torch.empty(0))
        images = []
        for image in batch:
            pixels = torch.tensor(np.asarray(image), dtype=torch.float32, device=parameter.device)
            images.append(pixels / self._scale)
        if len({image.shape for image in images}) == 1:
            return list(self._classifier(torch.stack(images)).softmax(1).cpu().numpy())
        return [self._classifier(image[None]).softmax(1)[0].cpu().numpy() for image in images]


def classifier_of_maite(model: Callable[..., Any], pixels: Pixels = "bytes") -> Classifier:
    """Return a MAITE model for image classification as a classifier to evaluate. It has no gradient.

    Its outputs for an image count as probabilities if none is negative and they sum to 1, otherwise as logits.

    Args:
        model: maps a batch of images [3, H, W] to outputs [K] each; its `metadata` may have `index2label`.
        pixels: range that the model expects: `bytes` from 0 to 255, or `floats` from 0 to 1.
    """
    index_to_label = (getattr(model, "metadata", None) or {}).get("index2label") or {}
    names = []
    if sorted(index_to_label) == list(range(len(index_to_label))):
        names = [str(index_to_label[index]) for index in range(len(index_to_label))]
    return Classifier(_OfMaite(model, pixels), lambda images: images, names or None).eval()


class _OfMaite(nn.Module):
    """`forward` takes images [B, 3, H, W] in [0, 1] and returns logits [B, K]."""

    def __init__(self, model: Callable[..., Any], pixels: Pixels) -> None:
        super().__init__()
        self._model, self._pixels = model, pixels

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        pixels = to_bytes(images) if self._pixels == "bytes" else images
        rows = [np.asarray(answer, np.float32) for answer in self._model(list(pixels.cpu().numpy()))]
        answers = torch.from_numpy(np.stack(rows)).to(images.device)
        are_probabilities = (answers >= 0).all(1) & ((answers.sum(1) - 1).abs() < _ROUNDING)
        return torch.where(are_probabilities.unsqueeze(1), answers.log(), answers)
