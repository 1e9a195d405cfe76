"""The one door for what others made: a folder, a repo on the Hub or files are checked here, before any data is read."""

import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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
        """Parquet files of it, as `load_dataset` takes them, and their rows.

        Raises UserError where one is missing, or unpacks to more than it should.
        """
        names = list(files)
        base = f"hf://datasets/{self.place}@{self.revision}" if self.revision else str(Path(self.place).absolute())
        rows = check_parquet_files([f"{base}/{file}" for file in names])
        return [f"{glob.escape(base)}/{file}" for file in names], rows


def admit(place: str, revision: str | None, *, by_card: bool) -> Admitted:
    """A folder (`revision` None) or a repo that may be read.

    Args:
        place: the folder or the repo.
        revision: the commit on the Hub.
        by_card: its data is what its card says, and not files that are named one by one.

    Returns:
        What may be read.

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
    """Parquet files here that may be read, as `load_dataset` takes them; an address is left to its host.

    Raises UserError where there are none, or one unpacks to more than it should.
    """
    if "://" in pattern:
        return pattern
    if not (files := glob.glob(pattern)):
        raise UserError(f"{pattern}: no such file")
    check_plain_path(Path(pattern))
    check_parquet_files(files)
    return str(Path(pattern).absolute())


def admit_saved(folder: Path) -> None:
    """Raises UserError where a folder of `save_to_disk` names a split or a file that is not in it."""
    if (several := folder / "dataset_dict.json").is_file():
        splits = read_json(several).get("splits")
        for name in splits if isinstance(splits, list) else []:
            if not re.fullmatch(r"\w[\w.-]*", str(name)):
                raise UserError(f"{several}: names a split {name}, which is not in it; it is not read")
    for state in folder.glob("**/state.json"):
        files = read_json(state).get("_data_files")
        for entry in files if isinstance(files, list) else []:
            if Path(str(entry.get("filename"))).name != entry.get("filename"):
                raise UserError(f"{state}: takes data from {entry.get('filename')}, which is not in it; it is not read")
