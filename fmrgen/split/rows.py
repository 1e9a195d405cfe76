"""A split: its rows, its columns and images, and what a classifier predicts for these."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from datasets import ClassLabel, Features, Image, IterableDataset, Value
from PIL import Image as PILImage

from fmrgen.distributed.launch import Sharing
from fmrgen.engine.images import to_batch
from fmrgen.errors import UserError, one_line
from fmrgen.files import is_inside
from fmrgen.image_files import lies_in_repo, open_rgb, path_inside, stored_image
from fmrgen.labels import Labels, find_label
from fmrgen.metrics.grouping import Grouping
from fmrgen.metrics.rows import accepted_as_label
from fmrgen.recipe.build import names_of_outputs
from fmrgen.recipe.objects import AnyClassifier
from fmrgen.split.classify import MOST_PIXELS, Batch, LazyPixels, Pixels, Predicted, classify
from fmrgen.split.models import LoadedClassifier
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance
from fmrgen.storage.schema import IMAGES, KNOWN_COLUMNS, LABEL, OWN_COLUMNS, are_whole
from fmrgen.trust.parquet import FILES_CURE

_LISTS = tuple(name for name, column in KNOWN_COLUMNS.items() if column.type.endswith("list"))
_RECORDS = tuple(name for name, column in KNOWN_COLUMNS.items() if column.type == "attacks")
_NEEDED_WHOLE = ("label", "valid", "iterations", "queries")  # where they are there, every row has a value
_ROWS = 4096  # read at a time, where no images are


class Part(NamedTuple):
    """Some rows of a split, from `first_row` on: `columns` [n] by their names, and the `table` that they were read
    from, with images and other columns as they are stored."""

    first_row: int
    columns: dict[str, np.ndarray]
    table: pa.Table

    def values(self, place: int) -> dict[str, Any]:
        """Return the values of one of the rows, without images and the records of attacks."""
        row = {name: values[place] for name, values in self.columns.items() if name not in _RECORDS}
        return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()}


@dataclass(frozen=True, repr=False)
class Split:
    """A split: its rows, as a stream of what its files hold now, and where they come from.

    `columns()` has what is no image, `images()` the images, `predictions(classifier)` what a classifier says of them;
    `tables()` has all of it as it is stored.

    Attributes:
        name: how the split is called from here on.
        dataset: the stream of its rows, images decoded.
        provenance: what fmrgen recorded when it generated the split; None if fmrgen did not make it.
        repo: the folder or the Hub repo that holds it; None for single files and datasets in memory.
        revision: the commit on the Hub; None for a folder.
        config: of the split in its folder or repo.
        split: likewise.
        opened_by_caller: whether it is a dataset that was handed over as an object.
        rows_in_files: the number of rows that the files of a split by fmrgen have, whatever its provenance says.
    """

    name: str
    dataset: IterableDataset
    provenance: Provenance | None = None
    repo: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str | None = None
    opened_by_caller: bool = False
    rows_in_files: int = 0

    def __repr__(self) -> str:
        rows = "rows unknown" if self.rows is None else f"{self.rows} rows"
        return f"<Split {self.name}: {rows}, columns {', '.join(self.features)}>"

    @property
    def features(self) -> Features:
        return self.dataset.features

    @property
    def paths(self) -> SplitPaths:
        """Where it lies in its folder or, under the name of that, in its repo."""
        return SplitPaths(Path(str(self.repo)), str(self.config), str(self.split))

    def image_of(self, stored: dict[str, Any] | None) -> bytes | str:
        """Return the bytes of a stored image, or the place of its file where that lies in the split's own folder, or in
        the commit of its repo.

        Raises UserError for any other: a stranger's rows must not name files of this machine, or other hosts. Datasets
        that were opened by the caller are the caller's.
        """
        image = stored_image(stored)
        if isinstance(image, bytes) or self.opened_by_caller:
            return image
        if (place := path_inside(image, self._holds)) is None:
            raise UserError(f"its file is not in the split: {image}")
        return place

    def _holds(self, file: str) -> bool:
        """Return whether a path or an address is that of a file in the split's own folder or commit."""
        if self.repo is None:
            return False
        if self.revision is None:
            return "://" not in file and is_inside(Path(file), Path(self.repo))
        return lies_in_repo(file, self.repo, self.revision)

    def decode(self, stored: dict[str, Any] | None, title: str) -> PILImage.Image:
        """Return a stored image as 8-bit RGB. Raises UserError, which calls it `title`, if it is none or lies
        elsewhere."""
        size = None if self.provenance is None else self.provenance.image_size
        try:
            return open_rgb(self.image_of(stored), size)
        except UserError as error:
            raise UserError(f"{self.name}: {title} is unreadable ({error}); repair that row, or remove it") from None

    def tables(self, size: int = _ROWS, columns: Iterable[str] | None = None) -> Iterator[pa.Table]:
        """Yield all rows in their order, `size` at a time, as they are stored.

        Args:
            size: rows at a time; the last table may have fewer.
            columns: those to read; by default all. Of a split that fmrgen generated, `id` comes with them.

        Raises:
            UserError: a file can't be read, or the files of a split that fmrgen generated hold other rows than its
                provenance says. What a caller does with odd values is its own: `reading` makes that an error too.
        """
        names = list(dict.fromkeys(self.features if columns is None else columns))
        if self.provenance is not None and "id" not in names:
            names.append("id")
        stream = self.dataset
        for name in self.image_columns:
            if name in names:
                stream = stream.cast_column(name, Image(decode=False))
        ids: list[int] = []
        with reading(self.name):
            for table in stream.select_columns(names).with_format("arrow").iter(size):
                if self.provenance is not None:
                    ids += table["id"].to_pylist()
                yield table
        if self.provenance is not None:
            self._check_recorded_rows(self.provenance, ids)

    def _check_recorded_rows(self, provenance: Provenance, ids: Sequence[int]) -> None:
        """Raise UserError where the files hold other rows than the provenance says; `ids` are those of all rows."""
        if len(ids) != provenance.rows:
            raise UserError(
                f"{self.name}: its files have {len(ids)} rows and its provenance says {provenance.rows}; {FILES_CURE}"
            )
        repeated = [example_id for example_id, count in Counter(ids).items() if count > 1]
        if repeated:
            raise UserError(f"{self.name}: its files contain id {repeated[0]} twice; {FILES_CURE}")

    def groupings(self, by: Sequence[str]) -> list[Grouping]:
        """Return groupings of the rows from their short forms. Raises UserError for no such column, or one twice."""
        groupings = [Grouping.of_short_form(text) for text in by]
        names = [grouping.column for grouping in groupings]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"by: the column {name} is named twice; name it once")
            if name not in self.features:
                raise UserError(f"by: {self.name} has no column {name} (it has: {', '.join(self.features)})")
        return groupings

    def decoded(self, batch: Mapping[str, list[Any]]) -> dict[str, np.ndarray]:
        """Return the images of a batch of stored rows by column, uint8 [B, H, W, 3] each, all of one size.

        Raises UserError if an image is unreadable, a row lacks a value, or its label is not one of the classes.
        """
        self._check_values(batch)
        pixels = {}
        for name in self.image_columns:
            stored = zip(batch["id"], batch[name], strict=True)
            pixels[name] = np.stack([self._pixels(image, f"id {row}: its {name}") for row, image in stored])
        return pixels

    def _check_values(self, batch: Mapping[str, list[Any]]) -> None:
        classes = len(self.labels or ())
        if self.provenance is not None:
            classes = len(self.provenance.labels)
        for i, example_id in enumerate(batch["id"]):
            for column, values in batch.items():
                if values[i] is None and column in OWN_COLUMNS:
                    raise UserError(f"{self.name}: id {example_id}: has no {column}; every row needs one")
            accepted = batch.get("accepted_labels", {i: [batch["label"][i]]})[i]
            if accepted[:1] != [batch["label"][i]]:
                raise UserError(f"{self.name}: id {example_id}: its accepted_labels do not begin with its label")
            for label in accepted:
                if label is None or not 0 <= label < classes:
                    raise UserError(f"{self.name}: id {example_id}: label {label} is not one of the {classes} classes")

    @property
    def rows(self) -> int | None:
        """How many rows it has, where that is on record."""
        if self.provenance is not None:
            return self.provenance.rows
        info = (self.dataset.info.splits or {}).get(str(self.dataset.split))
        return None if info is None else info.num_examples or None

    @property
    def labels(self) -> Labels | None:
        """What its label column says; None where the labels have no names."""
        feature = self.features.get("label")
        if not isinstance(feature, ClassLabel):
            return None
        if self.provenance is None or list(feature.names) != list(self.provenance.labels):
            return Labels(tuple(feature.names))
        return self.provenance.job_labels

    @property
    def image_columns(self) -> list[str]:
        """The names of its columns of images."""
        return [name for name in IMAGES if name in self.features]

    @property
    def has_own_classes(self) -> bool:
        """Whether its labels are named as fmrgen recorded them, so that its stored predictions mean these."""
        if self.provenance is None or self.labels is None:
            return False
        return list(self.labels.names) == list(self.provenance.labels)

    def known_columns(self) -> tuple[list[str], list[str]]:
        """Return the names of the columns that can be read, no images, and a note on each that holds something else
        than its name says."""
        names = ["label"]
        notes = []
        for name, column in KNOWN_COLUMNS.items():
            feature = self.features.get(name)
            if feature is None or (column.holds_classes and not self.has_own_classes):
                continue
            if column.can_be(feature):
                names.append(name)
            else:
                notes.append(f"the column {name} is not used, it holds {feature}")
        return names, notes

    def columns(self, names: Iterable[str] | None = None, labels: Labels | None = None) -> dict[str, np.ndarray]:
        """Return columns [N] by their names, without reading an image.

        Stop reasons are words, and a prediction that is another accepted label of its row is the label.

        Args:
            names: those to return, as far as the split has them; by default all that fmrgen knows.
            labels: what the labels mean, for a split that does not name them.

        Raises:
            UserError: there are no rows, or a column holds what it can't.
        """
        return joined_columns(self.name, [part.columns for part in self.parts(labels=labels, names=names)])

    def parts(
        self,
        size: int = _ROWS,
        labels: Labels | None = None,
        stored: Sequence[str] = (),
        names: Iterable[str] | None = None,
    ) -> Iterator[Part]:
        """Yield all rows in their order, `size` at a time.

        Args:
            size: rows at a time; the last part may have fewer.
            labels: what the labels mean, for a split that does not name them.
            stored: columns that are left as they are stored, images among them.
            names: the other columns, as far as the split has them; by default all that fmrgen knows.

        Raises:
            UserError: a file can't be read, or a column holds what it can't.
        """
        wanted, _ = self.known_columns()
        if names is not None:
            wanted = [name for name in names if name in wanted]
        meaning = labels or self.labels or self.observed_labels()
        first_row = 0
        for table in self.tables(size, [*stored, *wanted]):
            with reading(self.name):
                columns = {name: self._read_column(table, name, first_row, meaning) for name in wanted}
            if "label" in columns:
                columns = accepted_as_label(columns)
            yield Part(first_row, columns, table)
            first_row += len(table)

    def images(
        self, columns: Sequence[str] = ("image",), rows: np.ndarray | None = None, size: int = 64
    ) -> Iterator[Batch]:
        """Yield the images of some rows, about `size` at a time, numbered from 0; they are decoded when they are used.

        Args:
            columns: of images.
            rows: in rising order; by default all.
            size: rows that are read at a time.

        Raises:
            UserError: a file can't be read.
        """
        first_row, done = 0, 0
        for table in self.tables(size, columns):
            numbers = np.arange(first_row, first_row + len(table))
            if rows is not None:
                numbers = rows[(rows >= first_row) & (rows < first_row + len(table))]
            if len(numbers):
                wanted = table.select([*columns]).take(pa.array(numbers - first_row))
                yield Batch(np.arange(done, done + len(numbers)), partial(self.decode_images, wanted, numbers))
            done += len(numbers)
            first_row += len(table)

    def predictions(
        self,
        classifiers: Mapping[str, AnyClassifier] | Sequence[LoadedClassifier],
        *,
        columns: Sequence[str] | None = None,
        batch_size: int = 64,
        read: int | None = None,
        processes: Sharing | None = None,
        device: torch.device | str | None = None,
    ) -> dict[str, dict[str, Predicted]]:
        """Return classifiers' predictions for the split's images, by the classifier and the column that these are in.

        Images are decoded once for all of them.

        Args:
            classifiers: by name, modules from images [B, 3, H, W] in [0, 1] to logits [B, K], which are put in
                evaluation mode, or what `fmrgen.load_classifier` takes; or loaded ones.
            columns: of images; by default all.
            batch_size: the most images that a classifier gets at once; they are of one size.
            read: rows that are read together; by default `batch_size`.
            processes: that share the rows; by default this one takes all.
            device: of the classifiers; by default a GPU if there is one.

        Raises:
            UserError: a classifier can't be loaded, can't predict the split's labels, or fails on an image.
        """
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        models = classifiers
        if isinstance(models, Mapping):
            models = [LoadedClassifier.load(name, classifier, place) for name, classifier in models.items()]
        self.check_columns()
        labels = self.labels_for([partial(models.__getitem__, number) for number in range(len(models))], place)
        first = self.first_image(place)
        networks = {model.name: model.in_labels(labels, first, self.name) for model in models}
        truth = self.columns(["label"], labels)["label"]
        batches = self.images(columns or self.image_columns, size=read or batch_size)
        sharing = processes or Sharing()
        return classify(batches, networks, truth.__getitem__, sharing, place, together=batch_size)

    def first_image(self, device: torch.device) -> torch.Tensor:
        """Return its first image, [1, 3, H, W]. Raises UserError where there is none."""
        table = next(self.tables(1, ["image"]), None)
        if table is None:
            raise UserError(f"{self.name}: contains no rows")
        image = self._pixels(table["image"].to_pylist()[0], "row 0: its image")
        return to_batch(image[None], device)

    def labels_for(self, models: Iterable[Callable[[], LoadedClassifier]], device: torch.device) -> Labels:
        """Return its labels; if it does not name them, the class names of the first classifier that does.

        `models` load the classifiers, one after another; those that can't be loaded are skipped, unless none can.
        Raises UserError if neither the split nor a classifier names the labels, or the first image can't be read, by
        which the outputs of a classifier without class names are counted.
        """
        if self.labels is not None:
            return self.labels
        numbered: Labels | None = None
        failure: UserError | None = None
        for load in models:
            try:
                model = load()
            except UserError as error:
                failure = failure or error
                continue
            if model.class_names is not None:
                return Labels(tuple(model.class_names))
            if model.in_words:
                nameless = f"{self.name}: its labels have no names, and none of the classifiers has"
                failure = failure or UserError(nameless)
            elif numbered is None:
                image = self.first_image(device)
                numbered = Labels(tuple(names_of_outputs(model.module, image, f"classifier {model.name}")))
            del model
        if numbered is None:
            raise failure or UserError(f"{self.name}: there is no classifier to name its labels")
        if "string" in self.features["label"].dtype:
            raise UserError(
                f"{self.name}: its labels are strings, and no classifier names its classes; list them, in "
                "the order of its outputs, as class_names of its section"
            )
        return numbered

    def observed_labels(self) -> Labels:
        """Return labels for a split that does not name them: the words in the column, or the numbers up to the highest
        one."""
        values: set[Any] = set()
        for table in self.tables(columns=["label"]):
            values.update(table["label"].unique().to_pylist())
        numbers = [value for value in values if isinstance(value, int)]
        if numbers:
            return Labels(tuple(map(str, range(max(numbers) + 1))))
        return Labels(tuple(sorted(map(str, values))))

    def _read_column(self, table: pa.Table, name: str, first_row: int, labels: Labels) -> np.ndarray:
        column = table[name]
        if column.null_count and (name in _NEEDED_WHOLE or self.provenance is not None):
            row = first_row + column.is_null().to_pylist().index(True)
            raise UserError(f"{self.name}: row {row} has no {name}; every row needs one")
        if name == "label":
            return self._read_labels(column.to_pylist(), first_row, labels)
        if name == "stop_reason":
            return self._read_words(column.to_pylist(), name)
        if name in _LISTS:
            steps = np.empty(len(column), dtype=object)
            steps[:] = [np.asarray(values.values if values.is_valid else ()) for values in column]
            return steps
        if name in _RECORDS:
            return self._read_records(column.to_pylist(), name, first_row)
        values = column.to_numpy()
        if name != "valid":
            return values
        is_wrong = ~np.isin(values, (0, 1))
        if is_wrong.any():
            row = int(is_wrong.argmax())
            raise UserError(f"{self.name}: row {first_row + row}: valid is {values[row]}, neither true nor false")
        return values.astype(bool)

    def _read_records(self, values: list[Any], name: str, first_row: int) -> np.ndarray:
        records = np.empty(len(values), dtype=object)
        for row, row_records in enumerate(values):
            records[row] = row_records or []
            if not are_whole(records[row]):
                raise UserError(f"{self.name}: row {first_row + row}: a part of {name} is missing; every row needs all")
        return records

    def _read_labels(self, values: list[Any], first_row: int, meaning: Labels) -> np.ndarray:
        words = {value: find_label(value, meaning) for value in set(values) if isinstance(value, str)}
        labels = [words.get(value, value) for value in values]
        for row, (label, value) in enumerate(zip(labels, values, strict=True), first_row):
            if not isinstance(label, int) or not 0 <= label < len(meaning):
                raise UserError(
                    f"{self.name}: row {row}: label {value!r} matches none, or several, of the "
                    f"{len(meaning)} classes ({', '.join(meaning.names[:3])}, …)"
                )
        return np.array(labels, dtype=np.int64)

    def _read_words(self, values: list[Any], name: str) -> np.ndarray:
        feature = self.features[name]
        names = feature.names if isinstance(feature, ClassLabel) else None
        if names and not all(value is None or 0 <= value < len(names) for value in values):
            raise UserError(f"{self.name}: a {name} is not one of {', '.join(names)}")
        words = [names[value] if names and isinstance(value, int) else str(value) for value in values]
        return np.array(words, dtype=np.str_)

    def check_columns(self) -> None:
        """Raise UserError where it lacks images or labels, or they are of a kind that can't be used."""
        features = self.features
        for name in ("image", "label"):
            if name not in features:
                raise UserError(
                    f"{self.name}: has no column {name}, only {', '.join(features)}; rename the one that is meant"
                )
        for name in IMAGES:
            if isinstance(features.get(name), Value) and "binary" not in features[name].dtype:
                raise UserError(f"{self.name}: column {name} holds {features[name].dtype}, no images")
        if not isinstance(features["label"], ClassLabel) and not LABEL.can_be(features["label"]):
            raise UserError(f"{self.name}: column label holds no class indices and no names of classes")

    def decode_images(self, images: pa.Table, rows: np.ndarray) -> dict[str, list[LazyPixels]]:
        """Return the images of some rows; those that do not fit into `MOST_PIXELS` are left to be decoded.

        `images` are their columns, as they are stored; `rows` are the numbers of the rows, for messages.
        """
        decoded: dict[str, list[LazyPixels]] = {}
        room = MOST_PIXELS
        for name in images.column_names:
            decoded[name] = []
            for row, value in zip(rows.tolist(), images[name].to_pylist(), strict=True):
                decode = partial(self._pixels, value, (value or {}).get("path") or f"row {row}: its {name}")
                if room > 0:
                    decoded[name].append(image := decode())
                    room -= image.shape[0] * image.shape[1]
                else:
                    decoded[name].append(decode)
        return decoded

    def _pixels(self, stored: dict[str, Any] | None, title: str) -> Pixels:
        return np.asarray(self.decode(stored, title))


def joined_columns(name: str, parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the columns [N] of the split `name`, of parts of them in order. Raises UserError where there are none.

    `id` is among them only where it tells all rows apart.
    """
    if not parts:
        raise UserError(f"{name}: contains no rows")
    columns = {}
    for column in parts[0]:
        columns[column] = np.concatenate([part[column] for part in parts])
    if "id" in columns:
        ids = columns["id"]
        if ids.dtype.kind == "f" or len(np.unique(ids)) < len(ids):  # nulls make floats of it
            del columns["id"]
    return columns


@contextmanager
def reading(name: str, fault: str = "a file of it can't be read") -> Iterator[None]:
    """Make what goes wrong in reading the split `name` an error of its files."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # readers of so many formats, and the network under them, fail in as many ways
        raise UserError(f"{name}: {fault}: {one_line(error)}") from error
