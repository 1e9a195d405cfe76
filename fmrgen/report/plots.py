"""The figures of an evaluation as pictures."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from fmrgen.evaluation.results import EvaluatedSplit, EvaluationData, EvaluationResults, Result
from fmrgen.intervals import Estimate, interval_ends
from fmrgen.metrics import COMPARED, Summary
from fmrgen.report.plot import FAINT, INK, Plot, drawing
from fmrgen.report.side_by_side import common_rows, side_by_side
from fmrgen.report.step_plots import step_plots
from fmrgen.report.tables import short_names

_SA, _PA, _ORACLE = "#7d93a8", "#c8472f", "#3f7d58"
_HEAT = LinearSegmentedColormap.from_list("robustness", ["#b5361c", "#e8a07c", "#f6efe6", "#9dbfd3", "#2b6690"])
_LONGEST_LINE = 14  # letters of a name under a bar or over a column
_MOST_CLASSES = 30  # that a chart by class shows; of more, those with the lowest PA

_STEPS = "a split that keeps its steps"
# What figures must have, which not all have, for a plot.
NEEDS = {
    "fmr": "originals",
    "transfer": "two classifiers",
    "models": "two splits of one source, with the classifiers that they were made for",
    "iterations": "a split with a column of iterations",
    **dict.fromkeys(("budgets", "thresholds", "failures", "classes-by-budget"), _STEPS),
}

Draw = Callable[[], Plot]


def all_plots(evaluation: EvaluationData) -> dict[str, Draw]:
    """What draws each plot that the figures allow, by the plot's name."""
    plots: dict[str, Draw] = {}
    if not evaluation.splits:  # fixed sets alone
        return plots
    if any(result.total.fmr for result in evaluation.results):
        plots["fmr"] = lambda: _fmr(evaluation)
    if len(evaluation.classifiers) > 1:
        plots["transfer"] = lambda: _transfer(evaluation)
    if chosen := common_rows(evaluation):
        plots["models"] = lambda: side_by_side(evaluation, chosen)
    plots["accuracy"] = lambda: _accuracy(evaluation)
    if counted := [split for split in evaluation.splits if split.iterations]:
        plots["iterations"] = lambda: _iterations(counted)
    plots["classes"] = lambda: _classes(evaluation)
    plots |= step_plots(evaluation.splits)
    return {name: _styled(draw) for name, draw in plots.items()}


def _styled(draw: Draw) -> Draw:
    def drawn() -> Plot:
        with drawing():
            return draw()

    return drawn


def _fmr(evaluation: EvaluationResults) -> Plot:
    """FMR with its interval of every classifier on every split."""
    heights = [0.7 + 0.3 * len(row) for row in evaluation.matrix]
    figure = Plot(figsize=(6.4, sum(heights) + 0.4))
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    short = short_names([split.name for split in evaluation.splits])
    for axes, split, row in zip(panels, evaluation.splits, evaluation.matrix, strict=True):
        for place, result in enumerate(reversed(row)):
            axes.axhline(place, color=FAINT, linewidth=0.6, zorder=0)
            if (value := result.total.fmr) is None:
                continue
            colour, marker = (_PA, "D") if result.conditioned else (INK, "o")
            axes.hlines(place, *interval_ends(value), color=colour, linewidth=2)
            axes.plot([value.value], [place], marker, color=colour, markersize=6)
            axes.annotate(
                f"{value.value:.1f}",
                (value.value, place),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        names = [f"{_broken(r.classifier)}{' ◆' if r.conditioned else ''}" for r in reversed(row)]
        axes.set_yticks(range(len(row)), names)
        axes.set_ylim(-0.6, len(row) - 0.3)
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.set_title(short[split.name])
    panels[-1].set_xlim(left=0)
    panels[-1].set_xlabel("FMR, %, with its 95 % interval")
    figure.tight_layout()
    return figure


def _transfer(evaluation: EvaluationResults) -> Plot:
    """Splits down, classifiers across; FMR where there are originals, else PA, with its interval in every cell."""
    has_fmr = any(result.total.fmr for result in evaluation.results)
    measure = "fmr" if has_fmr else "perturbed_accuracy"
    cells: list[list[Estimate | None]] = [
        [getattr(result.total, measure) for result in row] for row in evaluation.matrix
    ]
    values = np.array([[np.nan if cell is None else cell.value for cell in row] for row in cells])
    columns = [_broken(classifier.name) for classifier in evaluation.classifiers]
    figure = Plot(figsize=(2.6 + 1.25 * len(columns), 1.6 + 0.75 * len(cells)))
    axes = figure.subplots()
    picture = axes.imshow(values, cmap=_HEAT, vmin=0, vmax=100, aspect="auto")
    for i, row in enumerate(evaluation.matrix):
        for j, result in enumerate(row):
            _write_cell(axes, i, j, cells[i][j])
            if result.conditioned:
                axes.add_patch(Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, fill=False, edgecolor=INK, linewidth=1.8))
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
    colour = "white" if cell.value < 18 or cell.value > 88 else INK
    axes.text(column, row - 0.1, f"{cell.value:.1f}", ha="center", va="center", color=colour, fontsize=12)
    interval = f"{cell.low:.0f} – {cell.high:.0f}"
    axes.text(column, row + 0.24, interval, ha="center", va="center", color=colour, fontsize=8)


