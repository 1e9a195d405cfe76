"""A sweep as a table, a plot and JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fmrgen.apps.studies.sweep_result import SweepResult
from fmrgen.files import write_atomically
from fmrgen.metrics.summary import METRICS, Metric
from fmrgen.report.plot import MOST_PERCENT, Plot, PlotFormat, colours, draw_band, drawing, grid_of_figures
from fmrgen.report.tables import Table

_TICKS = 8  # that have room for a number
_NAMED = 30  # lines that the legend names
_SHOWN = ("standard_accuracy", "perturbed_accuracy", "validation_rate", "fmr", "mean_iterations")


def sweep_table(results: Sequence[SweepResult]) -> Table:
    """A row for each combination."""
    shown = [metric for metric in METRICS if metric.field in _SHOWN]
    rows = [
        [", ".join(map(str, result.values.values())), *(result.summary.text_of(metric) for metric in shown)]
        for result in results
    ]
    keys = ", ".join(key.rpartition(".")[2] for key in results[0].values)
    return Table([keys, *(metric.name for metric in shown)], rows)


def write_sweep(results: Sequence[SweepResult], folder: Path, plot_formats: Sequence[PlotFormat] = ()) -> list[Path]:
    """Writes `sweep.json` and the plot, a PNG and in `plot_formats`, into `folder`; returns their paths."""
    content = [{"values": dict(r.values), "folder": r.name, "summary": asdict(r.summary)} for r in results]
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / "sweep.json", text.encode())
    return [folder / "sweep.json", *sweep_plot(results).save_all(folder, "sweep", plot_formats)]


def sweep_plot(results: Sequence[SweepResult]) -> Plot:
    """FMR, VR and iterations over the first key that varies; a line for each combination of the others."""
    key, *others = results[0].values
    lines: dict[str, list[SweepResult]] = {}
    for result in results:
        name = ", ".join(f"{other.rpartition('.')[2]} {result.values[other]}" for other in others)
        lines.setdefault(name, []).append(result)
    with drawing():
        figure = Plot(figsize=(6.4, 6.6))
        panels = figure.subplots(3, 1, sharex=True)
        for axes, field in zip(panels, ("fmr", "validation_rate", "mean_iterations"), strict=True):
            metric = next(metric for metric in METRICS if metric.field == field)
            for colour, (name, of_line) in zip(colours(len(lines)), lines.items(), strict=True):
                _line(axes, key, of_line, metric, colour, name)
            axes.set_ylabel(f"{metric.name}{',' if metric.unit.strip() else ''}{metric.unit}")
            grid_of_figures(axes, MOST_PERCENT if "%" in metric.unit else np.inf)
        panels[-1].set_xlabel(key)
        figure.tight_layout()
        if others:
            handles, names = panels[0].get_legend_handles_labels()
            panels[0].legend(handles[:_NAMED], names[:_NAMED], fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _line(axes: Axes, key: str, results: Sequence[SweepResult], metric: Metric, colour: Any, name: str) -> None:
    values = [result.values[key] for result in results]
    known = [(value, estimate) for value, r in zip(values, results, strict=True) if (estimate := r.summary[metric])]
    if _are_numbers(values):
        places: list[Any] = [value for value, _ in known]
        if min(values) > 0 and max(values) >= 10 * min(values):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")  # not the default, which is of TeX
            axes.xaxis.set_minor_formatter("")
            if len(values) <= _TICKS:
                axes.set_xticks(values)
    else:
        places = [values.index(value) for value, _ in known]
        axes.set_xticks(range(len(values)), [str(value)[:20] for value in values])
        axes.tick_params("x", rotation=0 if len(values) <= 3 else 30)
    order = np.argsort(places)
    draw_band(axes, [places[i] for i in order], [known[i][1] for i in order], colour, name, marker="o")


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
