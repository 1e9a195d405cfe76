"""Opening a split to read it: one that fmrgen made, or anyone's rows of images and labels."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import datasets
from datasets import Dataset, Features, IterableDataset, load_dataset

from fmrgen.errors import UserError, one_line
from fmrgen.split.reference import Location, locate, with_chosen_split
from fmrgen.split.rows import Split
from fmrgen.storage.provenance import Provenance
from fmrgen.trust.admit import Admitted, admit
from fmrgen.trust.parquet import FILES_CURE


def open_split(
    split: str | Path | Dataset | IterableDataset, *, name: str | None = None, download: bool = False
) -> Split:
    """Return a split, opened to be read: one that fmrgen made, or anyone's rows of images and labels.

    Args:
        split: a reference (`PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`), a parquet file (a pattern or an address of such),
            or a dataset in memory.
        name: how it is called from here on; by default what was given.
        download: fetch what is on the Hub whole before it is read; else it is streamed.

    Returns:
        Its rows as a stream, with its provenance where fmrgen made it.

    Raises:
        UserError: there is none, it is not finished, or there are several and the reference does not say which.
    """
    if not isinstance(split, str | Path):
        return _in_memory(split, name)
    split = f"{split}"  # the reference alone: `str` of a GeneratedSplit has its figures too
    try:
        location = locate(split)
        admitted = admit(location.kind, location.reference.repo, location.commit, location.files)
        location = with_chosen_split(location)
        opened = _read(location, admitted, download)
    except UserError:
        raise
    except Exception as error:  # readers of so many formats, and the network under them, fail in as many ways
        raise UserError(f"{split}: can't be opened: {one_line(error)}") from error
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
        fault = f"{name or 'split'}: a {type(dataset).__name__} is not a split"
        raise UserError(
            f"{fault}; give a reference, or a datasets.Dataset with columns image and label; fmrgen.generate makes a "
            "split of any dataset"
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
    if location.kind == "saved":
        stream = datasets.load_from_disk(repo)
        if isinstance(stream, Mapping):
            stream = stream[split]
    elif location.kind == "dataset":
        stream = load_dataset(repo, config, split=split, revision=commit, streaming=streaming)
    else:  # its very files, whatever a card says
        stream = load_dataset("parquet", data_files=admitted.data_files, split="train", streaming=streaming)
    if isinstance(stream, Dataset):
        stream = stream.to_iterable_dataset()
    if provenance is not None and not _are_columns_of(provenance, stream.features or Features()):
        raise UserError(f"{text}: its columns are not those that its provenance says; {FILES_CURE}")
    stream = _with_features(stream, text)
    if location.kind == "files":
        return Split(text, stream)
    if location.kind == "saved":
        return Split(text, stream, repo=repo)
    name = f"{repo}@{revision}" if revision else repo
    name += f":{config}/{split}"
    return Split(name, stream, provenance, repo, commit, config, split, rows_in_files=admitted.rows)


def _are_columns_of(provenance: Provenance, features: Features) -> bool:
    """Return whether a split has the columns that its provenance says."""
    return features.items() == provenance.row_schema.features.items()


def _with_features(stream: IterableDataset, name: str) -> IterableDataset:
    """`stream`, its columns known."""
    if stream.features is None:
        stream = stream._resolve_features()
    if stream.features is None:
        raise UserError(f"{name}: contains no rows")
    return stream
