"""Opening a split to read it: one that fmrgen made, or anyone's rows of images and labels."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, List, Value, load_dataset
from PIL import Image as PILImage

from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb, png_bytes
from fmrgen.recipe.build import build_source
from fmrgen.sources.base import Source, SourceConfig
from fmrgen.sources.imagefolder import Config as ImageFolder
from fmrgen.split.reference import Location, locate, with_chosen_split
from fmrgen.split.rows import Split, reading
from fmrgen.storage.paths import splits_in
from fmrgen.storage.provenance import Provenance
from fmrgen.trust.admit import Admitted, admit
from fmrgen.trust.parquet import FILES_CURE


def open_split(
    split: str | Path | Dataset | IterableDataset, *, name: str | None = None, download: bool = False
) -> Split:
    """Return an opened split: one that fmrgen generated, or any rows of images and labels.

    Args:
        split: a reference (`PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`), a parquet file (a pattern or an address of such),
            a folder with a folder of images for each class, or a dataset in memory.
        name: of the split in results; by default the reference.
        download: fetch what is on the Hub whole before it is read; else it is streamed.

    Returns:
        Its rows as a stream, with its provenance if fmrgen generated it.

    Raises:
        UserError: there is none, it is not finished, or there are several and the reference does not say which.
    """
    if not isinstance(split, str | Path):
        return _in_memory(split, name)
    split = f"{split}"  # the reference alone: `str` of a GeneratedSplit has its figures too
    if has_class_folders(Path(split)):
        return open_source(name or split, ImageFolder(path=split))
    with reading(split, "can't be opened"):
        location = locate(split)
        admitted = admit(location.kind, location.reference.repo, location.commit, location.files)
        location = with_chosen_split(location)
        opened = _read(location, admitted, download)
    return opened if name is None else replace(opened, name=name)


def open_own_split(text: str) -> tuple[Split, Provenance]:
    """Return a split that fmrgen made, and its provenance. Raises UserError where `text` names none."""
    opened = open_split(text)
    if opened.provenance is None:
        raise UserError(f"{text}: contains no perturbed split: it has no provenance of fmrgen")
    return opened, opened.provenance


def _in_memory(dataset: Dataset | IterableDataset, name: str | None) -> Split:
    """Return a dataset that the caller has opened. Raises UserError for anything else."""
    if isinstance(dataset, Mapping):
        raise UserError(f"{name}: holds several splits, {', '.join(dataset)}; give one of them")
    if not isinstance(dataset, Dataset | IterableDataset):
        raise UserError(
            f"{name or 'split'}: a {type(dataset).__name__} is not a split; give a reference, or a datasets.Dataset "
            "with columns image and label; fmrgen.generate makes a split of any dataset"
        )
    if isinstance(dataset, Dataset) and not len(dataset):
        raise UserError(f"{name}: contains no rows")
    stream = dataset.to_iterable_dataset() if isinstance(dataset, Dataset) else dataset
    name = name or str(dataset.split or "dataset")
    return Split(name, _with_features(stream, name), opened_by_caller=True)


def _read(location: Location, admitted: Admitted, download: bool) -> Split:
    """Return the split at a location, of what was admitted there."""
    text, provenance, commit = location.text, location.provenance, location.commit
    repo, revision, config, split = location.reference
    # A folder is streamed always: the rows that load_dataset would keep of it are not looked up by the files' content.
    streaming = commit is None or not download
    if location.kind == "dataset":
        stream = load_dataset(repo, config, split=split, revision=commit, streaming=streaming)
    else:  # its very files, whatever a card says
        stream = load_dataset("parquet", data_files=admitted.data_files, split="train", streaming=streaming)
    if isinstance(stream, Dataset):
        stream = stream.to_iterable_dataset()
    columns = stream.features or Features()
    if provenance is not None and columns.items() != provenance.row_schema.features.items():
        raise UserError(f"{text}: its columns are not those that its provenance says; {FILES_CURE}")
    stream = _with_features(stream, text)
    if location.kind == "files":
        return Split(text, stream)
    name = f"{repo}@{revision}" if revision else repo
    name += f":{config}/{split}"
    return Split(name, stream, provenance, repo, commit, config, split, rows_in_files=admitted.rows)


def _with_features(stream: IterableDataset, name: str) -> IterableDataset:
    """`stream`, its columns known."""
    if stream.features is None:
        stream = stream._resolve_features()
    if stream.features is None:
        raise UserError(f"{name}: contains no rows")
    return stream


def has_class_folders(folder: Path) -> bool:
    """Return whether a folder has images in folders of classes, and no file that says more of them."""
    if not folder.is_dir() or splits_in(folder) or any(folder.glob("metadata.*")):
        return False
    suffixes = PILImage.registered_extensions()
    return any(file.suffix.lower() in suffixes for file in folder.glob("*/*"))


def open_source(name: str, config: SourceConfig) -> Split:
    """Return the images of a source at their own size, opened. Those of a folder have no ids but the names of files."""
    source = build_source(config)
    folder = config.path if isinstance(config, ImageFolder) else None
    features = Features(
        ({"id": Value("int64")} if folder is None else {})
        | {"image": Image(), "label": ClassLabel(names=list(source.labels.names))}
        | ({"accepted_labels": List(Value("int32"))} if source.accepts_several else {})
        | {column: Value(type) for column, type in source.columns.items()}
    )
    if folder is None:
        dataset = IterableDataset.from_generator(_rows, features=features, gen_kwargs={"source": source})
    else:  # small rows, of paths: at once, for one by one they take longer than their images
        dataset = Dataset.from_list(list(_rows(source, has_ids=False)), features=features).to_iterable_dataset()
    return replace(open_split(dataset, name=name), repo=folder)


def _rows(source: Source, has_ids: bool = True) -> Iterator[dict[str, Any]]:
    for example in source.read(0, len(source)):
        image = example.image
        if isinstance(image, PILImage.Image):
            image = png_bytes(np.asarray(open_rgb(image)))
        is_file = isinstance(image, str)
        stored = {"bytes": None if is_file else image, "path": image if is_file else None}
        row: dict[str, Any] = {"image": stored, "label": example.label}
        if has_ids:
            row["id"] = example.id
        if example.accepted is not None:
            row["accepted_labels"] = list(example.accepted)
        row |= example.extra or {}
        yield row
