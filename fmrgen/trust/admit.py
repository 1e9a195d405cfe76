"""Checks of what others made: a folder, a repo on the Hub or files, before any of their data is read."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from fmrgen.files import check_links, check_plain_path
from fmrgen.trust.cards import check_card_stays_inside
from fmrgen.trust.parquet import check_parquet_files

Kind = Literal["split", "dataset", "files"]
"""How a place is to be read: a `split` by the very files that its provenance names, a `dataset` as its card says,
or parquet `files`."""


class Admitted(NamedTuple):
    """What may be read of a place."""

    data_files: list[str]  # as `load_dataset` takes them; none of a dataset, which names its own
    rows: int  # how many those have; 0 where nobody has counted them


def admit(kind: Kind, place: str, commit: str | None, files: Sequence[str]) -> Admitted:
    """Return what may be read of a place: nothing leads out of it, and no file unpacks to more than it should.

    `place` is a folder, a repo on the Hub, or a pattern or an address of files; `commit` is None for what is on this
    machine; `files` are the paths or addresses of a split's parquet files, or the files that a pattern names. Raises
    UserError if a link, the card or a list of files leads out of it, or a file is missing or unpacks to too much.
    """
    if kind == "files" and not files:  # an address, which is left to its host
        return Admitted([place], 0)
    if commit is None:
        check_plain_path(Path(place))
    if commit is None and kind != "files":
        check_links(Path(place))
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
