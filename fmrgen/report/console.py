"""A report in a terminal."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Box
from rich.text import Text

from fmrgen.errors import printable
from fmrgen.report.report import Report, Section, Table


def print_report(report: Report, *, every: bool = True) -> None:
    """Print a report's warnings, the sections that a terminal shows, and its conclusions.

    With `every`, all tables whole; else the first one in short, and the notes.
    """
    for line in report.warnings:
        _print_line(f"warning: {line}")
    if every:
        for section in report.sections:
            _print_section(section)
    else:
        _print_first_table(report)
    for line in report.conclusions:
        _print_line(line)


def print_table(content: Table, title: str) -> None:
    """Print a table; figures stand over their intervals.

    What is too wide goes on below, its rows named again.
    """
    console = terminal()
    names, *columns = zip(*(map(_stacked, row) for row in [content.header, *content.rows]), strict=True)
    room = console.width - min(_width(names), console.width // 3)
    parts: list[list[Any]] = [[]]
    for column in columns:
        if parts[-1] and sum(map(_width, [*parts[-1], column])) > room:
            parts.append([])
        parts[-1].append(column)
    for number, part in enumerate(parts):
        shown_title = Text(printable(title)) if title and number == 0 else None
        table = Box(title=shown_title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column(names[0], overflow="fold", max_width=console.width // 3)
        for header, *_ in part:
            if content.of_text:
                table.add_column(header, overflow="fold")
            else:
                table.add_column(header, justify="right", no_wrap=True)
        for row in zip(names[1:], *(column[1:] for column in part), strict=True):
            table.add_row(*row)
        console.print(table)


def _print_first_table(report: Report) -> None:
    """Print the first columns and rows of the first table, how to read it, and the notes."""
    sections = [section for section in report.all_sections() if section.shown == "everywhere"]
    section = next((section for section in sections if section.tables), None)
    if section is not None:
        table = section.tables[0]
        first = {table.header[0], *(table.first_columns or table.header)}
        is_first = [name in first for name in table.header]
        header, *rows = [list(compress(line, is_first)) for line in [table.header, *table.rows[:8]]]
        print_table(replace(table, header=header, rows=rows), section.title)
        if section.about:
            _print_line(section.about)
        shown = {
            "rows": (len(rows), len(table.rows)),
            "columns": (len(header), len(table.header)),
            "tables": (1, sum(len(other.tables) for other in sections)),
        }
        cut = [f"{part} of {whole} {name}" for name, (part, whole) in shown.items() if part < whole]
        if cut:
            _print_line(f"{', '.join(cut)}; --all prints the rest")
    if report.about:
        _print_line(report.about)
    for section in sections:
        if section.kind == "notes":
            for line in section.lines:
                _print_line(f"note: {line}")


def _print_section(section: Section) -> None:
    """Print the tables of a section, the first under its title, then its lines; a section without tables is notes."""
    if section.shown != "everywhere":
        return
    for number, table in enumerate(section.tables):
        shown = replace(table, rows=table.rows[: section.most_rows])
        print_table(shown, "" if number else section.title)
        if len(shown.rows) < len(table.rows):
            _print_line(f"{len(shown.rows)} of {len(table.rows)} rows; the page has more")
    if section.about:
        _print_line(section.about)
    for line in section.lines:
        _print_line(line if section.tables else f"note: {line}")
    for part in section.parts:
        _print_section(part)


def _print_line(line: str) -> None:
    """Print a line that may come from data: what a terminal would obey is written out."""
    print(printable(line))


def terminal() -> Console:
    """Return a terminal that takes text for text: names of folders, splits and classes are no markup.

    A log has wide lines.
    """
    is_log = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(markup=False, emoji=False, width=200 if is_log else None)


def _width(column: Sequence[Text]) -> int:
    """Return the width of a column, with the gap to the next."""
    return 2 + max(map(cell_len, "\n".join(cell.plain for cell in column).split("\n")))


def _stacked(cell: str) -> Text:
    """Return a figure over its interval: side by side they are too wide for most terminals."""
    cell = printable(cell)
    value, bracket, interval = cell.partition(" [")
    return Text(f"{value}\n{interval.rstrip(']').replace(', ', ' to ')}" if bracket else cell)
