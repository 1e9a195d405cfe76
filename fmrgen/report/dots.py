"""Rows of named dots with their intervals: what stays readable with many classifiers, splits or classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fmrgen.metrics.intervals import Estimate, interval_ends
from fmrgen.report.plot import INK, Plot, shortened

MOST_ROWS = 60  # in one picture
_NUMBERED = 20  # rows of several dots, beside which their numbers have room


@dataclass(frozen=True)
class Series:
    """Dots of one sort; `shift` puts them above or below the middle of their row."""

    label: str
    colour: str
    marker: str = "o"
    shift: float = 0.0


@dataclass(frozen=True)
class Panel:
    """Rows under one title: a name, and a figure for each series, None where there is none."""

    title: str
    rows: Sequence[tuple[str, Sequence[Estimate | None]]]


def dot_plot(panels: Sequence[Panel], series: Sequence[Series], label: str, limit: float = 100) -> Plot:
    """The panels one under another, over an axis called `label` from 0 to `limit`; what is beyond is an arrow."""
    apart = any(one.shift for one in series)
    numbers = len(series) < 3 and (not apart or sum(len(panel.rows) for panel in panels) <= _NUMBERED)
    row_height = 0.3 if not apart else 0.5 if numbers else 0.14 + 0.07 * len(series)  # inches
    heights = [0.55 + row_height * len(panel.rows) for panel in panels]
    figure = Plot(figsize=(6.4, sum(heights) + 0.4))
    axes_of_panels = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    for axes, panel in zip(axes_of_panels, panels, strict=True):
        for place, (_, values) in enumerate(reversed(panel.rows)):
            axes.axhspan(place - 0.5, place + 0.5, color="#f2f4f6" if place % 2 else "white", zorder=0)
            for one, value in zip(series, values, strict=True):
                if value is not None:
                    _dot(axes, place + one.shift, value, one, limit, numbers)
        names = [name for name, _ in reversed(panel.rows)]
        axes.set_yticks(range(len(names)), [shortened(name) for name in names])
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlim(-0.02 * limit, 1.02 * limit)
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.set_title(panel.title)
    axes_of_panels[-1].set_xlabel(label)
    figure.tight_layout()
    there = [
        any(values[place] is not None for panel in panels for _, values in panel.rows) for place in range(len(series))
    ]
    marks = [
        Line2D([], [], color=one.colour, marker=one.marker, linestyle="", label=one.label)
        for one in compress(series, there)
    ]
    figure.legend(handles=marks, loc="upper center", ncols=len(marks), bbox_to_anchor=(0.5, 0), borderpad=0)
    return figure


def _dot(axes: Axes, place: float, value: Estimate, series: Series, limit: float, numbers: bool) -> None:
    x = min(value.value, limit)
    marker = ">" if value.value > limit else series.marker
    axes.hlines(place, *interval_ends(value), color=series.colour, linewidth=1.6, alpha=0.55)
    axes.plot([x], [place], marker, color=series.colour, markersize=5, clip_on=False)
    if numbers:
        below = series.shift < 0
        axes.annotate(
            f"{value.value:.1f}",
            (x, place),
            xytext=(0, -4 if below else 4),
            textcoords="offset points",
            ha="center",
            va="top" if below else "bottom",
            fontsize=7,
            color=INK,
        )
