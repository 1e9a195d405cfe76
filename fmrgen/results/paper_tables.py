"""The main figures as a paper's table (paper Tables 1 and 6): in LaTeX, or in Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from fmrgen.errors import UserError, printable, unknown_message
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import BY_FIELD, Metric, Summary
from fmrgen.results.markdown_text import escape

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


@dataclass(frozen=True)
class Block:
    """Rows under one title.

    Attributes:
        title: of the block; empty for none.
        rows: the classifier's name, and its figures.
    """

    title: str
    rows: list[tuple[str, Summary]]


def latex_table(blocks: Sequence[Block], names: Sequence[str]) -> str:
    """Return the table as a `tabular` with the rules of booktabs; `names` are fields of `Summary`."""
    metrics = _metrics(names)
    header = _header(metrics)
    lines = [
        "% percent, with 95 % intervals; needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        "\\toprule",
        f"{' & '.join(map(_latex, header))} \\\\",
    ]
    for block in blocks:
        lines.append("\\midrule")
        if block.title:
            lines += [f"\\multicolumn{{{len(header)}}}{{l}}{{{_latex(block.title)}}} \\\\", "\\midrule"]
        for name, summary in block.rows:
            # After a line break LaTeX reads a bracket or a star as a part of it.
            cells = [f"{{}}{_latex(name)}" if name.startswith(("[", "*")) else _latex(name)]
            for metric in metrics:
                value, interval = _texts(summary[metric])
                cells.append(f"{value} {{\\footnotesize {interval}}}" if interval else value)
            lines.append(f"{' & '.join(cells)} \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def markdown_table(blocks: Sequence[Block], names: Sequence[str]) -> str:
    """Return the table in Markdown; `names` are fields of `Summary`."""
    metrics = _metrics(names)
    header = _header(metrics)
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for block in blocks:
        if block.title:
            lines.append([f"*{escape(block.title)}*", *[""] * (len(header) - 1)])
        for name, summary in block.rows:
            cells = [" ".join(_texts(summary[metric])).rstrip() for metric in metrics]
            lines.append([escape(name), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _header(metrics: Sequence[Metric]) -> list[str]:
    return ["classifier", *(metric.name for metric in metrics)]


def _metrics(names: Sequence[str]) -> list[Metric]:
    for name in names:
        if name not in BY_FIELD:
            raise UserError(unknown_message(f"figure {name}", name, BY_FIELD))
    return [BY_FIELD[name] for name in names]


def _texts(estimate: Estimate | None) -> tuple[str, str]:
    """Return a figure and its interval, with one digit."""
    if estimate is None:
        return "n/a", ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:z.1f}", ""
    return f"{estimate.value:z.1f}", f"[{estimate.low:z.1f}, {estimate.high:z.1f}]"


def _latex(text: str) -> str:
    """Return text as LaTeX prints it; names come from anyone."""
    return "".join(_LATEX.get(character, character) for character in printable(" ".join(text.split())))
