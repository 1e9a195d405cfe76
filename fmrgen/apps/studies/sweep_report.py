"""The report of a sweep."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fmrgen.apps.studies.sweep import SweepResult
from fmrgen.metrics.summary import METRICS, Metric
from fmrgen.report.plot import Plot, colours, draw_band, drawing, grid_of_figures
from fmrgen.report.report import Picture, Report, Section, Table

_TICKS = 8  # that have room for a number
_LEVEL_TICKS = 3  # that have room for a word
_MOST_LETTERS = 20  # of a word at a tick
_LOG_RANGE = 10  # of the largest value to the smallest, from which on the axis is logarithmic
_NAMED = 30  # lines that the legend names
_SHOWN = ("standard_accuracy", "perturbed_accuracy", "validation_rate", "fmr", "mean_iterations")


def sweep_report(results: Sequence[SweepResult], recipe: str) -> Report:
    """Return the report of a sweep.

    Args:
        results: of all combinations.
        recipe: that was changed.
    """
    plot = Picture("FMR, VR and steps over the values", partial(_plot, results), "sweep")
    section = Section("sweep", recipe, tables=[_table(results)], pictures=[plot])
    content = []
    for result in results:
        content.append({"values": dict(result.values), "folder": result.name, "summary": asdict(result.summary)})
    return Report("sweep", f"Sweep of {recipe}", [section], content)


def _table(results: Sequence[SweepResult]) -> Table:
    """Return a row for each combination."""
    metrics = [metric for metric in METRICS if metric.field in _SHOWN]
    rows = []
    for result in results:
        values = ", ".join(map(str, result.values.values()))
        rows.append([values, *map(result.summary.text_of, metrics)])
    keys = ", ".join(map(_short, results[0].values))
    return Table([keys, *[metric.name for metric in metrics]], rows)


def _short(key: str) -> str:
    """Return a key of a recipe without its section."""
    return key.rpartition(".")[2]


def _plot(results: Sequence[SweepResult]) -> Plot:
    """Plot FMR, VR and iterations over the first key that varies, with a line for each combination of the others."""
    key, *others = results[0].values
    lines: dict[str, list[SweepResult]] = {}
    for result in results:
        name = ", ".join([f"{_short(other)} {result.values[other]}" for other in others])
        lines.setdefault(name, []).append(result)
    with drawing():
        figure = Plot(figsize=(6.4, 6.6))
        panels = figure.subplots(3, 1, sharex=True)
        for axes, field in zip(panels, ("fmr", "validation_rate", "mean_iterations"), strict=True):
            metric = next(metric for metric in METRICS if metric.field == field)
            for colour, (name, points) in zip(colours(len(lines)), lines.items(), strict=True):
                _draw_line(axes, key, points, metric, colour, name)
            comma = "," if metric.unit.strip() else ""
            axes.set_ylabel(f"{metric.name}{comma}{metric.unit}")
            if "%" in metric.unit:
                grid_of_figures(axes)
            else:
                grid_of_figures(axes, np.inf)
        panels[-1].set_xlabel(key)
        figure.tight_layout()
        if others:
            handles, names = panels[0].get_legend_handles_labels()
            panels[0].legend(handles[:_NAMED], names[:_NAMED], fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _draw_line(axes: Axes, key: str, results: Sequence[SweepResult], metric: Metric, colour: Any, name: str) -> None:
    """Draw a metric over the values of a key, and set the axis of these."""
    values = [result.values[key] for result in results]
    are_numbers = _are_numbers(values)
    if not are_numbers:
        axes.set_xticks(range(len(values)), [str(value)[:_MOST_LETTERS] for value in values])
        axes.tick_params("x", rotation=0 if len(values) <= _LEVEL_TICKS else 30)
    elif min(values) > 0 and max(values) >= _LOG_RANGE * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")  # not the default, which is of TeX
        axes.xaxis.set_minor_formatter("")
        if len(values) <= _TICKS:
            axes.set_xticks(values)
    places: list[Any] = []
    estimates = []
    for value, result in zip(values, results, strict=True):
        estimate = result.summary[metric]
        if estimate is not None:
            places.append(value if are_numbers else values.index(value))
            estimates.append(estimate)
    order = np.argsort(places)
    draw_band(axes, [places[i] for i in order], [estimates[i] for i in order], colour, name, marker="o")


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
