"""The figures of an evaluation as pictures."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fmrgen.errors import UserError, unknown_message
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import BY_FIELD, Metric
from fmrgen.report.dots import MOST_ROWS, OWN, Panel, Row, dot_plot
from fmrgen.report.plot import (
    INK,
    LINES,
    MOST_PANELS,
    MOST_PERCENT,
    Plot,
    draw_band,
    drawing,
    extremes,
    grid_of_figures,
    shortened,
)
from fmrgen.report.tables import CONDITIONED, classifiers_down, ranked, short_names, short_split_names
from fmrgen.results.evaluation import EvaluatedSplit, Evaluation, Result
from fmrgen.results.steps import StepFigures

_HEAT = LinearSegmentedColormap.from_list("robustness", ["#b5361c", "#e8a07c", "#f6efe6", "#9dbfd3", "#2b6690"])
_LONGEST_LINE = 14  # letters of a name over a column
_MOST_WIDE = 8  # cells across a matrix that have room for an interval
_MOST_CELLS = 40  # across or down

# What an evaluation must contain for a plot that not every report has.
NEEDS = {
    "fmr": "originals",
    "transfer": "two classifiers",
    "steps": "a split with a column of iterations",
    "budgets": "a split that keeps its steps",
}

Draw = Callable[[], Plot]


def all_plots(evaluation: Evaluation) -> dict[str, Draw]:
    """Return functions that draw the plots that the figures allow, by the plots' names.

    No plot grows without limit with the number of splits and classifiers.
    """
    if not evaluation.splits:
        return {}
    plots: dict[str, Draw] = {}
    by_split = _sorted(evaluation) if len(evaluation.splits) > MOST_PANELS else evaluation
    if any(result.total.fmr for result in evaluation.results):
        plots["fmr"] = partial(_fmr, by_split)
    if len(evaluation.classifiers) > 1:
        plots["transfer"] = partial(_transfer, evaluation)
    with_iterations = [split for split in by_split.splits if split.iterations]
    if with_iterations:
        plots["steps"] = partial(_steps, with_iterations)
    with_budgets = []
    for split in by_split.splits:
        if split.steps is not None and split.steps.area_under_fmr is not None:
            with_budgets.append((split.name, split.steps, split.steps.area_under_fmr))
    if with_budgets:
        plots["budgets"] = partial(_budgets, with_budgets)
    return {name: drawing()(draw) for name, draw in plots.items()}  # in the style of all pictures


def figure(evaluation: Evaluation, name: str) -> Plot:
    """Return one of the report's plots, as a figure of matplotlib to work on.

    Args:
        evaluation: returned by `evaluate`.
        name: `fmr`, `transfer`, `budgets` or `steps`.

    Returns:
        The figure; `save("fmr.pdf")` writes it, its fonts embedded.

    Raises:
        UserError: there is no plot of that name, or these figures do not allow it.
    """
    plots = all_plots(evaluation)
    if name in plots:
        return plots[name]()
    if name in NEEDS:
        raise UserError(f"figure {name}: needs {NEEDS[name]}; choose from {', '.join(plots)}")
    raise UserError(unknown_message(f"figure {name}", name, plots))


def _sorted(evaluation: Evaluation) -> Evaluation:
    """Return the evaluation with its splits in falling order of the figure of their own classifiers."""
    measure, matrix = _measure(evaluation), evaluation.matrix
    figures = []
    for row in matrix:
        estimate = _own(row).total[measure]
        figures.append(-1.0 if estimate is None else estimate.value)
    order = sorted(range(len(matrix)), key=figures.__getitem__, reverse=True)
    return replace(
        evaluation,
        splits=[evaluation.splits[place] for place in order],
        results=list(chain.from_iterable(matrix[place] for place in order)),
        comparisons=[evaluation.comparisons[place] for place in order],
    )


def _measure(evaluation: Evaluation) -> Metric:
    has_fmr = any(result.total.fmr for result in evaluation.results)
    return BY_FIELD["fmr" if has_fmr else "perturbed_accuracy"]


def _own(row: Sequence[Result]) -> Result:
    """Return the result of the split's own classifier, or the first one if the row has none."""
    return next((result for result in row if result.conditioned), row[0])


