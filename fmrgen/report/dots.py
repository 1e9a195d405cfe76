"""Rows of named dots with their intervals, readable with many classifiers or splits."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fmrgen.metrics.intervals import Estimate
from fmrgen.report.plot import INK, Plot, shortened

MOST_ROWS = 60  # in one picture
OWN = "#c8472f"  # of a split's own classifier
_ROW, _PANEL_TITLE, _X_AXIS = 0.3, 0.55, 0.4  # inches
# An axis begins at a multiple of ten, if everything lies above the middle of it; else at zero.
_MIDDLE, _MULTIPLE = 50.0, 10.0


class Row(NamedTuple):
    """A row with a dot."""

    name: str
    estimate: Estimate | None
    is_own: bool  # whether it is the classifier that its split was generated against


Panel = tuple[str, Sequence[Row]]
"""Rows under one title."""


def dot_plot(panels: Sequence[Panel], label: str, limit: float) -> Plot:
    """Return a plot of the panels from top to bottom; `label` is of the axis that all of them share.

    `limit` is the end of that axis; a value beyond it is drawn as an arrow.
    """
    heights = [_PANEL_TITLE + _ROW * len(rows) for _, rows in panels]
    figure = Plot(figsize=(6.4, sum(heights) + _X_AXIS))
    axes_of_panels = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    start = _start(panels, limit)
    margin = 0.02 * (limit - start)
    has_own = False
    for axes, (title, rows) in zip(axes_of_panels, panels, strict=True):
        names = []
        for place, row in enumerate(reversed(rows)):
            names.append(shortened(row.name))
            axes.axhspan(place - 0.5, place + 0.5, color="#f2f4f6" if place % 2 else "white", zorder=0)
            has_own |= row.is_own
            if row.estimate is not None:
                _dot(axes, place, row.estimate, row.is_own, limit)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlim(start - margin, limit + margin)
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.set_title(title)
    axes_of_panels[-1].set_xlabel(label)
    figure.tight_layout()
    if has_own:
        own = Line2D([], [], color=OWN, marker="D", linestyle="", label="the split's own classifier")
        others = Line2D([], [], color=INK, marker="o", linestyle="", label="others")
        figure.legend(handles=[own, others], loc="upper center", ncols=2, bbox_to_anchor=(0.5, 0), borderpad=0)
    return figure


def _start(panels: Sequence[Panel], limit: float) -> float:
    """Return where the axis begins, below everything that is drawn."""
    lowest = limit
    for _, rows in panels:
        for row in rows:
            if row.estimate is not None:
                lowest = min(lowest, *row.estimate.ends)
    return _MULTIPLE * (lowest // _MULTIPLE) if _MIDDLE <= lowest < limit else 0.0


def _dot(axes: Axes, place: float, estimate: Estimate, is_own: bool, limit: float) -> None:
    x = min(estimate.value, limit)
    colour, marker = (OWN, "D") if is_own else (INK, "o")
    if estimate.value > limit:
        marker = ">"
    axes.hlines(place, *estimate.ends, color=colour, linewidth=1.6, alpha=0.55)
    axes.plot([x], [place], marker, color=colour, markersize=5, clip_on=False)
    axes.annotate(
        f"{estimate.value:.1f}", (x, place), (0, 4), "data", "offset points", ha="center", va="bottom", fontsize=7
    )
