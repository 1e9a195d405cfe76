"""The output of the command `judge`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fmrgen.cli import display
from fmrgen.metrics.intervals import format_estimate
from fmrgen.report.tables import Table as TextTable
from fmrgen.report.tables import related_line

if TYPE_CHECKING:
    from fmrgen.apps.judging.judge import Judged


def print_judged(outcomes: "Sequence[Judged]", split: str, quiet: bool) -> None:
    """Print the figures of each judge, and where its verdicts are.

    Args:
        outcomes: of the judges.
        split: that they judged.
        quiet: print no table.
    """
    if not quiet:
        rows = []
        for outcome in outcomes:
            preserved, originals_right = format_estimate(outcome.preserved), format_estimate(outcome.originals_right)
            rows.append([outcome.judge, preserved, originals_right, f"{outcome.rows:,}"])
        header = ["judge", "sees the label in valid images, %", "in originals, %", "rows"]
        display.print_table(TextTable(header, rows), split)
    for outcome in outcomes:
        if outcome.shares_weights_with:
            display.print_note(f"note: {related_line(outcome.judge, outcome.shares_weights_with)}")
        if not outcome.files:
            display.print_line(outcome.place)
        for path in outcome.files:
            display.print_line(str(path))
