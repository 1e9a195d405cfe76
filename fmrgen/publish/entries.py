"""The results of `evaluate` on a split, from the files beside it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from fmrgen.errors import UserError
from fmrgen.files import check_inside, read_json
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import COMPARED
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance

RESULT_SCHEMA = "fmrgen-result/1"  # of the files under results/


@dataclass(frozen=True)
class Entry:
    """The results of one classifier, a file under results/."""

    schema: Annotated[str, Field(pattern=r"^fmrgen-result/\d+$")]
    files: str  # the digest of the split's files
    classifier: Annotated[str, Field(pattern=r"[\p{L}\p{N}\p{P}\p{S}]")]  # its name, with some visible character
    conditioned: bool  # whether the split was generated against it
    at_chance: bool  # whether it is hardly better than chance on the originals, so that it has no rank
    figures: Mapping[str, Estimate | None]  # of the compared metrics


_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


def results_on(paths: SplitPaths, provenance: Provenance) -> list[Entry]:
    """Return the results on the split as it is now, by falling FMR, those at chance last.

    Results on earlier files are left out, and files that are not results: anyone may have put them there.
    """
    entries = []
    for path in sorted(paths.results.glob("*.json")):
        with suppress(UserError, ValidationError):
            check_inside(path, paths.root)
            content = read_json(path)
            entry = _ENTRY.validate_python(content | {"figures": {name: content.get(name) for name in COMPARED}})
            if entry.files == provenance.files_digest:
                entries.append(entry)
    return sorted(entries, key=_place)


def _place(entry: Entry) -> tuple[bool, float]:
    """Return the key by which results are sorted: those at chance last, in either group those without a figure last."""
    figure = entry.figures["fmr"]
    return entry.at_chance, 1 if figure is None else -figure.value
