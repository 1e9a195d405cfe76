"""The report of judges under attack."""

from collections.abc import Sequence
from dataclasses import asdict

from fmrgen.apps.studies.attack_oracle import AttackedJudge
from fmrgen.report.report import Report, Section, Table


def attacked_report(judges: Sequence[AttackedJudge], name: str = "") -> Report:
    """Return the report of judges under attack (paper Table 15).

    Args:
        judges: each at each radius.
        name: of the part of a study that they are.
    """
    title = "Attacked towards another class"
    if name:
        title = f"{name}, attacked towards another class"
    section = Section("attacked", title, tables=[_table(judges)])
    return Report("attacked-oracle", title, [section], [asdict(judge) for judge in judges])


def _table(judges: Sequence[AttackedJudge]) -> Table:
    header = ["judge", "epsilon", "right before", "right after", "taken for the target", "p(target)"]
    rows = []
    for judge in judges:
        rates = [str(judge.clean), str(judge.right), str(judge.targeted)]
        rows.append([judge.name, f"{255 * judge.epsilon:.3g}/255", *rates, f"{judge.target_probability:.3f}"])
    return Table(header, rows)
