"""A row of a split that a gallery shows."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """A row that a gallery shows."""

    row: int  # its number in the split
    image: bytes | str  # as stored: bytes, a path or an address
    original: bytes | str | None  # the same; None if the split has none
    columns: dict[str, Any]  # the others, under their names
