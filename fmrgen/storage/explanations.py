"""Sentences on where a split's own classifier provably fails, kept beside the split for its card."""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Literal

from fmrgen.errors import UserError
from fmrgen.files import check_inside, of_schema, read_json, write_atomically
from fmrgen.storage.paths import SplitPaths

_LARGEST = 1 << 17  # bytes of a file: it may be a stranger's, and its lines go onto the card
_MOST_LINES = 50  # on the card
_LONGEST_LINE = 1000  # characters
_SCHEMA: Literal["fmrgen-explained/1"] = "fmrgen-explained/1"


@dataclass(frozen=True)
class _Explained:
    """`files` is the digest of the split's files; `lines` state what was confirmed, and what could not be seen."""

    schema: Literal["fmrgen-explained/1"]
    files: str
    lines: list[str]
    fmrgen: str


def explained_lines(paths: SplitPaths, files: str) -> list[str]:
    """Return the explanation of a split's files; [] if there is none, or it explains other files.

    A file that is far too large counts as none, and what is too long for a card is cut.

    Args:
        paths: of the split.
        files: the digest of the split's files.
    """
    try:
        check_inside(paths.explanation, paths.root)
        tree = read_json(paths.explanation, largest=_LARGEST)
        explained = of_schema(_Explained, _SCHEMA, tree, str(paths.explanation))
    except UserError:
        return []
    if explained.files != files:
        return []
    return [line[:_LONGEST_LINE] for line in explained.lines[:_MOST_LINES]]


def write_explained_lines(paths: SplitPaths, files: str, lines: list[str]) -> None:
    """Write the explanation of a split beside it.

    Args:
        paths: of the split.
        files: the digest of the split's files.
        lines: the sentences.
    """
    explained = _Explained(_SCHEMA, files, lines, version("fmrgen"))
    text = json.dumps(asdict(explained), indent=1, ensure_ascii=False)
    write_atomically(paths.explanation, f"{text}\n".encode())
