"""The outcome of a gate for people, for GitHub's summary of a step, and for readers of JUnit."""

from collections.abc import Sequence
from xml.etree import ElementTree

from fmrgen.apps.release.conditions import OF_ANOTHER_SEED
from fmrgen.metrics.sequential_test import Condition, Gate
from fmrgen.report.markdown import escape, table_of
from fmrgen.report.tables import Table

_VERDICTS = {
    "pass": "pass: the candidate loses at most {max_drop:g} points",
    "fail": "fail: the candidate loses more than {max_drop:g} points",
    "undecided": "undecided: these images do not show whether the candidate loses more than {max_drop:g} points",
    "invalid": "invalid: no decision about a drop of {max_drop:g} points, see the notes",
}
# The same if no drop is allowed.
_VERDICTS_WITHOUT_DROP = {
    "pass": "pass: the candidate is at least as accurate",
    "fail": "fail: the candidate is less accurate",
    "undecided": "undecided: these images do not show whether the candidate is less accurate",
}
_JUNIT = {"fail": "failure", "undecided": "skipped", "invalid": "error"}


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


def gate_table(gate: Gate) -> Table:
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


def alarm_lines(gate: Gate) -> list[str]:
    """Return a line for each class with an alarm."""
    return [f"class {alarm.name}: drop of {alarm.drop:.1f} points over {alarm.rows:,} rows" for alarm in gate.alarms]


def condition_lines(gate: Gate) -> list[str]:
    """Return a line for each condition under which the candidate is significantly worse."""
    return [f"worse on {condition.line}" for condition in gate.worse]


def gate_markdown(gate: Gate, split: str) -> str:
    """Return a gate's outcome as Markdown, for the summary of a step."""
    parts = [
        f"### Robustness on {escape(split)}: {gate.verdict}",
        f"{escape(verdict_line(gate))}.",
        table_of(gate_table(gate)),
    ]
    parts += [escape(note) for note in gate.notes]
    worse = condition_lines(gate)
    if worse:
        parts.append(f"Changed originals on which the candidate is worse:\n\n{bullets(worse)}")
    alarms = alarm_lines(gate)
    if alarms:
        parts.append(f"Classes whose drop is larger than that (5 % of such alarms are false):\n\n{bullets(alarms)}")
    return "\n\n".join(parts) + "\n"


def bullets(lines: Sequence[str]) -> str:
    """Return a list of lines in Markdown."""
    return "\n".join(f"* {escape(line)}" for line in lines)


def gate_junit(gate: Gate, split: str) -> bytes:
    """Return a JUnit file with one test: a failure, skipped or an error by the verdict, with alarms in its output."""
    name = f"the drop in robustness is at most {gate.max_drop:g} points"
    message = "; ".join([verdict_line(gate), *gate.notes])
    lines = [
        *(f"{name}: {value}" for name, value in gate_table(gate).rows),
        *gate.notes,
        *condition_lines(gate),
        *alarm_lines(gate),
    ]
    return junit_of_one("fmrgen gate", split, name, _JUNIT.get(gate.verdict), message, lines)


def junit_of_one(suite_name: str, about: str, name: str, tag: str | None, message: str, lines: Sequence[str]) -> bytes:
    """Return a JUnit file with one test.

    Args:
        suite_name: the name of the test suite.
        about: the class name of the test.
        name: of the test.
        tag: `failure`, `error` or `skipped`; None if it has passed.
        message: why it has not passed.
        lines: the output of the test.
    """
    counts = {"tests": 1, "errors": tag == "error", "failures": tag == "failure", "skipped": tag == "skipped"}
    attributes = {"name": suite_name} | {name: str(int(count)) for name, count in counts.items()}
    suite = ElementTree.Element("testsuite", attributes)
    case = ElementTree.SubElement(suite, "testcase", classname=_plain(about), name=name)
    if tag is not None:
        ElementTree.SubElement(case, tag, message=_plain(message))
    ElementTree.SubElement(case, "system-out").text = _plain("\n".join(lines))
    ElementTree.indent(suite)
    text: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _plain(text: str) -> str:
    """Return text without characters that XML does not allow; names come from anyone."""
    return "".join(character if character in "\n\t" or character.isprintable() else "�" for character in text)
