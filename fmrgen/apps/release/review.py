"""A file of images whose label is doubted: somebody looks at them, and writes down what they show."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmrgen.apps.release.flips import Flip
from fmrgen.errors import UserError, one_line
from fmrgen.files import write_atomically

_COLUMNS = ("id", "label", "old", "new", "old_confidence", "new_confidence", "reviewed")
_FORMULAS = ("=", "+", "-", "@", "\t")  # what a cell begins with that a spreadsheet would calculate


@dataclass(frozen=True)
class Review:
    """A file of images whose label is doubted, as it was.

    Attributes:
        columns: of the file.
        rows: of the file.
    """

    columns: Sequence[str]
    rows: Sequence[Mapping[str, str]]

    @classmethod
    def read(cls, path: Path) -> "Review":
        """Return the file, or an empty one if there is none yet. Raises UserError if it is anything else."""
        if not path.exists():
            return cls(_COLUMNS, [])
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                rows = list(reader)
                columns = reader.fieldnames or []
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{path}: can't be read as CSV: {one_line(error)}") from None
        if not {"id", "reviewed"} <= set(columns):
            raise UserError(f"{path}: has no columns id and reviewed; name a file that a diff wrote, or a new one")
        whole = []
        for row in rows:
            whole.append({name: row.get(name) or "" for name in columns})
        return cls(columns, whole)

    @property
    def labels(self) -> dict[str, str]:
        """What images show, by their ids; those that nobody looked at are left out."""
        labels = {}
        for row in self.rows:
            if row["reviewed"].strip():
                labels[_as_read(row["id"])] = _as_read(row["reviewed"])
        return labels

    def write(self, path: Path, doubted: Sequence[Flip]) -> None:
        """Replace the file by one with the reviewed rows as they were, and below them the images that are doubted."""
        rows = [row for row in self.rows if row["reviewed"].strip()]
        for flip in doubted:
            values = [flip.id, flip.label, flip.old, flip.new]
            sure = ["" if share is None else f"{share:.4f}" for share in (flip.old_confidence, flip.new_confidence)]
            rows.append(dict(zip(_COLUMNS, [*map(_as_text, values), *sure, ""], strict=True)))
        text = io.StringIO()
        columns = [*self.columns, *(name for name in _COLUMNS if name not in self.columns)]
        table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_atomically(path, text.getvalue().encode())


def _as_text(value: str) -> str:
    """Return a cell that a spreadsheet shows as it is."""
    return f"'{value}" if value.startswith((*_FORMULAS, "'")) else value


def _as_read(cell: str) -> str:
    cell = cell.strip()
    return cell[1:] if cell.startswith("'") and cell[1:].startswith((*_FORMULAS, "'")) else cell
