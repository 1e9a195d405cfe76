"""The main figures as a paper's table (paper Tables 1 and 6): in LaTeX, or in Markdown."""

from collections.abc import Mapping, Sequence

from fmrgen.errors import UserError, printable, unknown_message
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import BY_FIELD, Metric
from fmrgen.results.markdown_text import escape

_OTHERS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX = str.maketrans(_OTHERS | {character: f"\\{character}" for character in "{}$&#%_"})

Cell = tuple[str, str]
"""A figure and its interval, which may be empty."""

Blocks = Mapping[str, Sequence[tuple[str, list[Cell]]]]
"""Rows, a name and its figures each, by the title that they are under, which may be empty."""


def latex_table(header: Sequence[str], blocks: Blocks) -> str:
    """Return the table as a `tabular` with the rules of booktabs."""
    lines = [
        "% percent, with 95 % intervals; needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        "\\toprule",
        f"{' & '.join(map(_latex, header))} \\\\",
    ]
    for title, rows in blocks.items():
        lines.append("\\midrule")
        if title:
            lines += [f"\\multicolumn{{{len(header)}}}{{l}}{{{_latex(title)}}} \\\\", "\\midrule"]
        for name, figures in rows:
            # After a line break LaTeX reads a bracket or a star as a part of it.
            cells = [f"{{}}{_latex(name)}" if name.startswith(("[", "*")) else _latex(name)]
            cells += [f"{value} {{\\footnotesize {interval}}}" if interval else value for value, interval in figures]
            lines.append(f"{' & '.join(cells)} \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def markdown_table(header: Sequence[str], blocks: Blocks) -> str:
    """Return the table in Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for title, rows in blocks.items():
        if title:
            lines.append([f"*{escape(title)}*", *[""] * (len(header) - 1)])
        for name, figures in rows:
            lines.append([escape(name), *(" ".join(cell).rstrip() for cell in figures)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def metrics_named(names: Sequence[str]) -> list[Metric]:
    """Return metrics by their fields of `Summary`. Raises UserError for an unknown one."""
    for name in names:
        if name not in BY_FIELD:
            raise UserError(unknown_message(f"figure {name}", name, BY_FIELD))
    return [BY_FIELD[name] for name in names]


def cell(estimate: Estimate | None) -> Cell:
    """Return a figure and its interval, with one digit."""
    if estimate is None:
        return "n/a", ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:z.1f}", ""
    return f"{estimate.value:z.1f}", f"[{estimate.low:z.1f}, {estimate.high:z.1f}]"


def _latex(text: str) -> str:
    """Return text as LaTeX prints it; names come from anyone."""
    return printable(" ".join(text.split())).translate(_LATEX)
