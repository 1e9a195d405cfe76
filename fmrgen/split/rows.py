"""One pass over a split for its classifiers: the images in batches, everything else collected on the way."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Value

from fmrgen.config import ComponentConfig
from fmrgen.errors import UserError
from fmrgen.labels import Labels, find_label
from fmrgen.metrics.rows import accepted_as_label
from fmrgen.results.samples import Sampler
from fmrgen.split.classify import MOST_PIXELS, Batch, KeptAnswers, LazyPixels, Pixels
from fmrgen.split.images import ImageSet
from fmrgen.split.judged import Judge
from fmrgen.split.open import Split, check_recorded_rows, reading
from fmrgen.storage.schema import IMAGES, KNOWN_COLUMNS, LABEL

_LISTS = tuple(name for name, column in KNOWN_COLUMNS.items() if column.type.endswith("list"))
_NEEDED_WHOLE = ("label", "valid", "iterations", "queries")  # where they are there, every row has a value


class Reader:
    """The rows of a split: `batches` passes over them once and leaves what is no image in `columns`."""

    def __init__(self, opened: Split, labels: Labels, sampler: Sampler, keep_digests: bool = False) -> None:
        self.opened, self.labels, self.sampler = opened, labels, sampler
        self.images = [name for name in IMAGES if name in opened.features]
        own = opened.provenance is not None and opened.labels is not None
        self.has_own_classes = own and list(labels.names) == list(opened.provenance.labels)  # type: ignore[union-attr]
        self._wanted, self.notes = ["label"], list[str]()
        for name, column in KNOWN_COLUMNS.items():
            feature = opened.features.get(name)
            if feature is None or (column.holds_classes and not self.has_own_classes):
                continue
            if column.can_be(feature):
                self._wanted.append(name)
            else:
                self.notes.append(f"the column {name} is not used, it holds {feature}")
        self._parts: list[dict[str, np.ndarray]] = []
        self.sha256: dict[str, list[str]] = {name: [] for name in self.images if keep_digests}  # of the stored images

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The columns that were passed over, [N] each, under their names; stop reasons as words.

        `id` is there only where it tells all rows apart.
        """
        if not self._parts:
            raise UserError(f"{self.opened.name}: contains no rows")
        columns = _concatenated(self._parts)
        if "id" in columns:
            ids = columns["id"]
            if ids.dtype.kind == "f" or len(np.unique(ids)) < len(ids):  # nulls make floats of it
                del columns["id"]
        return columns

    @property
    def collected(self) -> tuple[Any, ...]:
        """What the pass has left, for another process."""
        return self._parts, self.sha256, self.sampler.samples

    def take(self, collected: tuple[Any, ...]) -> None:
        """Take over what another process has collected."""
        self._parts, self.sha256, self.sampler.samples = collected

    def pass_over(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return some of the columns that are no images, [N] each, without reading an image; those that are not there
        are left out."""
        wanted = [name for name in names if name in self._wanted]
        parts: list[dict[str, np.ndarray]] = []
        row = 0
        with reading(self.opened.name):
            for table in self.opened.dataset.select_columns(wanted).with_format("arrow").iter(4096):
                parts.append({name: self._read_column(table, name, row) for name in wanted})
                row += len(table)
        if not parts:
            raise UserError(f"{self.opened.name}: contains no rows")
        return _concatenated(parts)

    def batches_of(self, rows: np.ndarray, size: int, images: Sequence[str] = ("image",)) -> Iterator[Batch]:
        """Yield the images of some rows, which are given in rising order, about `size` at a time; they are numbered
        anew.

        `images` names the columns that are wanted.
        """
        with reading(self.opened.name):
            first, done = 0, 0
            for table in self.opened.undecoded(images).select_columns([*images]).with_format("arrow").iter(size):
                own = rows[(rows >= first) & (rows < first + len(table))] - first
                if len(own):
                    wanted = {name: table[name].take(pa.array(own)) for name in images}
                    yield Batch(np.arange(done, done + len(own)), partial(decode_images, wanted, self.opened, first))
                done += len(own)
                first += len(table)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the images of all rows, `size` rows at a time."""
        with reading(self.opened.name):
            stream = self.opened.undecoded(self.images)
            row = 0
            for table in stream.select_columns([*self.images, *self._wanted]).with_format("arrow").iter(size):
                part = accepted_as_label({name: self._read_column(table, name, row) for name in self._wanted})
                self._parts.append(part)
                named = {name: pa.array(values) for name, values in part.items() if name not in _LISTS}
                shown = pa.table({name: table[name] for name in self.images} | named)
                self.sampler.add(row, shown, part["label"].tolist(), self.opened.image_of)
                images = {name: table[name] for name in self.images}
                for name, digests in self.sha256.items():
                    digests += [sha256(stored["bytes"]).hexdigest() for stored in images[name].to_pylist()]
                yield Batch(np.arange(row, row + len(table)), partial(decode_images, images, self.opened, row))
                row += len(table)
        if self.opened.provenance is not None:
            ids: list[int] = []
            for part in self._parts:
                ids += part["id"].tolist()
            check_recorded_rows(self.opened, ids)

    def _read_column(self, table: pa.Table, name: str, first_row: int) -> np.ndarray:
        column = table[name]
        if column.null_count and (name in _NEEDED_WHOLE or self.opened.provenance is not None):
            row = first_row + column.is_null().to_pylist().index(True)
            raise UserError(f"{self.opened.name}: row {row} has no {name}; every row needs one")
        if name == "label":
            return self._read_labels(column.to_pylist(), first_row)
        if name == "stop_reason":
            return self._read_words(column.to_pylist(), name)
        if name in _LISTS:
            steps = np.empty(len(column), dtype=object)
            steps[:] = [np.asarray(values.values if values.is_valid else ()) for values in column]
            return steps
        values = column.to_numpy()
        if name == "valid" and not np.isin(values, (0, 1)).all():
            row = first_row + int(np.flatnonzero(~np.isin(values, (0, 1)))[0])
            raise UserError(
                f"{self.opened.name}: row {row}: valid is {values[row - first_row]}, neither true nor false"
            )
        return values.astype(bool) if name == "valid" else values

    def _read_labels(self, values: list[Any], first_row: int) -> np.ndarray:
        words = {value: find_label(value, self.labels) for value in set(values) if isinstance(value, str)}
        labels = [words.get(value, value) for value in values]
        for row, (label, value) in enumerate(zip(labels, values, strict=True), first_row):
            if not isinstance(label, int) or not 0 <= label < len(self.labels):
                raise UserError(
                    f"{self.opened.name}: row {row}: label {value!r} matches none, or several, of the "
                    f"{len(self.labels)} classes ({', '.join(self.labels.names[:3])}, …)"
                )
        return np.array(labels, dtype=np.int64)

    def _read_words(self, values: list[Any], name: str) -> np.ndarray:
        feature = self.opened.features[name]
        names = feature.names if isinstance(feature, ClassLabel) else None
        if names and not all(value is None or 0 <= value < len(names) for value in values):
            raise UserError(f"{self.opened.name}: a {name} is not one of {', '.join(names)}")
        words = [names[value] if names and isinstance(value, int) else str(value) for value in values]
        return np.array(words, dtype=np.str_)


@dataclass(frozen=True)
class NamedClassifier:
    """A classifier, whose network need not be in memory any more.

    Attributes:
        name: as it is called in reports.
        section: of a recipe; None if a module was handed over.
        weights_sha256: digest of its weights; None if it has none.
        class_names: of its outputs, in their order; None if it does not name them.
        training_of: what it is one of several trainings of.
        in_words: whether it is asked in the words of the labels, as an image-text model.
    """

    name: str
    section: ComponentConfig | None
    weights_sha256: str | None
    class_names: Sequence[str] | None
    training_of: str | None = None
    in_words: bool = False


@dataclass(frozen=True)
class Answered:
    """A classifier's answers on a split.

    Attributes:
        answers: by the kind of images: `image`, `original`, `native`, `attacked`.
        has_recorded_weights: whether it is the network that the split was made for.
        left_out: a note if it knows more classes than there are labels.
        notes: on what could not be asked.
    """

    answers: dict[str, KeptAnswers]
    has_recorded_weights: bool
    left_out: str | None
    notes: list[str]


@dataclass
class Classified:
    """A split that was read, with its classifiers' answers.

    Attributes:
        split: that was read.
        labels: that its classifiers answer in.
        rows: its columns without images.
        images: the kinds of images that classifiers are asked about.
        answered: each classifier's answers, by its name.
        judges: those who looked at it besides its oracle.
        valid: bool [N], which rows are valid by the judge `valid_by`; None if the oracle decides.
        valid_by: the judge whose verdict counts.
        notes: what a reader of the figures must know.
    """

    split: Split
    labels: Labels
    rows: Reader
    images: dict[str, ImageSet]
    answered: dict[str, Answered] = field(default_factory=dict)
    judges: list[Judge] = field(default_factory=list)
    valid: np.ndarray | None = None
    valid_by: str | None = None
    notes: list[str] = field(default_factory=list)


def decode_images(images: Mapping[str, pa.ChunkedArray], opened: Split, first_row: int) -> dict[str, list[LazyPixels]]:
    """Return the images of some rows; those that do not fit into `MOST_PIXELS` beside the others are left to be
    decoded."""
    decoded: dict[str, list[LazyPixels]] = {}
    room = MOST_PIXELS
    for name, column in images.items():
        decoded[name] = []
        for row, value in enumerate(column.to_pylist(), first_row):
            decode = partial(_pixels, opened, value, f"row {row}: its {name}")
            if room > 0:
                decoded[name].append(image := decode())
                room -= image.shape[0] * image.shape[1]
            else:
                decoded[name].append(decode)
    return decoded


def _pixels(opened: Split, stored: dict[str, Any] | None, title: str) -> Pixels:
    return np.asarray(opened.decode(stored, title))


def _concatenated(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return columns [N] of parts of them, in order."""
    columns = {}
    for name in parts[0]:
        columns[name] = np.concatenate([part[name] for part in parts])
    return columns


def check_columns(opened: Split) -> None:
    """Raise UserError where the split's columns are not what an evaluation can use."""
    features = opened.features
    for name in ("image", "label"):
        if name not in features:
            raise UserError(
                f"{opened.name}: has no column {name}, only {', '.join(features)}; rename the one that is meant"
            )
    for name in IMAGES:
        if isinstance(features.get(name), Value) and "binary" not in features[name].dtype:
            raise UserError(f"{opened.name}: column {name} holds {features[name].dtype}, no images")
    if not isinstance(features["label"], ClassLabel) and not LABEL.can_be(features["label"]):
        raise UserError(f"{opened.name}: column label holds no class indices and no names of classes")
