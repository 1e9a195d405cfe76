"""Whether two measures rank classifiers alike, as a table, a scatter plot and JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from fmrgen.evaluation.correlation import Column, Correlation
from fmrgen.files import write_atomically
from fmrgen.intervals import format_coefficient, interval_ends
from fmrgen.report.plot import FAINT, LINES, Plot, PlotFormat, drawing
from fmrgen.report.tables import Table

_LARGEST = 3  # plots side by side


def correlation_table(found: Sequence[Correlation]) -> Table:
    """A row for each two measures."""
    rows = [
        [
            f"{one.first} – {one.second}",
            str(len(one.classifiers)),
            format_coefficient(one.spearman),
            format_coefficient(one.kendall),
        ]
        for one in found
    ]
    return Table(["measures", "classifiers", "Spearman's rho", "Kendall's tau"], rows)


def write_correlations(
    found: Sequence[Correlation], columns: Mapping[str, Column], folder: Path, plot_formats: Sequence[PlotFormat] = ()
) -> list[Path]:
    """Writes `agree.json` and scatter plots, PNG and in `plot_formats`, into `folder`; returns their paths."""
    told = {
        "correlations": [asdict(one) for one in found],
        "measures": {
            name: {classifier: asdict(figure) for classifier, figure in column.items()}
            for name, column in columns.items()
        },
    }
    text = json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "agree.json", text.encode())
    return [folder / "agree.json", *_plot(found, columns).save_all(folder, "agree", plot_formats)]


def _plot(found: Sequence[Correlation], columns: Mapping[str, Column]) -> Plot:
    """A classifier is a point with both intervals, in its colour wherever it is."""
    wide = min(len(found), _LARGEST)
    high = -(-len(found) // wide)
    names = sorted({name for one in found for name in one.classifiers})
    with drawing():
        figure = Plot(figsize=(4.2 * wide + 1.4, 3.8 * high))
        axes = figure.subplots(high, wide, squeeze=False)
        for place, own in enumerate(axes.flat):
            if place >= len(found):
                own.set_visible(False)
                continue
            one = found[place]
            for name in one.classifiers:
                colour = LINES[names.index(name) % len(LINES)]
                x, y = columns[one.first][name], columns[one.second][name]
                own.plot(interval_ends(x), [y.value] * 2, color=colour, linewidth=1)
                own.plot([x.value] * 2, interval_ends(y), color=colour, linewidth=1)
                own.plot(x.value, y.value, color=colour, marker="o", markersize=5, linestyle="", label=name)
                own.annotate(name, (x.value, y.value), xytext=(4, 4), textcoords="offset points", fontsize=7)
            own.set_xlabel(f"{one.first}, %")
            own.set_ylabel(f"{one.second}, %")
            own.set_title(f"rho {format_coefficient(one.spearman)}")
            own.grid(color=FAINT, linewidth=0.6)
            own.set_axisbelow(True)
            own.tick_params(length=0)
        figure.tight_layout()
    return figure
