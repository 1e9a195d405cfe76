"""The report of other judges."""

from collections.abc import Sequence

from fmrgen.apps.judging.judge import Judged
from fmrgen.metrics.intervals import format_estimate
from fmrgen.report.report import Report, Section, Table
from fmrgen.report.tables import related_line


def judged_report(outcomes: Sequence[Judged], split: str) -> Report:
    """Return the report of the judges of a split: their figures, and where their verdicts are."""
    rows, warnings = [], []
    places: dict[str, None] = {}
    for outcome in outcomes:
        preserved, originals_right = format_estimate(outcome.preserved), format_estimate(outcome.originals_right)
        rows.append([outcome.judge, preserved, originals_right, f"{outcome.rows:,}"])
        if outcome.shares_weights_with:
            warnings.append(related_line(outcome.judge, outcome.shares_weights_with))
        if not outcome.files:
            places[outcome.place] = None
        for path in outcome.files:
            places[str(path)] = None
    table = Table(["judge", "sees the label in valid images, %", "in originals, %", "rows"], rows)
    section = Section("judges", split, tables=[table])
    return Report("judged", f"Judges of {split}", [section], outcomes, conclusions=list(places), warnings=warnings)