def _fmr(evaluation: Evaluation) -> Plot:
    """Draw FMR with its interval of every classifier on every split, in the order of the split's table; of more than
    eight splits that of their own classifiers alone."""
    limit = 105.0  # FMR is above 100 where perturbed images are easier
    for result in evaluation.results:
        if result.total.fmr:
            limit = max(limit, result.total.fmr.ends[1])
    short = short_split_names(evaluation)
    if len(evaluation.splits) > 8:
        panels = [_panel_of_own(evaluation, short)]
    else:
        panels = []
        most = max(5, MOST_ROWS // len(evaluation.splits))
        for split, row, comparison in zip(evaluation.splits, evaluation.matrix, evaluation.comparisons, strict=True):
            results = ranked(row, comparison)[:most]
            title = _panel_title(split, row, short[split.name])
            if len(results) < len(row):
                title += f", the first {len(results)} of {len(row)} classifiers"
            panels.append((title, [_row(result, result.classifier) for result in results]))
    return dot_plot(panels, "FMR, %, with its 95 % interval", min(MOST_PERCENT, limit))


def _row(result: Result, name: str) -> Row:
    return Row(f"{name} {CONDITIONED}" if result.conditioned else name, result.total.fmr, result.conditioned)


def _panel_title(split: EvaluatedSplit, row: Sequence[Result], short: str) -> str:
    """Return what images a panel is about; those of a split that fmrgen did not make have its name alone."""
    if split.made_with is None:
        return short
    own = _own(row)
    if not own.conditioned:
        return f"images generated against another network ({short})"
    name = "" if short == own.classifier else f" ({short})"
    return f"images generated against {shortened(own.classifier, 24)}{name}"


def _panel_of_own(evaluation: Evaluation, short: dict[str, str]) -> Panel:
    """Return a panel with a row for each split: its own classifier, or the first one if it has none."""
    owners = [_own(row) for row in evaluation.matrix[:MOST_ROWS]]
    addition = "" if all(result.conditioned for result in owners) else ", or the first one"
    title = f"{len(evaluation.splits)} splits"
    if len(owners) < len(evaluation.splits):
        title = f"{len(owners)} of {title}"
    rows = [_row(result, short[result.split]) for result in owners]
    return f"{title}, each with its own classifier{addition}", rows


def _transfer(evaluation: Evaluation) -> Plot:
    """Draw the transfer matrix, splits down and classifiers across: FMR if there are originals, else PA, with its
    interval where it has room.

    Many classifiers on few splits go down; more than a few are sorted.
    """
    measure = _measure(evaluation)
    results = np.array(evaluation.matrix, dtype=object)  # [splits, classifiers]
    values = np.full(results.shape, np.nan)
    for place, result in np.ndenumerate(results):
        cell = result.total[measure]
        if cell is not None:
            values[place] = cell.value
    short = short_split_names(evaluation)
    down, across = _order(values, 1), _order(values, 0)
    rows = [short[evaluation.splits[place].name] for place in down]
    columns = [evaluation.classifiers[place].name for place in across]
    results, values = results[np.ix_(down, across)], values[np.ix_(down, across)]
    row_title, column_title = "split generated against", "tested classifier"
    if classifiers_down(evaluation):
        rows, columns, results, values = columns, rows, results.T, values.T
        row_title, column_title = column_title, row_title
    wide, high = len(columns) <= _MOST_WIDE, len(rows) <= _MOST_WIDE
    cell_width, label, rotation = (1.35, _broken, 0) if wide else (0.55, shortened, 90)
    cell_height = 0.75 if high else 0.36  # inches, as the width
    figure = Plot(figsize=(2.6 + cell_width * len(columns), 1.6 + cell_height * len(rows)))
    axes = figure.subplots()
    picture = axes.imshow(values, cmap=_HEAT, vmin=0, vmax=100, aspect="auto")
    notes = []
    for (i, j), result in np.ndenumerate(results):
        _write_cell(axes, i, j, result.total[measure], wide, high)
        if result.conditioned:
            axes.add_patch(Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, fill=False, edgecolor=INK, linewidth=1.8))
            notes = ["framed: the classifier that the split was generated against"]
    axes.set_xticks(range(len(columns)), [label(name) for name in columns])
    axes.set_yticks(range(len(rows)), [shortened(name) for name in rows])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(column_title, labelpad=8)
    axes.set_ylabel(row_title, labelpad=8)
    axes.tick_params(length=0)
    axes.tick_params("x", labelsize=8, rotation=rotation)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(picture, ax=axes, shrink=0.9, pad=0.03)
    bar.outline.set_visible(False)
    bar.set_label(f"{measure.name}, %")
    if results.size < len(evaluation.results):
        longest = max(len(evaluation.splits), len(evaluation.classifiers))
        notes.append(f"the {_MOST_CELLS} of highest mean, of {longest}")
    axes.annotate("; ".join(notes), (0, 0), (0, -8), "axes fraction", "offset points", fontsize=8, va="top")
    return figure


