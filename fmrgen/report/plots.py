"""The figures of an evaluation as pictures, each a PNG."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fmrgen.evaluation.results import EvaluatedSplit, EvaluationResults, Result
from fmrgen.intervals import Estimate
from fmrgen.metrics import COMPARED, Summary
from fmrgen.report.step_plots import step_plots
from fmrgen.report.tables import short_names

_INK, _FAINT = "#22303c", "#c9d1d8"
_SA, _PA, _ORACLE = "#7d93a8", "#c8472f", "#3f7d58"
_HEAT = LinearSegmentedColormap.from_list("robustness", ["#b5361c", "#e8a07c", "#f6efe6", "#9dbfd3", "#2b6690"])
_STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titlecolor": _INK,
    "text.color": _INK,
    "text.parse_math": False,  # a class may be called b$_$c
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "savefig.dpi": 160,
    "savefig.facecolor": "white",
}
_LONGEST_LINE = 14  # letters of a name under a bar or over a column
_MOST_CLASSES = 30  # that a chart by class shows; of more, those with the lowest PA


def all_plots(evaluation: EvaluationResults) -> dict[str, bytes]:
    """File name → PNG of every plot that the figures allow."""
    with style.context(_STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # names may be in any script
        plots = {"accuracy.png": _accuracy(evaluation)}
        if len(evaluation.results) > 1:
            plots["transfer.png"] = _transfer(evaluation)
        if any(split.iterations for split in evaluation.splits):
            plots["iterations.png"] = _iterations([split for split in evaluation.splits if split.iterations])
        plots["classes.png"] = _classes(evaluation)
        plots |= step_plots(evaluation.splits)
        return {name: _png(figure) for name, figure in plots.items()}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def _transfer(evaluation: EvaluationResults) -> Figure:
    """Splits down, classifiers across; FMR where there are originals, else PA, with its interval in every cell."""
    has_fmr = any(result.total.fmr for result in evaluation.results)
    measure = "fmr" if has_fmr else "perturbed_accuracy"
    cells: list[list[Estimate | None]] = [
        [getattr(result.total, measure) for result in row] for row in evaluation.matrix
    ]
    values = np.array([[np.nan if cell is None else cell.value for cell in row] for row in cells])
    columns = [_broken(classifier.name) for classifier in evaluation.classifiers]
    figure = Figure(figsize=(2.6 + 1.25 * len(columns), 1.6 + 0.75 * len(cells)))
    axes = figure.subplots()
    picture = axes.imshow(values, cmap=_HEAT, vmin=0, vmax=100, aspect="auto")
    for i, row in enumerate(evaluation.matrix):
        for j, result in enumerate(row):
            _write_cell(axes, i, j, cells[i][j])
            if result.conditioned:
                axes.add_patch(Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, fill=False, edgecolor=_INK, linewidth=1.8))
    short = short_names([split.name for split in evaluation.splits])
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(cells)), [_broken(short[split.name]) for split in evaluation.splits])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("tested classifier", labelpad=8)
    axes.set_ylabel("split made for", labelpad=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(picture, ax=axes, shrink=0.9, pad=0.03)
    bar.outline.set_visible(False)
    bar.set_label(f"{COMPARED[measure].name}, %")
    if any(result.conditioned for result in evaluation.results):
        axes.text(
            0,
            -0.06,
            "framed: the classifier that the split was made for",
            transform=axes.transAxes,
            fontsize=8,
            va="top",
        )
    return figure


def _write_cell(axes: Axes, row: int, column: int, cell: Estimate | None) -> None:
    if cell is None:
        axes.text(column, row, "n/a", ha="center", va="center")
        return
    colour = "white" if cell.value < 18 or cell.value > 88 else _INK
    axes.text(column, row - 0.1, f"{cell.value:.1f}", ha="center", va="center", color=colour, fontsize=12)
    interval = f"{cell.low:.0f} – {cell.high:.0f}"
    axes.text(column, row + 0.24, interval, ha="center", va="center", color=colour, fontsize=8)


def _accuracy(evaluation: EvaluationResults) -> Figure:
    """SA beside PA of every classifier on every split, with intervals."""
    widest = max(len(row) for row in evaluation.matrix)
    figure = Figure(figsize=(2 + 1.1 * widest * min(3, len(evaluation.splits)), 3.2 * -(-len(evaluation.splits) // 3)))
    panels = figure.subplots(
        -(-len(evaluation.splits) // 3), min(3, len(evaluation.splits)), squeeze=False, sharey=True
    )
    short = short_names([split.name for split in evaluation.splits])
    for axes, split, row in _panels(panels, evaluation):
        places = np.arange(len(row))
        for shift, label, colour, values in (
            (-0.2, "SA, originals", _SA, [result.total.standard_accuracy for result in row]),
            (0.2, "PA, perturbed", _PA, [result.total.perturbed_accuracy for result in row]),
        ):
            _bars(axes, places + shift, values, 0.36, colour, label)
        names = [f"{_broken(r.classifier)}{' ◆' if r.conditioned else ''}" for r in row]
        axes.set_xticks(places, names)
        axes.set_ylim(0, 108)
        axes.set_yticks(range(0, 101, 25))
        axes.grid(axis="y", color=_FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.set_title(_broken(short[split.name]))
    panels[0][0].set_ylabel("accuracy, %")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncols=2, bbox_to_anchor=(0.5, -0.02 if len(evaluation.splits) < 4 else 0)
    )
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    return figure


def _bars(
    axes: Axes, places: np.ndarray, values: Sequence[Estimate | None], width: float, colour: str, label: str
) -> None:
    heights = [0.0 if value is None else value.value for value in values]
    axes.bar(places, heights, width, color=colour, label=label)
    for place, value in zip(places, values, strict=True):
        if value is None:
            axes.text(place, 1, "n/a", ha="center", fontsize=8)
        else:
            axes.text(place, (value.high or value.value) + 1.5, f"{value.value:.1f}", ha="center", fontsize=8)
            axes.vlines(place, value.low or value.value, value.high or value.value, color=_INK, linewidth=1.2)


def _panels(panels: np.ndarray, evaluation: EvaluationResults) -> "list[tuple[Axes, EvaluatedSplit, list[Result]]]":
    """An axes for every split; those that are left over are switched off."""
    flat = list(panels.flat)
    for axes in flat[len(evaluation.splits) :]:
        axes.set_axis_off()
    return list(zip(flat, evaluation.splits, evaluation.matrix, strict=False))


def _iterations(splits: list[EvaluatedSplit]) -> Figure:
    """How many valid rows took how many guided steps."""
    figure = Figure(figsize=(6.4, 0.6 + 1.5 * len(splits)))
    panels = figure.subplots(len(splits), 1, squeeze=False, sharex=True)[:, 0]
    short = short_names([split.name for split in splits])
    for axes, split in zip(panels, splits, strict=True):
        counts = {int(steps): rows for steps, rows in (split.iterations or {}).items()}
        axes.bar(list(counts), list(counts.values()), width=0.9, color=_PA)
        mean = sum(steps * rows for steps, rows in counts.items()) / sum(counts.values())
        axes.axvline(mean, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(mean, axes.get_ylim()[1], f" mean {mean:.1f}", va="top", fontsize=8)
        axes.set_title(short[split.name])
        axes.set_ylabel("rows")
        axes.tick_params(length=0)
    panels[-1].set_xlabel("guided steps in the stored image")
    figure.tight_layout()
    return figure


def _classes(evaluation: EvaluationResults) -> Figure:
    """SA, PA and the oracle's accuracy by class: on each split its own classifier, or else the first one."""
    shown = [
        (split, next((result for result in row if result.conditioned), row[0]))
        for split, row in zip(evaluation.splits, evaluation.matrix, strict=True)
    ]
    classes = [_lowest(result.classes) for _, result in shown]
    heights = [0.9 + 0.27 * len(chosen) for chosen in classes]
    figure = Figure(figsize=(6.4, sum(heights) + 0.4))
    panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    short = short_names([split.name for split in evaluation.splits])
    for axes, (split, result), chosen in zip(panels, shown, classes, strict=True):
        for place, index in enumerate(reversed(chosen)):
            summary = result.classes[index]
            axes.axhline(place, color=_FAINT, linewidth=0.6, zorder=0)
            _dot(axes, place, summary.oracle_accuracy, _ORACLE, "D", "oracle on originals")
            _dot(axes, place, summary.standard_accuracy, _SA, "o", "SA")
            _dot(axes, place, summary.perturbed_accuracy, _PA, "o", "PA")
        names = [split.class_names[index] for index in reversed(chosen)]
        axes.set_yticks(range(len(chosen)), [name if len(name) <= 28 else f"{name[:27]}…" for name in names])
        axes.set_ylim(-0.6, len(chosen) - 0.4)
        axes.set_xlim(-2, 102)
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        more = f", the {len(chosen)} classes of lowest PA" if len(chosen) < len(result.classes) else ""
        axes.set_title(f"{result.classifier} on {short[split.name]}{more}")
    by_label = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    panels[-1].set_xlabel("accuracy of each class, %")
    figure.legend(by_label.values(), by_label.keys(), loc="lower center", ncols=3, bbox_to_anchor=(0.5, -0.03))
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    return figure


def _lowest(classes: Sequence[Summary]) -> list[int]:
    """The classes to show, in their own order."""
    there = [index for index, summary in enumerate(classes) if summary.rows]
    if len(there) <= _MOST_CLASSES:
        return there
    pa = {index: classes[index].perturbed_accuracy for index in there}
    return sorted(sorted(there, key=lambda index: e.value if (e := pa[index]) else 200.0)[:_MOST_CLASSES])


def _dot(axes: Axes, place: int, value: Estimate | None, colour: str, marker: str, label: str) -> None:
    if value is not None:
        axes.hlines(place, value.low or 0, value.high or 0, color=colour, linewidth=1.6, alpha=0.55)
        axes.plot([value.value], [place], marker, color=colour, markersize=5, label=label, linestyle="none")


def _broken(name: str) -> str:
    """A long name on two lines, each cut where it would run into the next name."""
    lines = [name]
    for mark in ("/", ".", "_", "-", " ") if len(name) > _LONGEST_LINE else ():
        if mark in name[4:-3]:
            end = name.index(mark, 4) + 1
            lines = [name[:end], name[end:]]
            break
    return "\n".join(line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 1]}…" for line in lines)
