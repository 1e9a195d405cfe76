"""An evaluation as Markdown, to be pasted."""

import re

from fmrgen.errors import printable
from fmrgen.report.outline import Section, outline
from fmrgen.report.tables import Table, warning_lines
from fmrgen.results.evaluation import Evaluation

# GitHub turns these into links after Markdown is read, backslash or not: mentions, which notify people, mail addresses,
# bare addresses and issues. An invisible space behind the mark prevents it.
_LINKED = re.compile(r"@|:(?=//)|www(?=\.)|#(?=\d)|\bgh-(?=\d)", re.IGNORECASE)
_INVISIBLE_SPACE = "&#8203;"


def to_markdown(evaluation: Evaluation) -> str:
    """The sections of an evaluation's report, but for those of a page alone."""
    parts = [f"**Warning:** {escape(line)}" for line in warning_lines(evaluation)]
    for section in outline(evaluation):
        parts += _parts(section, 2)
    return "\n\n".join(parts) + "\n"


def _parts(section: Section, level: int) -> list[str]:
    if section.shown == "on the page":
        return []
    bullets = [*section.lines, *(f"{name}: {text}" for name, text in section.facts.items())]
    found = [f"{'#' * level} {escape(section.title)}", escape(section.about), *map(table_of, section.tables)]
    found.append("\n".join(f"* {escape(line)}" for line in bullets))
    for part in section.parts:
        found += _parts(part, level + 1)
    return list(filter(None, found))


def table_of(table: Table) -> str:
    """A table in Markdown."""
    header = [escape(cell) for cell in table.header]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *([escape(name), *cells] for name, *cells in table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line, without links or mentions; names come from anyone."""
    text = printable(" ".join(text.split()))
    for character in "\\`*_<>|[]&#~":
        text = text.replace(character, f"\\{character}")
    return _LINKED.sub(lambda match: match[0] + _INVISIBLE_SPACE, text)
