"""Whether two measures rank classifiers alike, as a table, a scatter plot and JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path

from fmrgen.apps.studies.rank_correlation import Column, Correlation
from fmrgen.files import write_atomically
from fmrgen.metrics.intervals import format_coefficient
from fmrgen.report.plot import Plot, PlotFormat, draw_points, drawing, write_key
from fmrgen.report.tables import Table

_LARGEST = 3  # plots side by side
_MOST = 12  # plots; more are in the table alone


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
    content = {
        "correlations": [asdict(one) for one in found],
        "measures": {
            name: {classifier: asdict(figure) for classifier, figure in column.items()}
            for name, column in columns.items()
        },
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "agree.json", text.encode())
    return [folder / "agree.json", *correlation_plot(found, columns).save_all(folder, "agree", plot_formats)]


def correlation_plot(found: Sequence[Correlation], columns: Mapping[str, Column]) -> Plot:
    """A classifier is a point with both intervals, in its colour wherever it is."""
    shown = found[:_MOST]
    wide = min(len(shown), _LARGEST)
    high = -(-len(shown) // wide)
    names = sorted({name for one in shown for name in one.classifiers})
    with drawing():
        figure = Plot(figsize=(4.2 * wide + 1.4, 3.8 * high))
        panels = figure.subplots(high, wide, squeeze=False).flat
        for axes, one in zip_longest(panels, shown):
            if one is None:
                axes.set_visible(False)
                continue
            points = [(name, columns[one.first][name], columns[one.second][name]) for name in one.classifiers]
            draw_points(axes, points, names)
            axes.set_xlabel(f"{one.first}, %")
            axes.set_ylabel(f"{one.second}, %")
            axes.set_title(f"rho {format_coefficient(one.spearman)}")
        figure.tight_layout()
        write_key(figure, names)
    return figure
