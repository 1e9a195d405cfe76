"""Opening a split to read it: one that fmrgen made, or anyone's rows of images and labels."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import datasets
from datasets import Dataset, Features, IterableDataset, load_dataset

from fmrgen.errors import UserError, one_line
from fmrgen.files import check_inside, read_json
from fmrgen.hub.timeouts import no_bars
from fmrgen.split.reference import Reference, check_no_delta, choose_split, deltas_of, files_on_the_hub, parse_reference
from fmrgen.split.rows import Split
from fmrgen.storage.paths import SplitPaths, splits_among, splits_in
from fmrgen.storage.provenance import Provenance, parse_provenance
from fmrgen.trust.admit import admit, admit_files, admit_saved
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
    if isinstance(split, Mapping):
        raise UserError(f"{name}: holds several splits, {', '.join(split)}; give one of them")
    if not isinstance(split, str | Path | Dataset | IterableDataset):
        fault = f"{name or 'split'}: a {type(split).__name__} is not a split"
        raise UserError(
            f"{fault}; give a reference, or a datasets.Dataset with columns image and label; fmrgen.generate makes a "
            "split of any dataset"
        )
    if not isinstance(split, str | Path):
        if isinstance(split, Dataset) and not len(split):
            raise UserError(f"{name}: contains no rows")
        stream = split.to_iterable_dataset() if isinstance(split, Dataset) else split
        name = name or str(split.split or "dataset")
        return Split(name, _with_features(stream, name), opened_by_caller=True)
    split = f"{split}"  # the reference alone: `str` of a GeneratedSplit has its figures too
    try:
        is_file = split.endswith(".parquet") and not Path(split).is_dir()
        opened = _open_files(split) if is_file else _open_reference(split, download)
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


def _open_files(name: str) -> Split:
    stream = load_dataset("parquet", data_files=admit_files(name), split="train", streaming=True)
    return Split(name, _with_features(stream, name))


def _open_reference(text: str, download: bool) -> Split:
    reference = parse_reference(text)
    repo, revision = reference.repo, None
    if Path(repo).is_dir():
        if (Path(repo) / "state.json").is_file() or (Path(repo) / "dataset_dict.json").is_file():
            return _open_saved(text, reference)
        own = [(paths.config, paths.split) for paths in splits_in(Path(repo))]
        files = deltas_of(Path(repo))
    else:
        files, revision = files_on_the_hub(reference)
        own = splits_among(files)
    if not own:
        check_no_delta(text, repo, files)
    named = (reference.config, reference.split)
    is_own = bool(own) and (named in own or named == (None, None))
    admitted = admit(repo, revision, by_card=not is_own)
    places = own if is_own else [*{*own, *_foreign_places(repo, revision)}]
    place = choose_split(text, reference, sorted(places))
    provenance = _finished_provenance(text, repo, revision, place) if place in own else None
    # A folder is streamed always: the rows that load_dataset would keep of it are not looked up by the files' content.
    streaming, rows_in_files = revision is None or not download, 0
    if provenance is not None:  # its very files, whatever the card says
        files, rows_in_files = admitted.data_files(provenance.files)
        stream = load_dataset("parquet", data_files=files, split="train", streaming=streaming)
    else:
        stream = load_dataset(repo, place[0], split=place[1], revision=revision, streaming=streaming)
    if isinstance(stream, Dataset):
        stream = stream.to_iterable_dataset()
    features = stream.features or Features()
    if provenance is not None and not _are_columns_of(provenance, features):
        raise UserError(f"{text}: its columns are not those that its provenance says; {FILES_CURE}")
    name = f"{repo}{f'@{reference.revision}' if reference.revision else ''}:{place[0]}/{place[1]}"
    stream = _with_features(stream, text)
    return Split(name, stream, provenance, repo, revision, *place, rows_in_files=rows_in_files)


def _are_columns_of(provenance: Provenance, features: Features) -> bool:
    """Return whether a split has the columns that its provenance says; one of a newer version may have more."""
    expected = provenance.row_schema.features
    return expected.keys() <= features.keys() if provenance.is_newer else features.items() == expected.items()


def _open_saved(text: str, reference: Reference) -> Split:
    """Return a folder of `save_to_disk`."""
    admit_saved(Path(reference.repo))
    loaded = datasets.load_from_disk(reference.repo)
    if isinstance(loaded, Mapping):
        _, split = choose_split(text, reference, [("default", str(name)) for name in loaded])
        loaded = loaded[split]
    return Split(text, loaded.to_iterable_dataset(), repo=reference.repo)


def _foreign_places(repo: str, revision: str | None) -> list[tuple[str, str]]:
    """Configs and splits of a dataset that fmrgen did not make."""
    places = []
    try:
        for config in datasets.get_dataset_config_names(repo, revision=revision):
            for split in datasets.get_dataset_split_names(repo, config, revision=revision):
                places.append((config, split))
    except (datasets.exceptions.DatasetsError, FileNotFoundError):
        return []  # a folder without data files
    return places


def _finished_provenance(text: str, repo: str, revision: str | None, place: tuple[str, str]) -> Provenance:
    """Return what a folder, or a repo on the Hub, says of a split. Raises UserError where it is not that of a finished
    one."""
    provenance = _read_provenance(repo, revision, *place)
    if provenance is None or (provenance.finished and not provenance.is_finished):
        raise UserError(f"{text}: its provenance is not that of a finished split; make it again")
    if not provenance.is_finished:
        raise UserError(f"{text}: not finished; run the same generate command again")
    return provenance


def _read_provenance(repo: str, revision: str | None, config: str, split: str) -> Provenance | None:
    if revision is None:
        paths = SplitPaths(Path(repo), config, split)
        check_inside(paths.provenance, paths.root)
        return parse_provenance(read_json(paths.provenance))
    from huggingface_hub import hf_hub_download

    file = SplitPaths(Path(), config, split).provenance.as_posix()
    with no_bars():
        fetched = hf_hub_download(repo, file, repo_type="dataset", revision=revision)
    return parse_provenance(read_json(Path(fetched)))


def _with_features(stream: IterableDataset, name: str) -> IterableDataset:
    """`stream`, its columns known."""
    if stream.features is None:
        stream = stream._resolve_features()
    if stream.features is None:
        raise UserError(f"{name}: contains no rows")
    return stream
