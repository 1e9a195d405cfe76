"""A row of a split that a gallery shows."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """A row that a gallery shows.

    Attributes:
        row: its number in the split.
        image: as stored: bytes, a path or an address.
        original: the same; None if the split has none.
        columns: its other columns, under their names.
    """

    row: int
    image: bytes | str
    original: bytes | str | None
    columns: dict[str, Any]
