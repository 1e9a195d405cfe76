"""The leaderboard of a split: what was found on it, and lies beside it."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from fmrgen.errors import UserError
from fmrgen.files import check_inside, read_json
from fmrgen.metrics.cautions import has_accuracy_of_chance
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import COMPARED, Summary
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance

RESULT_SCHEMA = "fmrgen-result/1"  # of the files under results/

_ESTIMATE: TypeAdapter[Estimate | None] = TypeAdapter(Estimate | None)


@dataclass(frozen=True)
class Entry:
    """What the leaderboard shows of a file under results/.

    `files` is the digest of the split's files. `at_chance` says that the classifier is hardly better than chance on the
    originals: it has no rank.
    """

    schema: Annotated[str, Field(pattern=r"^fmrgen-result/\d+$")]
    files: str
    classifier: Annotated[str, Field(pattern=r"[\p{L}\p{N}\p{P}\p{S}]")]  # something that can be seen
    conditioned: bool
    figures: Mapping[str, Estimate | None] = field(default_factory=dict)  # of the compared metrics
    at_chance: bool = False


_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


def leaderboard(paths: SplitPaths, provenance: Provenance) -> list[Entry]:
    """The results that were found on the split as it is now, by falling FMR, those at chance last.

    Those on earlier files are passed over, and files that are no results: anyone may have put them there.
    """
    entries = []
    for path in sorted(paths.results.glob("*.json")):
        with suppress(UserError, ValidationError):
            check_inside(path, paths.root)
            entry = _ENTRY.validate_python(content := read_json(path))
            if entry.files == provenance.files_digest:
                figures = {name: _ESTIMATE.validate_python(content.get(name)) for name in COMPARED}
                # Results of earlier versions do not say it.
                weak = entry.at_chance or has_accuracy_of_chance(Summary(0, 0, **figures), len(provenance.labels))
                entries.append(replace(entry, figures=figures, at_chance=weak))
    return ranked(entries)


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """Entries by falling FMR, those at chance last."""
    return sorted(entries, key=lambda entry: sort_key(entry.figures["fmr"], entry.at_chance))


def sort_key(fmr: Estimate | None, at_chance: bool) -> tuple[bool, float]:
    """What results are sorted by: those at chance behind the others, those without FMR last among either."""
    return at_chance, 1 if fmr is None else -fmr.value
