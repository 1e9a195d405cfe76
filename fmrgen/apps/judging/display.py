"""What the command `judge` prints."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fmrgen.metrics.intervals import format_estimate
from fmrgen.report.tables import Table as TextTable
from fmrgen.report.tables import related_line

if TYPE_CHECKING:
    from fmrgen.apps.judging.judge import Judged

from fmrgen.cli import display


def print_judged(found: "Sequence[Judged]", split: str, quiet: bool) -> None:
    """What each judge found, and where it is."""
    if not quiet:
        rows = [
            [one.judge, format_estimate(one.preserved), format_estimate(one.originals_right), f"{one.rows:,}"]
            for one in found
        ]
        header = ["judge", "sees the label in valid images, %", "in originals, %", "rows"]
        display.print_table(TextTable(header, rows), split)
    for one in found:
        if one.shares_weights_with:
            display.print_note(f"note: {related_line(one.judge, one.shares_weights_with)}")
        for place in map(str, one.files) if one.files else [one.place]:
            display.print_line(place)
