"""The report of rank correlations of measures over classifiers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import zip_longest

from fmrgen.apps.studies.rank_correlation import Column
from fmrgen.report.plot import Plot, draw_points, drawing, write_key
from fmrgen.report.report import Picture, Report, Section, Table
from fmrgen.results.rank_correlation import RankCorrelation

_LARGEST = 3  # plots side by side
_MOST = 12  # plots; more are in the table alone


def correlations_report(correlations: Sequence[RankCorrelation], columns: Mapping[str, Column]) -> Report:
    """Return the report of rank correlations.

    Args:
        correlations: of pairs of measures.
        columns: the measures.
    """
    measures = {}
    for name, column in columns.items():
        measures[name] = {classifier: asdict(figure) for classifier, figure in column.items()}
    content = {"correlations": [asdict(pair) for pair in correlations], "measures": measures}
    plot = Picture("A point for each classifier, with both intervals", partial(_plot, correlations, columns), "agree")
    title = "Rank correlations over classifiers; an mCE is an error"
    section = Section("correlations", title, tables=[_table(correlations)], pictures=[plot])
    return Report("agree", "Do measures rank classifiers alike?", [section], content)


def _table(correlations: Sequence[RankCorrelation]) -> Table:
    """Return a row for each two measures."""
    rows = []
    for pair in correlations:
        coefficients = [f"{pair.spearman:z.2f}", f"{pair.kendall:z.2f}", f"{pair.p_value:.2g}"]
        rows.append([f"{pair.first} – {pair.second}", str(len(pair.classifiers)), *coefficients])
    return Table(["measures", "classifiers", "Spearman's rho", "Kendall's tau", "p"], rows)


def _plot(correlations: Sequence[RankCorrelation], columns: Mapping[str, Column]) -> Plot:
    """Plot each classifier as a point with both intervals, in the same colour in every panel."""
    shown = correlations[:_MOST]
    wide = min(len(shown), _LARGEST)
    high = -(-len(shown) // wide)
    classifiers: set[str] = set()
    for pair in shown:
        classifiers.update(pair.classifiers)
    names = sorted(classifiers)
    with drawing():
        figure = Plot(figsize=(4.2 * wide + 1.4, 3.8 * high))
        panels = figure.subplots(high, wide, squeeze=False).flat
        for axes, panel_pair in zip_longest(panels, shown):
            if panel_pair is None:
                axes.set_visible(False)
                continue
            first, second = columns[panel_pair.first], columns[panel_pair.second]
            draw_points(axes, [(name, first[name], second[name]) for name in panel_pair.classifiers], names)
            axes.set_xlabel(f"{panel_pair.first}, %")
            axes.set_ylabel(f"{panel_pair.second}, %")
            axes.set_title(f"rho {panel_pair.spearman:z.2f}, p = {panel_pair.p_value:.2g}")
        figure.tight_layout()
        write_key(figure, names)
    return figure
