"""The report of a gate."""

from collections.abc import Sequence
from dataclasses import asdict

from fmrgen.apps.release.conditions import OF_ANOTHER_SEED
from fmrgen.apps.release.sequential_test import Condition, Gate
from fmrgen.report.report import Check, Outcome, Report, Section, Table

_VERDICTS = {
    "pass": "pass: the candidate loses at most {max_drop:g} points",
    "fail": "fail: the candidate loses more than {max_drop:g} points",
    "undecided": "undecided: these images do not show whether the candidate loses more than {max_drop:g} points",
    "invalid": "invalid: no decision about a drop of {max_drop:g} points, see the warnings",
}
# The same if no drop is allowed.
_VERDICTS_WITHOUT_DROP = {
    "pass": "pass: the candidate is at least as accurate",
    "fail": "fail: the candidate is less accurate",
    "undecided": "undecided: these images do not show whether the candidate is less accurate",
}
_OUTCOMES: dict[str, Outcome] = {"pass": "passed", "fail": "failure", "undecided": "skipped", "invalid": "error"}


def gate_report(gate: Gate, split: str) -> Report:
    """Return the report of a gate.

    Args:
        gate: its outcome.
        split: that it was decided on.
    """
    sections = [Section("gate", f"Accuracy on {split}", tables=[_table(gate)])]
    worse = [f"worse on {condition.line}" for condition in gate.worse]
    if worse:
        sections.append(Section("conditions", "Changed originals on which the candidate is worse", lines=worse))
    alarms = []
    for alarm in gate.alarms:
        alarms.append(f"class {alarm.name}: drop of {alarm.drop:.1f} points over {alarm.rows:,} rows")
    if alarms:
        title = "Classes whose drop is larger than that (5 % of such alarms are false)"
        sections.append(Section("alarms", title, lines=alarms))
    check = Check("fmrgen gate", f"the drop in robustness is at most {gate.max_drop:g} points", _OUTCOMES[gate.verdict])
    return Report(
        "gate",
        f"Robustness on {split}",
        sections,
        asdict(gate),
        conclusions=[verdict_line(gate)],
        warnings=list(gate.notes),
        check=check,
    )


def verdict_line(gate: Gate) -> str:
    """Return the verdict in words, with what it rests on or what it would take."""
    verdicts = _VERDICTS if gate.max_drop else _VERDICTS | _VERDICTS_WITHOUT_DROP
    line = verdicts[gate.verdict].format(max_drop=gate.max_drop)
    if gate.worse:
        return f"fail: the candidate is worse on {gate.worse[0].line}{others_of(gate.worse)}"
    if gate.verdict == "pass" and gate.conditions:
        return f"{line} on these images, and {nothing_worse(gate.conditions, gate.max_drop)}"
    if gate.verdict == "undecided" and gate.rows_verdict == "undecided":
        if gate.rows_more:
            return f"{line}; about {gate.rows_more:,} rows more would"
        return f"{line}; no realistic number of rows would"
    return line


def others_of(worse: Sequence[Condition]) -> str:
    """Return how many conditions there are besides the first one, as the end of a sentence."""
    others = len(worse) - 1
    if not others:
        return ""
    noun = "change" if others == 1 else "changes"
    return f" (and under {others} other {noun})"


def nothing_worse(conditions: Sequence[Condition], max_drop: float = 0.0) -> str:
    """Return that no condition was worse, and by how many points one would have had to be."""
    points = 100 * OF_ANOTHER_SEED + max_drop
    originals = conditions[0].originals
    return (
        f"none of {len(conditions)} changes to {originals:,} originals makes it significantly worse by more than "
        f"{points:g} points"
    )


def _table(gate: Gate) -> Table:
    """Return a table of the figures that a verdict rests on."""
    rows = [["baseline", f"{gate.baseline:.2f}"], ["candidate", f"{gate.candidate:.2f}"]]
    if gate.baseline_standard is not None:
        rows.append(["baseline on originals", f"{gate.baseline_standard:.2f}"])
    if gate.candidate_standard is not None:
        rows.append(["candidate on originals", f"{gate.candidate_standard:.2f}"])
    rows += [
        ["drop, points", f"{gate.drop:z.2f}"],
        ["at least, at most (95 % each)", f"{gate.low:z.1f} – {gate.high:z.1f}"],
        ["rows looked at", f"{gate.rows:,} of {gate.valid_rows:,}"],
    ]
    return Table(["accuracy on perturbed images", "%"], rows)
