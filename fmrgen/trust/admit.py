"""Checks of what others made: a folder, a repo on the Hub or files, before any of their data is read."""

import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmrgen.errors import UserError
from fmrgen.files import check_inside, check_plain_path, read_json
from fmrgen.trust.cards import check_card_stays_inside
from fmrgen.trust.parquet import check_parquet_files


@dataclass(frozen=True)
class Admitted:
    """A folder, or a repo on the Hub at the commit `revision`, from which nothing leads elsewhere."""

    place: str
    revision: str | None

    def data_files(self, files: Iterable[str]) -> tuple[list[str], int]:
        """Return its parquet files `files` as `load_dataset` takes them, and their number of rows.

        Raises UserError if one is missing, or unpacks to more than it should.
        """
        names = list(files)
        base = str(Path(self.place).absolute())
        if self.revision:
            base = f"hf://datasets/{self.place}@{self.revision}"
        rows = check_parquet_files([f"{base}/{file}" for file in names])
        return [f"{glob.escape(base)}/{file}" for file in names], rows


def admit(place: str, revision: str | None, *, by_card: bool) -> Admitted:
    """Return a folder or a repo that may be read.

    Args:
        place: the folder or the repo.
        revision: the commit on the Hub, None for a folder.
        by_card: whether its data is what its card says; otherwise its files are named one by one.

    Raises:
        UserError: a link or the card leads out of it, or a file of it unpacks to more than it should.
    """
    if revision is None:
        check_plain_path(Path(place))
        for path in Path(place).rglob("[!.]*"):
            if path.is_symlink() and not any(part.startswith(".") for part in path.relative_to(place).parts):
                check_inside(path, Path(place))
    if by_card:
        check_card_stays_inside(place, revision)
        if revision is None:
            check_parquet_files(map(str, Path(place).rglob("*.parquet")))
    return Admitted(place, revision)


def admit_files(pattern: str) -> str:
    """Return local parquet files that may be read, as `load_dataset` takes them; an address is left to its host.

    Raises UserError if there are none, or one unpacks to more than it should.
    """
    if "://" in pattern:
        return pattern
    files = glob.glob(pattern)
    if not files:
        raise UserError(f"{pattern}: no such file")
    check_plain_path(Path(pattern))
    check_parquet_files(files)
    return str(Path(pattern).absolute())


def admit_saved(folder: Path) -> None:
    """Raise UserError if a folder of `save_to_disk` names a split or a file that is not in it."""
    dataset_dict = folder / "dataset_dict.json"
    if dataset_dict.is_file():
        for name in _list_in(dataset_dict, "splits"):
            if not re.fullmatch(r"\w[\w.-]*", str(name)):
                raise UserError(f"{dataset_dict}: names a split {name}, which is not in it; it is not read")
    for state in folder.glob("**/state.json"):
        for entry in _list_in(state, "_data_files"):
            if Path(str(entry.get("filename"))).name != entry.get("filename"):
                raise UserError(f"{state}: takes data from {entry.get('filename')}, which is not in it; it is not read")


def _list_in(path: Path, key: str) -> list[Any]:
    """Return the list that a JSON file has under a key; an empty one if it has anything else there."""
    value = read_json(path).get(key)
    return value if isinstance(value, list) else []
