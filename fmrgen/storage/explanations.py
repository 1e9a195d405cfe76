"""Where a split's own classifier fails, as proven: sentences that lie beside the split, for its card."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Literal

from fmrgen.errors import UserError
from fmrgen.files import check_inside, of_schema, read_json, write_atomically
from fmrgen.storage.paths import SplitPaths

_SCHEMA: Literal["fmrgen-explained/1"] = "fmrgen-explained/1"


@dataclass(frozen=True)
class _Explained:
    """`files` is the digest of the split's files; `lines` say what stands, and what could not have been seen."""

    schema: Literal["fmrgen-explained/1"]
    files: str
    lines: list[str]
    fmrgen: str


def explained_lines(paths: SplitPaths, files: str) -> list[str]:
    """What was said of the very files of the digest `files`; nothing where it is of others, or no explanation."""
    with suppress(UserError):
        check_inside(paths.explanation, paths.root)
        found = of_schema(_Explained, _SCHEMA, read_json(paths.explanation), str(paths.explanation))
        return found.lines if found.files == files else []
    return []


def write_explained_lines(paths: SplitPaths, files: str, lines: list[str]) -> None:
    """Lays lines about files of the digest `files` beside their split."""
    text = json.dumps(asdict(_Explained(_SCHEMA, files, lines, version("fmrgen"))), indent=1, ensure_ascii=False)
    write_atomically(paths.explanation, f"{text}\n".encode())
