"""A report as JUnit, for CI."""

from xml.etree import ElementTree

from fmrgen.report.markdown import to_markdown
from fmrgen.report.report import Report


def to_junit(report: Report) -> bytes:
    """Return a JUnit file with one test, the check of a report that has one; its output is the report as Markdown."""
    check = report.check
    assert check is not None
    suite = ElementTree.Element("testsuite", name=check.suite, tests="1")
    for count, outcome in (("errors", "error"), ("failures", "failure"), ("skipped", "skipped")):
        suite.set(count, str(int(check.outcome == outcome)))
    case = ElementTree.SubElement(suite, "testcase", classname=_plain(report.title), name=check.name)
    if check.outcome != "passed":
        message = "; ".join([*report.conclusions, *report.warnings])
        ElementTree.SubElement(case, check.outcome, message=_plain(message))
    ElementTree.SubElement(case, "system-out").text = _plain(to_markdown(report))
    ElementTree.indent(suite)
    text: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _plain(text: str) -> str:
    """Return text without characters that XML does not allow; names come from anyone."""
    return "".join(character if character in "\n\t" or character.isprintable() else "�" for character in text)
