"""An evaluation as Markdown, to be pasted."""

from fmrgen.errors import printable
from fmrgen.evaluation.results import EvaluationResults
from fmrgen.report.outline import Section, outline
from fmrgen.report.tables import Table, warning_lines


def to_markdown(evaluation: EvaluationResults) -> str:
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
    """Text that Markdown shows as it is, on one line; names come from anyone."""
    text = printable(" ".join(text.split()))
    for character in "\\`*_<>|[]&#~":
        text = text.replace(character, f"\\{character}")
    return text
