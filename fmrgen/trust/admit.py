"""Checks of what others made: a folder, a repo on the Hub or files, before any of their data is read."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fmrgen.errors import UserError
from fmrgen.files import check_inside, check_plain_path, read_json
from fmrgen.trust.cards import check_card_stays_inside
from fmrgen.trust.parquet import check_parquet_files

Kind = Literal["split", "dataset", "saved", "files"]
"""How a place is to be read: a `split` by the very files that its provenance names, a `dataset` as its card says, a
folder of `save_to_disk`, or parquet `files`."""


class Admitted(NamedTuple):
    """What may be read of a place.

    Attributes:
        data_files: as `load_dataset` takes them; none of a dataset, which names its own.
        rows: how many those have; 0 where nobody has counted them.
    """

    data_files: list[str]
    rows: int


def admit(kind: Kind, place: str, commit: str | None, files: Sequence[str]) -> Admitted:
    """Return what may be read of a place: nothing leads out of it, and no file unpacks to more than it should.

    Args:
        kind: how it is to be read.
        place: a folder, a repo on the Hub, or a pattern or an address of files.
        commit: on the Hub; None for what is on this machine.
        files: the paths or addresses of a split's parquet files, or the files that a pattern names.

    Raises:
        UserError: a link, the card or a list of files leads out of it, or a file is missing or unpacks to too much.
    """
    if kind == "files" and not files:  # an address, which is left to its host
        return Admitted([place], 0)
    if commit is None:
        check_plain_path(Path(place))
    if commit is None and kind != "files":
        _check_links(Path(place))
    if kind == "saved":
        _check_saved(Path(place))
    if kind == "dataset":
        check_card_stays_inside(place, commit)
    if kind == "dataset" and commit is None:
        files = [str(path) for path in Path(place).rglob("*.parquet")]
    rows = check_parquet_files(files)
    if kind == "split":
        return Admitted([glob.escape(file) for file in files], rows)
    if kind == "files":
        return Admitted([str(Path(place).absolute())], rows)
    return Admitted([], 0)


def _check_links(folder: Path) -> None:
    """Raise UserError if a link leads out of a folder; what is hidden is not read."""
    for path in folder.rglob("[!.]*"):
        if path.is_symlink() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            check_inside(path, folder)


def _check_saved(folder: Path) -> None:
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
