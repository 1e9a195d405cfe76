"""Any dataset that the `datasets` library opens: a Hub id, a local folder, or files of a packaged format."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from itertools import chain, repeat
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from fmrgen.config import HubDataset, Revision, is_repo, paths_among
from fmrgen.errors import UserError, one_line
from fmrgen.errors import chain as causes
from fmrgen.image_files import lies_in_repo, path_inside, stored_image
from fmrgen.labels import Labels, make_labels
from fmrgen.sources._accepted import Accepted, accepted_of
from fmrgen.sources._selection import refuse_selection_of_a_stream, select
from fmrgen.sources.base import RawExample, Source, SourceConfig, StreamedSource, label_of_source
from fmrgen.trust.cards import check_card_stays_inside
from fmrgen.trust.recipes import is_on_the_hub, is_within


class Config(SourceConfig):
    """`path` is what `load_dataset` takes, a folder of `save_to_disk`, or files (`x.parquet`, `folder/*.parquet`).

    Files are the whole `split`, whatever that is called; ids are row numbers within it.

    Image and label columns that are not named are found by their types. Labels that are words are the classes, in
    alphabetical order unless `classes` gives another. A streamed dataset is read without downloading it first; if its
    length is not on record, `limit` must say how much of it to take.

    With `accepted` an example has all labels that are true of it. Its label is its own if that is among them, otherwise
    the first of them; an example is left out if none is true of it, or all are. `timm:imagenet-real` takes the ReaL
    labels (Beyer et al., 2020) by the number in the name of an ImageNet file.
    """

    PLACES = ("path",)

    kind: str = "datasets"
    path: str
    name: str | None = None
    data_files: str | list[str] | None = None
    revision: Revision = None
    split: str = "test"
    image_column: str | None = None
    label_column: str | None = None
    accepted: str | None = Field(
        None,
        description="which labels are true of an image: a column of lists of classes, or `timm:imagenet-real`",
    )
    columns: list[str] = Field(
        [],
        description="further columns of numbers or words that splits store too, such as the width of a sign",
    )
    streaming: bool = False

    @model_validator(mode="after")
    def _sliced_streams_do_not_exist(self) -> "Config":
        if self.streaming and "[" in self.split:
            raise ValueError(f"split {self.split!r}: a streamed split can't be sliced, use limit")
        if self.streaming:
            refuse_selection_of_a_stream(self, "set source.streaming=false")
        return self

    def whole(self) -> "Config":
        return self if self.streaming else super().whole()  # a stream may have no other end

    def check_places(self, section: str) -> None:
        is_files = self.data_files is not None or _builder_of_files(self.path) is not None
        # A path that can only be one of this machine is not looked up on the Hub.
        is_local = self.path.startswith(("/", "./", "../", "~")) or self.path.count("/") > 1
        if not is_files and is_local and not Path(self.path).exists():
            raise UserError(f"{section}.path: {self.path}: no such file or folder")

    def hub_dataset(self) -> HubDataset | None:
        if self.streaming or self.data_files is not None or not is_repo(self.path):
            return None
        import datasets

        with _opening_errors(self):
            arguments = _arguments_of(self)
            builder = datasets.load_dataset_builder(**arguments)
        files = (builder.config.data_files or {}).values()
        paths = [str(file).partition("@")[2].partition("/")[2] for file in chain.from_iterable(files)]
        return HubDataset(self.path, self.revision, paths, Path(builder.cache_dir).exists())

    def build(self, device: object = "cpu") -> Source:
        self.check_places("source")
        return self.open(open_dataset(self))

    def places_it_reads(self) -> list[str]:
        files = [self.data_files] if isinstance(self.data_files, str) else self.data_files or []
        # A name without an owner may be a format's, whose loader reads the folder it is called in.
        outside = [file for file in files if not is_within(file) and not is_on_the_hub(file)]
        return [*super().places_it_reads(), *outside]

    def open(self, dataset: Any) -> Source:
        """Return the source of an opened dataset or stream. Raises UserError if its columns are not clear."""
        from datasets import ClassLabel, Dataset, Image, IterableDataset, Value

        if dataset.features is None:
            dataset = dataset._resolve_features()
        features = dataset.features
        image = _column(features, self.image_column, Image, "image")
        label = _column(features, self.label_column, ClassLabel, "label")
        feature = features[label]
        if not isinstance(feature, ClassLabel | Value):
            raise UserError(f"source.label_column: {label} holds {type(feature).__name__}, no classes")
        names = feature.names if isinstance(feature, ClassLabel) else None
        if names is None and self.classes is None and "string" in feature.dtype and isinstance(dataset, Dataset):
            names = sorted(name for name in dataset.unique(label) if name is not None)
        labels = make_labels(self.classes, names)
        accepted = None if self.accepted is None else accepted_of(self.accepted, features, labels)
        twice = [name for name in self.columns if name in (image, label)]
        if twice:
            raise UserError(f"source.columns: {twice[0]} is a column of every split; rename it in the dataset")
        extra = {name: _type_of_extra(features, name) for name in self.columns}
        columns_to_read = [image, label, *extra]
        if accepted is not None and accepted.column is not None:
            columns_to_read.append(accepted.column)
        try:
            dataset = dataset.cast_column(image, Image(decode=False)).select_columns(columns_to_read)
        except Exception as error:
            raise UserError(f"source.image_column: {image} holds no images: {one_line(error)}") from error
        columns = _Columns(image, label, labels, accepted, extra, self._image_of)
        if isinstance(dataset, IterableDataset):
            return StreamedDataset(dataset, columns, self._length_of(dataset, labels))
        return StoredDataset(dataset, columns, self)

    def _image_of(self, stored: dict[str, Any] | None, example_id: int) -> bytes | str:
        """Return the bytes of an image, or the place of its file.

        A dataset of others on the Hub has its images in its repo: raises UserError for rows that name files of this
        machine or of other hosts.
        """
        image = stored_image(stored)
        if isinstance(image, bytes) or paths_among(self.path):
            return image
        place = path_inside(image, lambda file: lies_in_repo(file, self.path))
        if place is None:
            raise UserError(f"source: id {example_id}: its file is not in {self.path}: {image}")
        return place

    def _length_of(self, stream: Any, labels: Labels) -> int:
        """Return the number of examples of a stream. Raises UserError if neither it nor `limit` is set."""
        info = (stream.info.splits or {}).get(self.split)
        every_row_counts = labels.groups is None and self.accepted is None
        on_record = info.num_examples if info is not None and every_row_counts else None
        lengths = [length for length in (on_record, self.limit) if length is not None]
        if not lengths:
            raise UserError(
                f"source.limit: the length of {self.path} is not known while streaming; set it, or streaming=false"
            )
        return min(lengths)


def open_dataset(config: Config) -> Any:
    """Return the dataset or stream that a config names, opened. Raises UserError if it cannot be opened."""
    import datasets

    with _opening_errors(config):
        folder = Path(config.path)
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(config.path)
            if isinstance(loaded, datasets.Dataset):
                return loaded
            if config.split not in loaded:
                raise UserError(
                    f"source.split: {config.path} has no split {config.split!r}, it has {', '.join(loaded)}"
                )
            return loaded[config.split]
        arguments = _arguments_of(config)
        if "features" in arguments:  # the sizes on its card are those of all splits
            arguments["verification_mode"] = "no_checks"
        return datasets.load_dataset(**arguments, split=config.split, streaming=config.streaming)


def _arguments_of(config: Config) -> dict[str, Any]:
    """Return the arguments with which `datasets` opens the split of a config, and reads no file of other splits."""
    import datasets

    if config.data_files is None and (builder := _builder_of_files(config.path)) is not None:
        return {"path": builder, "data_files": {config.split: config.path}}
    arguments: dict[str, Any] = {"path": config.path, "name": config.name, "revision": config.revision}
    if config.data_files is not None:
        return arguments | {"data_files": config.data_files}
    if paths_among(config.path):
        return arguments
    check_card_stays_inside(config.path, config.revision)  # others' repo on the Hub
    if config.streaming:
        return arguments
    # `load_dataset` downloads every split of a repo to return one.
    opened = datasets.load_dataset_builder(**arguments)
    files: Mapping[str, list[str]] = opened.config.data_files or {}
    wanted = {part.partition("[")[0].strip() for part in config.split.split("+")}
    chosen = {str(name): list(files[name]) for name in files if str(name) in wanted}
    is_parquet = all(str(file).endswith(".parquet") for file in chain.from_iterable(chosen.values()))
    if not chosen or not is_parquet or len(chosen) == len(files):
        return arguments
    return {"path": config.path, "data_files": chosen, "features": opened.info.features}


@contextmanager
def _opening_errors(config: Config) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the loader of each format fails in its own way
        from huggingface_hub.errors import GatedRepoError

        from fmrgen.hub.client import terms_line

        if any(isinstance(link, GatedRepoError) for link in causes(error)):
            raise UserError(f"source.path: {terms_line(config.path, 'dataset')}") from None
        raise UserError(f"source: {config.path}, split {config.split!r}, can't be opened: {one_line(error)}") from None


def _builder_of_files(path: str) -> str | None:
    """Return what `datasets` calls the format of the files that a path or pattern names; None if it names no files.

    Raises UserError if no such file exists.
    """
    builder = PurePath(path).suffix.lower().removeprefix(".")
    if builder not in ("parquet", "arrow") or "://" in path or Path(path).is_dir():
        return None
    if not glob(path):
        raise UserError(f"source.path: {path}: no such file")
    return builder


def _column(features: Any, wanted: str | None, feature_type: type, role: str) -> str:
    """Return the name of a column, `wanted` or the only one of a type. Raises UserError if that is not clear.

    The `role`, `image` or `label`, is also the column's name if no column has the type.
    """
    if wanted is not None:
        if wanted not in features:
            raise UserError(f"source.{role}_column: no column {wanted!r}; choose from {', '.join(features)}")
        return wanted
    candidates = [name for name, feature in features.items() if isinstance(feature, feature_type)]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates and role in features:
        return role
    some = f"it could be any of {', '.join(candidates)}"
    which = some if candidates else f"none of {', '.join(features)} looks like one"
    raise UserError(f"source.{role}_column: name the column of the {role}s; {which}")


def _type_of_extra(features: Any, name: str) -> str:
    """Return the type that splits store a further column in. Raises UserError if there is none that can be stored."""
    from datasets import ClassLabel, Value

    if name not in features:
        raise UserError(f"source.columns: no column {name!r}; choose from {', '.join(features)}")
    feature = features[name]
    if isinstance(feature, ClassLabel):
        return "int64"
    if isinstance(feature, Value):
        for kind, stored in (("int", "int64"), ("float", "float64"), ("string", "string")):
            if kind in feature.dtype:
                return stored
    raise UserError(f"source.columns: {name} holds no numbers or words")


@dataclass(frozen=True)
class _Columns:
    """The columns of a dataset, by their names, and what its rows hold."""

    image: str
    label: str
    labels: Labels
    accepted: Accepted | None  # knows all labels that are true of a row; None if its own is the only one
    extra: Mapping[str, str]  # further columns that splits store, and their types
    image_of: Callable[[dict[str, Any] | None, int], bytes | str]  # an undecoded image and its id → bytes or place

    def complete(self, row: RawExample, entry: Mapping[str, Any]) -> RawExample:
        """Return a row with its image, and the values of the further columns."""
        extra = {name: entry[name] for name in self.extra} or None
        return row._replace(image=self.image_of(entry[self.image], row.id), extra=extra)

    def row(self, number: int, stored_label: Any, value: Any) -> RawExample | None:
        """Return a row with its labels, without its image; None if no label of the job is true of it, or all are.

        `value` is what `accepted` needs of the row.
        """
        label = label_of_source(self.labels, stored_label, number)
        if self.accepted is None:
            return None if label is None else RawExample(number, b"", label)
        true_labels = self.accepted.labels_of(value, label, number)
        if not 0 < len(true_labels) < len(self.labels):
            return None
        return RawExample(number, b"", true_labels[0], true_labels)


class StoredDataset(Source):
    """A dataset on disk, any row at any time; `row_labels` are the labels of all examples, in their order."""

    def __init__(self, dataset: Any, columns: _Columns, config: SourceConfig) -> None:
        self.labels = columns.labels
        self.accepts_several = columns.accepted is not None
        self.columns = columns.extra
        self._dataset = dataset
        self._columns = columns
        rows = select(_stored_examples(dataset, columns), self.labels, config)
        self._rows = np.array([row.id for row in rows], dtype=np.int64)
        self.row_labels = [row.label for row in rows]
        self._accepted = [row.accepted for row in rows] if self.accepts_several else None

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, start: int, stop: int) -> Iterator[RawExample]:
        for position in range(start, min(stop, len(self))):
            row = int(self._rows[position])
            accepted = None if self._accepted is None else self._accepted[position]
            example = RawExample(row, b"", self.row_labels[position], accepted)
            yield self._columns.complete(example, self._dataset[row])


def _stored_examples(dataset: Any, columns: _Columns) -> Iterator[RawExample]:
    """Yield the rows of a dataset on disk that are examples of the job."""
    stored_labels = dataset.with_format(None)[columns.label]
    accepted = repeat(None) if columns.accepted is None else columns.accepted.values(dataset, columns.image)
    for number, (stored_label, value) in enumerate(zip(stored_labels, accepted, strict=False)):
        row = columns.row(number, stored_label, value)
        if row is not None:
            yield row


class StreamedDataset(StreamedSource):
    """A dataset that is streamed, its rows in their order."""

    def __init__(self, stream: Any, columns: _Columns, length: int) -> None:
        super().__init__(columns.labels, length, columns.accepted is not None)
        self.columns = columns.extra
        self._dataset = stream
        self._columns = columns

    def _examples(self, start: int) -> Iterator[RawExample]:
        for number, entry in enumerate(self._dataset.skip(start), start):
            accepted = self._columns.accepted
            value = None if accepted is None else accepted.value_of(entry, self._columns.image)
            row = self._columns.row(number, entry[self._columns.label], value)
            if row is not None:
                yield self._columns.complete(row, entry)