def _accuracy(evaluation: EvaluationResults) -> Plot:
    """SA beside PA of every classifier on every split, with intervals."""
    widest = max(len(row) for row in evaluation.matrix)
    figure = Plot(figsize=(2 + 1.1 * widest * min(3, len(evaluation.splits)), 3.2 * -(-len(evaluation.splits) // 3)))
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
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
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
            low, high = interval_ends(value)
            axes.text(place, high + 1.5, f"{value.value:.1f}", ha="center", fontsize=8)
            axes.vlines(place, low, high, color=INK, linewidth=1.2)


def _panels(panels: np.ndarray, evaluation: EvaluationResults) -> "list[tuple[Axes, EvaluatedSplit, list[Result]]]":
    """An axes for every split; those that are left over are switched off."""
    flat = list(panels.flat)
    for axes in flat[len(evaluation.splits) :]:
        axes.set_axis_off()
    return list(zip(flat, evaluation.splits, evaluation.matrix, strict=False))


def _iterations(splits: list[EvaluatedSplit]) -> Plot:
    """How many valid rows took how many guided steps."""
    figure = Plot(figsize=(6.4, 0.6 + 1.5 * len(splits)))
    panels = figure.subplots(len(splits), 1, squeeze=False, sharex=True)[:, 0]
    short = short_names([split.name for split in splits])
    for axes, split in zip(panels, splits, strict=True):
        counts = {int(steps): rows for steps, rows in (split.iterations or {}).items()}
        axes.bar(list(counts), list(counts.values()), width=0.9, color=_PA)
        mean = sum(steps * rows for steps, rows in counts.items()) / sum(counts.values())
        axes.axvline(mean, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_title(f"{short[split.name]}: {mean:.1f} steps on average")
        axes.set_ylabel("rows")
        axes.tick_params(length=0)
    panels[-1].set_xlabel("guided steps in the stored image")
    figure.tight_layout()
    return figure


def _classes(evaluation: EvaluationResults) -> Plot:
    """SA, PA and the oracle's accuracy by class: on each split its own classifier, or else the first one."""
    shown = [
        (split, next((result for result in row if result.conditioned), row[0]))
        for split, row in zip(evaluation.splits, evaluation.matrix, strict=True)
    ]
    classes = [_lowest(result.classes) for _, result in shown]
    heights = [0.9 + 0.38 * len(chosen) for chosen in classes]
    figure = Plot(figsize=(6.4, sum(heights) + 0.4))
    panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    short = short_names([split.name for split in evaluation.splits])
    for axes, (split, result), chosen in zip(panels, shown, classes, strict=True):
        for place, index in enumerate(reversed(chosen)):
            summary = result.classes[index]
            axes.axhspan(place - 0.5, place + 0.5, color="#f2f4f6" if place % 2 else "white", zorder=0)
            _dot(axes, place + 0.24, summary.oracle_accuracy, _ORACLE, "D", "oracle on originals")
            _dot(axes, place, summary.standard_accuracy, _SA, "o", "SA")
            _dot(axes, place - 0.24, summary.perturbed_accuracy, _PA, "o", "PA")
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


def _dot(axes: Axes, place: float, value: Estimate | None, colour: str, marker: str, label: str) -> None:
    if value is not None:
        axes.hlines(place, *interval_ends(value), color=colour, linewidth=1.6, alpha=0.55)
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
