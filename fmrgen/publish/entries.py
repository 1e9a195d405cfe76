"""The leaderboard of a split, from the results beside it."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

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
    """A row of the leaderboard, from a file under results/.

    Attributes:
        files: the digest of the split's files.
        classifier: its name, with at least one visible character.
        conditioned: whether the split was made against it.
        figures: of the compared metrics.
        at_chance: whether it is hardly better than chance on the originals, so that it has no rank.
    """

    schema: Annotated[str, Field(pattern=r"^fmrgen-result/\d+$")]
    files: str
    classifier: Annotated[str, Field(pattern=r"[\p{L}\p{N}\p{P}\p{S}]")]
    conditioned: bool
    figures: Mapping[str, Estimate | None] = field(default_factory=dict)
    at_chance: bool = False


_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


def leaderboard(paths: SplitPaths, provenance: Provenance) -> list[Entry]:
    """Return the results on the split as it is now, by falling FMR, those at chance last.

    Results on earlier files are left out, and files that are not results: anyone may have put them there.
    """
    entries = []
    for path in sorted(paths.results.glob("*.json")):
        with suppress(UserError, ValidationError):
            check_inside(path, paths.root)
            content = read_json(path)
            entry = _ENTRY.validate_python(content)
            if entry.files != provenance.files_digest:
                continue
            figures: dict[str, Any] = {name: _ESTIMATE.validate_python(content.get(name)) for name in COMPARED}
            # Results of earlier versions do not have `at_chance`.
            at_chance = entry.at_chance or has_accuracy_of_chance(Summary(0, 0, **figures), len(provenance.labels))
            entries.append(replace(entry, figures=figures, at_chance=at_chance))
    return ranked(entries)


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries by falling FMR, or of moved images by falling MA / SA; those at chance last."""

    def place(entry: Entry) -> tuple[bool, float]:
        figure = entry.figures["fmr"] or entry.figures["relative_moved_accuracy"]
        return sort_key(figure, entry.at_chance)

    return sorted(entries, key=place)


def sort_key(figure: Estimate | None, at_chance: bool) -> tuple[bool, float]:
    """Return the key by which results are sorted: those at chance last, in either group those without a figure last."""
    if figure is None:
        return at_chance, 1  # figures are not negative, so all other keys are 0 at most
    return at_chance, -figure.value
