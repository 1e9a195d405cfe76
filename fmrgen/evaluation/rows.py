"""One pass over a split for its classifiers: the images in batches, everything else collected on the way."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Image, Value
from torch import nn

from fmrgen.errors import UserError
from fmrgen.evaluation.classify import Batch, Pixels, Predictions
from fmrgen.evaluation.samples import Sampler
from fmrgen.labels import Labels, plain
from fmrgen.reading import OpenedSplit, reading
from fmrgen.sections import ComponentConfig
from fmrgen.sources.images import open_rgb, stored_image

IMAGES = ("image", "original")
# Columns whose numbers are classes; they are used only where it is certain that they number the split's labels.
_CLASSES = ("oracle_label", "original_oracle_label", "prediction", "original_prediction", "reconstruction_prediction")
_MEASURES = ("clip_score", "oracle_probability", "loss")
_NEEDED_WHOLE = ("label", "valid", "iterations")  # where they are there, every row has a value


class SplitRows:
    """The rows of a split: `batches` passes over them once and leaves what is no image in `columns`."""

    def __init__(self, opened: OpenedSplit, labels: Labels, sampler: Sampler | None) -> None:
        self.opened, self.labels, self.sampler = opened, labels, sampler
        self.images = [name for name in IMAGES if name in opened.features]
        own = opened.provenance is not None and opened.labels is not None
        self.has_own_classes = own and list(labels.names) == opened.provenance["labels"]  # type: ignore[index]
        wanted = ["label", "id", "valid", "iterations", "stop_reason", *_MEASURES]
        wanted += _CLASSES if self.has_own_classes else ()
        self._wanted = [name for name in wanted if name in opened.features]
        self._parts: list[dict[str, np.ndarray]] = []

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The columns that were passed over, [N] each, under their names; stop reasons as words.

        `id` is there only where it tells all rows apart.
        """
        if not self._parts:
            raise UserError(f"{self.opened.name}: holds no rows")
        columns = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        if "id" in columns and (columns["id"].dtype.kind != "i" or len(np.unique(columns["id"])) < len(columns["id"])):
            del columns["id"]
        return columns

    def batches(self, size: int) -> Iterator[Batch]:
        """The images of all rows, `size` rows at a time."""
        stream = self.opened.dataset
        with reading(self.opened.name):
            for name in self.images:
                stream = stream.cast_column(name, Image(decode=False))
            row = 0
            for table in stream.select_columns([*self.images, *self._wanted]).with_format("arrow").iter(size):
                part = {name: self._read_column(table, name, row) for name in self._wanted}
                self._parts.append(part)
                if self.sampler is not None:
                    shown = pa.table({n: table[n] for n in self.images} | {n: pa.array(v) for n, v in part.items()})
                    self.sampler.look(row, shown, part["label"].tolist())
                images = {name: table[name] for name in self.images}
                yield Batch(np.arange(row, row + len(table)), partial(_decode, images, self.opened.name, row))
                row += len(table)

    def _read_column(self, table: pa.Table, name: str, first_row: int) -> np.ndarray:
        column = table[name]
        if name in _NEEDED_WHOLE and column.null_count:
            row = first_row + column.is_null().to_pylist().index(True)
            raise UserError(f"{self.opened.name}: row {row} has no {name}; every row needs one")
        if name == "label":
            return self._read_labels(column.to_pylist(), first_row)
        if name == "stop_reason":
            return self._read_words(column.to_pylist(), name)
        return column.to_numpy()

    def _read_labels(self, values: list[Any], first_row: int) -> np.ndarray:
        place = {plain(name): index for index, name in enumerate(self.labels.names)}
        found = [place.get(plain(value), -1) if isinstance(value, str) else value for value in values]
        for row, (label, value) in enumerate(zip(found, values, strict=True), first_row):
            if not isinstance(label, int) or not 0 <= label < len(self.labels):
                raise UserError(
                    f"{self.opened.name}: row {row}: label {value!r} is none of the {len(self.labels)} classes "
                    f"({', '.join(self.labels.names[:3])}, …)"
                )
        return np.array(found, dtype=np.int64)

    def _read_words(self, values: list[Any], name: str) -> np.ndarray:
        feature = self.opened.features[name]
        names = feature.names if isinstance(feature, ClassLabel) else None
        words = [names[value] if names and isinstance(value, int) else str(value) for value in values]
        return np.array(words, dtype=np.str_)


@dataclass(frozen=True)
class NamedClassifier:
    """A classifier on its device, in evaluation mode; `section` is None where a module was given."""

    name: str
    module: nn.Module
    section: ComponentConfig | None

    @property
    def names_its_classes(self) -> bool:
        return getattr(self.module, "class_names", None) is not None


@dataclass
class ClassifiedSplit:
    """A split after all classifiers saw it.

    `answering` are the classifiers made to answer in `labels`, `image_size` is (height, width) of its first image,
    `notes` say what a reader of the figures must know.
    """

    split: OpenedSplit
    labels: Labels
    rows: SplitRows
    answering: dict[str, nn.Module]
    predictions: Predictions
    image_size: tuple[int, int]
    notes: list[str] = field(default_factory=list)


def _decode(images: Mapping[str, pa.ChunkedArray], split: str, first_row: int) -> dict[str, list[Pixels]]:
    decoded: dict[str, list[Pixels]] = {}
    for name, column in images.items():
        decoded[name] = []
        for row, value in enumerate(column.to_pylist(), first_row):
            try:
                decoded[name].append(np.asarray(open_rgb(stored_image(value))))
            except UserError as error:
                raise UserError(f"{split}: row {row}: its {name} is unreadable ({error})") from None
    return decoded


def check_columns(opened: OpenedSplit) -> None:
    """Raises UserError where the split's columns are not what an evaluation can use."""
    features = opened.features
    for name in ("image", "label"):
        if name not in features:
            raise UserError(
                f"{opened.name}: has no column {name}, only {', '.join(features)}; rename the one that is meant"
            )
    for name in ("image", "original"):
        if isinstance(features.get(name), Value) and features[name].dtype != "binary":
            raise UserError(f"{opened.name}: column {name} holds {features[name].dtype}, no images")
    label = features["label"]
    if not isinstance(label, ClassLabel) and not (
        isinstance(label, Value) and label.dtype.startswith(("int", "uint", "string", "large_string"))
    ):
        raise UserError(f"{opened.name}: column label holds no class indices and no names of classes")
