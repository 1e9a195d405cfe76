"""A file of images whose label is doubted: somebody looks at them, and writes down what they show."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from fmrgen.apps.release.flips import Flip
from fmrgen.errors import UserError, one_line
from fmrgen.files import write_atomically

_COLUMNS = ("id", "label", "old", "new", "old_confidence", "new_confidence", "reviewed")
_FORMULAS = ("=", "+", "-", "@", "\t")  # what a cell begins with that a spreadsheet would calculate


def read_review(path: Path) -> dict[str, str]:
    """Return what a file says that images show, by their ids; those that nobody looked at are left out.

    Raises:
        UserError: it is no such file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: can't be read as CSV: {one_line(error)}") from None
    if rows and not {"id", "reviewed"} <= rows[0].keys():
        raise UserError(f"{path}: has no columns id and reviewed; name a file that a diff wrote, or a new one")
    return {_as_read(row["id"]): _as_read(row["reviewed"]) for row in rows if row["reviewed"]}


def write_review(path: Path, doubted: Sequence[Flip], reviewed: Mapping[str, str]) -> None:
    """Write the images whose label is doubted, with an empty column `reviewed`, after those already reviewed.

    Args:
        path: of the file, which is replaced.
        doubted: the images.
        reviewed: what earlier ones show, by id.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for example_id, label in reviewed.items():
        table.writerow([_as_text(example_id), "", "", "", "", "", _as_text(label)])
    for flip in doubted:
        if flip.id not in reviewed:
            sure = ["" if share is None else f"{share:.4f}" for share in (flip.old_confidence, flip.new_confidence)]
            table.writerow([_as_text(value) for value in (flip.id, flip.label, flip.old, flip.new)] + [*sure, ""])
    write_atomically(path, text.getvalue().encode())


def _as_text(value: str) -> str:
    """Return a cell that a spreadsheet shows as it is."""
    return f"'{value}" if value.startswith(_FORMULAS) else value


def _as_read(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULAS) else cell.strip()