def _order(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the places along the other axis: in their order if they are few, else by falling mean."""
    means = np.nan_to_num(values, nan=-1).mean(axis)
    if len(means) <= _MOST_WIDE:
        return np.arange(len(means))
    return np.argsort(-means, kind="stable")[:_MOST_CELLS]


def _write_cell(axes: Axes, row: int, column: int, cell: Estimate | None, wide: bool, high: bool) -> None:
    """Write a cell of the matrix: its value, and the interval below it in a high cell, beside it in a low one."""
    if cell is None:
        axes.text(column, row, "n/a", ha="center", va="center", fontsize=10 if wide else 7)
        return
    red, green, blue, _ = _HEAT(cell.value / 100)
    brightness = 0.3 * red + 0.59 * green + 0.11 * blue  # as eyes weigh the colours
    colour = "white" if brightness < 0.6 else INK
    text, interval = f"{cell.value:.1f}", ""
    if wide and cell.low is not None and cell.high is not None:
        interval = f"{cell.low:.0f} – {cell.high:.0f}"
    if high:
        axes.text(column, row - 0.1, text, ha="center", va="center", color=colour, fontsize=12 if wide else 7)
        axes.text(column, row + 0.24, interval, ha="center", va="center", color=colour, fontsize=8)
    else:
        if interval:
            text += f"  ({interval})"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8 if wide else 7)


def _steps(all_splits: list[EvaluatedSplit]) -> Plot:
    """Draw how many valid rows took how many guided steps."""
    splits, note = extremes(all_splits)
    figure = Plot(figsize=(6.4, 0.6 + 1.5 * len(splits)))
    panels = figure.subplots(len(splits), 1, squeeze=False, sharex=True)[:, 0]
    short = short_names([split.name for split in splits])
    for axes, split in zip(panels, splits, strict=True):
        counts = {int(steps): rows for steps, rows in (split.iterations or {}).items()}
        axes.bar(list(counts), list(counts.values()), width=0.9, color=OWN)
        mean = sum(steps * rows for steps, rows in counts.items()) / sum(counts.values())
        axes.axvline(mean, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_title(f"{short[split.name]}: {mean:.1f} steps on average")
        axes.set_ylabel("rows")
        axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.tick_params(length=0)
    panels[-1].set_xlabel(f"guided steps in the stored image{note}")
    figure.tight_layout()
    return figure


def _budgets(all_splits: Sequence[tuple[str, StepFigures, Estimate]]) -> Plot:
    """Draw FMR of each split's own classifier, had the budget been smaller, and had the oracle been stricter.

    Each split has its name, its figures and their mean; many come in falling order of their figures.
    """
    splits, note = extremes(all_splits)
    short = short_names([name for name, *_ in splits])
    figure = Plot(figsize=(6.4, 6.4))
    by_budget, by_threshold = figure.subplots(2, 1)
    for (name, steps, area), colour in zip(splits, LINES, strict=False):
        budgets = [at.budget for at in steps.budgets]
        draw_band(by_budget, budgets, [at.fmr for at in steps.budgets], colour, f"{short[name]}, mean {area.value:.1f}")
        least = [at.min_probability for at in steps.thresholds]
        draw_band(by_threshold, least, [at.fmr for at in steps.thresholds], colour, short[name], marker="o")
    by_budget.set_xlabel("budget, guided steps")
    by_budget.set_title("Under a smaller budget, of each split's own classifier")
    by_threshold.set_xlabel(f"least probability that the oracle gives the class{note}")
    by_threshold.set_title("Under a stricter oracle")
    for axes in (by_budget, by_threshold):
        axes.set_ylabel("FMR, %")
        grid_of_figures(axes)
    by_budget.legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    return figure


def _broken(name: str) -> str:
    """Return a long name on two lines, each shortened where it would run into the next name."""
    if len(name) <= _LONGEST_LINE:
        return name
    for mark in ("/", ".", "_", "-", " "):
        if mark in name[4:-3]:
            end = name.index(mark, 4) + 1
            return f"{shortened(name[:end], _LONGEST_LINE)}\n{shortened(name[end:], _LONGEST_LINE)}"
    return shortened(name, _LONGEST_LINE)
