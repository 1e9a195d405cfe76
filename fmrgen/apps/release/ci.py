"""A report for CI: as JUnit, and as the comment on a pull request."""

from xml.etree import ElementTree

from fmrgen.report.markdown import sections_to_markdown, to_markdown
from fmrgen.report.report import Report, sentence
from fmrgen.results.markdown_text import escape

_MARKS = {"good": "✅", "bad": "❌", "unclear": "❓", "plain": ""}
_LONGEST, _LONGEST_BLOCK = 60_000, 2_000  # characters: GitHub takes 65,536, and names may have any length


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


def to_comment(report: Report) -> str:
    """Return the report of a diff in Markdown, as short as a comment should be; its picture lies in the same folder."""
    mark = "" if report.badge is None else f"{_MARKS[report.badge.tone]} "
    blocks = [f"### {mark}{escape(report.title)}"]
    blocks += [escape(sentence(line)) for line in report.conclusions]
    blocks += [f"**Doubt:** {escape(line)}" for line in report.warnings]
    for section in report.sections:
        if section.shown == "in a comment":
            blocks += [f"![{escape(picture.caption)}]({picture.name}.png)" for picture in section.pictures]
    figures = sections_to_markdown(report.sections, level=4)
    if sum(map(len, (figures, *blocks))) > _LONGEST:
        figures = "They are too long for a comment: see diff.md."
    blocks.append(f"<details><summary>All figures</summary>\n\n{figures}\n\n</details>")
    return "\n\n".join(block[:_LONGEST_BLOCK] for block in blocks[:-1]) + f"\n\n{blocks[-1]}\n"
