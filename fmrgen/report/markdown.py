"""A report as Markdown, to be pasted."""

from collections.abc import Sequence
from dataclasses import replace

from fmrgen.report.report import Report, Section, Table, sentence
from fmrgen.results.markdown_text import escape


def to_markdown(report: Report, *, level: int = 1, with_pictures: bool = False) -> str:
    """Return a report in Markdown, without the sections that only a page shows.

    `level` is that of its title, in hashes. With pictures, it refers to their files, which lie in the same folder.
    """
    blocks = [f"{'#' * level} {escape(report.title)}"]
    blocks += [escape(sentence(line)) for line in report.conclusions]
    blocks += [f"**Warning:** {escape(line)}" for line in report.warnings]
    blocks.append(sections_to_markdown(report.sections, level + 1, with_pictures=with_pictures))
    return "\n\n".join(blocks) + "\n"


def sections_to_markdown(sections: Sequence[Section], level: int, *, with_pictures: bool = False) -> str:
    """Return sections in Markdown, without those that only a page shows.

    `level` is that of their titles, in hashes. With pictures, they refer to the files, which lie in the same folder.
    """
    blocks: list[str] = []
    for section in sections:
        blocks += _blocks(section, level, with_pictures)
    return "\n\n".join(blocks)


def _blocks(section: Section, level: int, with_pictures: bool) -> list[str]:
    """Return the paragraphs and tables of a section, its title first, with `level` hashes."""
    if section.shown in ("on the page", "in a comment"):
        return []
    blocks = [f"{'#' * level} {escape(section.title)}"]
    if section.about:
        blocks.append(escape(section.about))
    for table in section.tables:
        blocks.append(table_of(replace(table, rows=table.rows[: section.most_rows])))
    lines = [*section.lines, *(f"{name}: {text}" for name, text in section.facts.items())]
    if lines:
        blocks.append("\n".join(f"* {escape(line)}" for line in lines))
    for picture in section.pictures:
        if with_pictures and picture.name:
            blocks.append(f"![{escape(picture.caption)}]({picture.name}.png)")
    for part in section.parts:
        blocks += _blocks(part, level + 1, with_pictures)
    return blocks


def table_of(table: Table) -> str:
    """Return a table in Markdown."""
    header = [escape(cell) for cell in table.header]
    alignment = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, alignment]
    for name, *cells in table.rows:
        lines.append([escape(name), *(map(escape, cells) if table.of_text else cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
