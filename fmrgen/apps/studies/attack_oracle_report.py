"""Judges under attack, as a table and JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fmrgen.apps.studies.attacked import AttackedJudge
from fmrgen.files import write_atomically
from fmrgen.report.tables import Table


def attacked_table(found: Sequence[AttackedJudge]) -> Table:
    """A row for each judge and radius (paper Table 15)."""
    header = ["judge", "epsilon", "right before", "right after", "taken for the target", "p(target)"]
    rows = [
        [
            judge.name,
            f"{255 * judge.epsilon:.3g}/255",
            str(judge.clean),
            str(judge.right),
            str(judge.targeted),
            f"{judge.target_probability:.3f}",
        ]
        for judge in found
    ]
    return Table(header, rows)


def write_attacked(found: Sequence[AttackedJudge], path: Path) -> None:
    """Writes the figures as JSON. Raises UserError where that can't be done."""
    text = json.dumps([asdict(judge) for judge in found], indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())
