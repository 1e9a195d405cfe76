"""Judges under attack, as a table and JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fmrgen.apps.studies.attack_oracle import AttackedJudge
from fmrgen.files import write_atomically
from fmrgen.report.tables import Table


def attacked_table(judges: Sequence[AttackedJudge]) -> Table:
    """Return a row for each judge and radius (paper Table 15)."""
    header = ["judge", "epsilon", "right before", "right after", "taken for the target", "p(target)"]
    rows = []
    for judge in judges:
        rates = [str(judge.clean), str(judge.right), str(judge.targeted)]
        rows.append([judge.name, f"{255 * judge.epsilon:.3g}/255", *rates, f"{judge.target_probability:.3f}"])
    return Table(header, rows)


def write_attacked(judges: Sequence[AttackedJudge], path: Path) -> None:
    """Write the figures as JSON. Raises UserError if the file can't be written."""
    text = json.dumps([asdict(judge) for judge in judges], indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())
