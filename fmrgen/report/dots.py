"""Rows of named dots with their intervals, readable with many classifiers, splits or classes."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fmrgen.metrics.intervals import Estimate
from fmrgen.report.plot import INK, Place, Plot, shortened

MOST_ROWS = 60  # in one picture
_MOST_SERIES_WITH_NUMBERS = 2  # of three dots in a row the numbers would overlap
_MOST_ROWS_WITH_NUMBERS = 20  # where dots of a row are shifted, so that each number needs its own line
# Heights in inches.
_ROW, _SHIFTED_ROW_WITH_NUMBERS = 0.3, 0.56
_SHIFTED_ROW, _SHIFTED_DOT = 0.14, 0.07
_PANEL_TITLE, _X_AXIS = 0.55, 0.4
# An axis begins at a multiple of ten, if everything lies above the middle of it; else at zero.
_MIDDLE, _MULTIPLE = 50.0, 10.0


@dataclass(frozen=True)
class Series:
    """Dots of one sort; `shift` puts them above or below the middle of their row."""

    label: str
    colour: str
    marker: str = "o"
    shift: float = 0.0


@dataclass(frozen=True)
class Row:
    """A row of dots.

    Attributes:
        name: of the row.
        estimates: for each series, None if the series has none.
        filter: of a page's gallery, as in `Table.filters`.
    """

    name: str
    estimates: Sequence[Estimate | None]
    filter: str = ""


@dataclass(frozen=True)
class Panel:
    """Rows under one title."""

    title: str
    rows: Sequence[Row]


def dot_plot(panels: Sequence[Panel], series: Sequence[Series], label: str, limit: float = 100) -> Plot:
    """Return a plot of the panels one under another.

    Args:
        panels: from top to bottom.
        series: the sorts of dots, in the order of the estimates of each row.
        label: of the axis that all panels share.
        limit: the end of that axis; a value beyond it is drawn as an arrow.
    """
    is_shifted = any(dots.shift for dots in series)
    rows = sum(len(panel.rows) for panel in panels)
    with_numbers = len(series) <= _MOST_SERIES_WITH_NUMBERS and (not is_shifted or rows <= _MOST_ROWS_WITH_NUMBERS)
    if not is_shifted:
        row_height = _ROW
    elif with_numbers:
        row_height = _SHIFTED_ROW_WITH_NUMBERS
    else:
        row_height = _SHIFTED_ROW + _SHIFTED_DOT * len(series)
    heights = [_PANEL_TITLE + row_height * len(panel.rows) for panel in panels]
    figure = Plot(figsize=(6.4, sum(heights) + _X_AXIS))
    axes_of_panels = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    start = _start(panels, limit)
    margin = 0.02 * (limit - start)
    drawn: set[int] = set()  # places of series that have a dot
    for axes, panel in zip(axes_of_panels, panels, strict=True):
        names = []
        for place, row in enumerate(reversed(panel.rows)):
            names.append(shortened(row.name))
            axes.axhspan(place - 0.5, place + 0.5, color="#f2f4f6" if place % 2 else "white", zorder=0)
            title = _title(row, series)
            figure.places.append(Place(axes, start, place - 0.5, limit - start, 1, title, row.filter))
            for number, estimate in enumerate(row.estimates):
                if estimate is not None:
                    drawn.add(number)
                    _dot(axes, place + series[number].shift, estimate, series[number], limit, with_numbers)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlim(start - margin, limit + margin)
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.set_title(panel.title)
    axes_of_panels[-1].set_xlabel(label)
    figure.tight_layout()
    marks = []
    for number in sorted(drawn):
        dots = series[number]
        marks.append(Line2D([], [], color=dots.colour, marker=dots.marker, linestyle="", label=dots.label))
    figure.legend(handles=marks, loc="upper center", ncols=len(marks), bbox_to_anchor=(0.5, 0), borderpad=0)
    return figure


def _start(panels: Sequence[Panel], limit: float) -> float:
    """Return where the axis begins, below everything that is drawn."""
    lowest = limit
    for panel in panels:
        for row in panel.rows:
            for estimate in row.estimates:
                if estimate is not None:
                    lowest = min(lowest, *estimate.ends)
    return _MULTIPLE * (lowest // _MULTIPLE) if _MIDDLE <= lowest < limit else 0.0


def _title(row: Row, series: Sequence[Series]) -> str:
    """Return a row's figures with their intervals."""
    figures = []
    for estimate, dots in zip(row.estimates, series, strict=True):
        if estimate is not None:
            figures.append(f"{dots.label} {estimate}" if len(series) > 1 else str(estimate))
    return f"{row.name}: {'; '.join(figures)}"


def _dot(axes: Axes, place: float, estimate: Estimate, series: Series, limit: float, with_number: bool) -> None:
    x = min(estimate.value, limit)
    marker = ">" if estimate.value > limit else series.marker
    axes.hlines(place, *estimate.ends, color=series.colour, linewidth=1.6, alpha=0.55)
    axes.plot([x], [place], marker, color=series.colour, markersize=5, clip_on=False)
    if with_number:
        offset, alignment = (-4, "top") if series.shift < 0 else (4, "bottom")
        axes.annotate(
            f"{estimate.value:.1f}",
            (x, place),
            xytext=(0, offset),
            textcoords="offset points",
            ha="center",
            va=alignment,
            fontsize=7,
            color=INK,
        )
