"""Opening a split to read it: one that fmrgen made, or anyone's rows of images and labels."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, load_dataset
from PIL import Image as PILImage

from fmrgen.errors import UserError, one_line
from fmrgen.files import check_inside, is_inside, read_json
from fmrgen.hub.timeouts import no_bars
from fmrgen.image_files import lies_in_repo, open_rgb, path_inside, stored_image
from fmrgen.labels import Labels
from fmrgen.split.reference import Reference, files_on_the_hub, parse_reference
from fmrgen.storage.paths import DELTAS, SplitPaths, deltas_among, splits_among, splits_in
from fmrgen.storage.provenance import Provenance, parse_provenance
from fmrgen.trust.admit import admit, admit_files, admit_saved
from fmrgen.trust.parquet import FILES_CURE


@dataclass(frozen=True, repr=False)
class Split:
    """A split: its rows, as a stream of what its files hold now, and where they come from.

    Attributes:
        name: how the split is called from here on.
        dataset: the stream of its rows, images decoded.
        provenance: what fmrgen recorded when it made the split; None if fmrgen did not make it.
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
            raise UserError(f"it is stored as {image}, which is not in the split")
        return place

    def _holds(self, file: str) -> bool:
        """Return whether a path or an address is that of a file in the split's own folder or commit."""
        if self.repo is None:
            return False
        if self.revision is None:
            return "://" not in file and is_inside(Path(file), Path(self.repo))
        return lies_in_repo(file, self.repo, self.revision)

    def undecoded(self, columns: Iterable[str]) -> IterableDataset:
        """Its rows, the images of `columns` as they are stored: for `image_of`, or `decode`."""
        stream = self.dataset
        for name in columns:
            stream = stream.cast_column(name, Image(decode=False))
        return stream

    def decode(self, stored: dict[str, Any] | None, title: str) -> PILImage.Image:
        """Return a stored image as 8-bit RGB. Raises UserError, which calls it `title`, if it is none or lies
        elsewhere."""
        size = None if self.provenance is None else self.provenance.image_size
        try:
            return open_rgb(self.image_of(stored), size)
        except UserError as error:
            raise UserError(f"{self.name}: {title} is unreadable ({error}); repair that row, or remove it") from None

    def batches(
        self, size: int, images: Sequence[str] = (), columns: Sequence[str] | None = None
    ) -> Iterator[dict[str, list[Any]]]:
        """Yield all rows in their order, as lists of values by column.

        Args:
            size: rows at a time; the last batch may have fewer.
            images: columns of images, which are left as they are stored: for `pixels`, `decode` and `image_of`.
            columns: those to read; by default all. `id` must be among them if fmrgen made the split.

        Raises:
            UserError: a file can't be read, or the files of a split that fmrgen made hold other rows than its
                provenance says. What a caller does with odd values is its own: `reading` makes that an error too.
        """
        ids: list[int] = []
        with reading(self.name):
            for batch in self._stream(images, columns).iter(size):
                if self.provenance is not None:
                    ids += batch["id"]
                yield batch
        check_recorded_rows(self, ids)

    def stored_rows(self, images: Sequence[str] = (), columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows one by one, as `batches` yields several."""
        ids: list[int] = []
        with reading(self.name):
            for row in self._stream(images, columns):
                if self.provenance is not None:
                    ids.append(row["id"])
                yield row
        check_recorded_rows(self, ids)

    def _stream(self, images: Sequence[str], columns: Sequence[str] | None) -> IterableDataset:
        stream = self.undecoded(images)
        return stream if columns is None else stream.select_columns([*columns])

    def pixels(self, batch: Mapping[str, list[Any]], column: str) -> np.ndarray:
        """Return the images of a column, uint8 [B, H, W, 3], of a batch of `undecoded` rows, which are of one size.
        Raises UserError, which names the row, where one is unreadable."""
        stored = zip(batch["id"], batch[column], strict=True)
        return np.stack([np.asarray(self.decode(image, f"id {row}: its {column}")) for row, image in stored])

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


OpenedSplit = Split  # as it was called first


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


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Make what goes wrong in reading the rows of the split `name` an error of its files."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # readers of so many formats, and the network under them, fail in as many ways
        raise UserError(f"{name}: a file of it can't be read: {one_line(error)}") from error


def check_recorded_rows(opened: Split, ids: Sequence[int]) -> None:
    """Raise UserError where the files of a split that fmrgen made hold other rows than its provenance says.

    `ids` are those of all its rows.
    """
    if opened.provenance is None:
        return
    if len(ids) != opened.rows:
        raise UserError(
            f"{opened.name}: its files have {len(ids)} rows and its provenance says {opened.rows}; {FILES_CURE}"
        )
    if len(set(ids)) < len(ids):
        twice = next(example_id for example_id, count in Counter(ids).items() if count > 1)
        raise UserError(f"{opened.name}: its files contain id {twice} twice; {FILES_CURE}")


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


def choose_split(text: str, reference: Reference, available: list[tuple[str, str]]) -> tuple[str, str]:
    """Return the config and split that `text` says, or the only ones. Raises UserError where that is ambiguous."""
    names = ", ".join(f"{reference.repo}:{config}/{split}" for config, split in available)
    if reference.config is not None and reference.split is not None:
        place = (reference.config, reference.split)
        if place not in available:
            raise UserError(f"{text}: no split {place[0]}/{place[1]}" + (f"; found {names}" if names else " in it"))
        return place
    if len(available) != 1:
        raise UserError(f"{text}: " + (f"choose one: {names}" if available else "contains no perturbed split"))
    return available[0]


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


def deltas_of(folder: Path) -> list[str]:
    """Return the files of deltas in a folder, as a repo would call them."""
    return [path.relative_to(folder).as_posix() for path in folder.glob(f"{DELTAS}/*/*")]


def check_no_delta(text: str, place: str, files: Iterable[str]) -> None:
    """Raise UserError for a folder or repo with splits without their images; it has none with them."""
    if deltas_among(files):
        raise UserError(
            f"{text}: is a delta, which has no images; restore these with `fmrgen rebuild {place} --source RECIPE`, "
            "and use the folder that it writes"
        )


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
