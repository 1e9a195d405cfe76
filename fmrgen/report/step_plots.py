"""The steps of splits as pictures: FMR by budget and by the oracle's strictness, and where classifiers first fail."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fmrgen.metrics.intervals import format_estimate
from fmrgen.report.dots import MOST_ROWS
from fmrgen.report.gallery import gallery_filter
from fmrgen.report.plot import LINES, Place, Plot, draw_band, extremes, grid_of_figures
from fmrgen.report.tables import short_names
from fmrgen.results.evaluation import EvaluatedSplit
from fmrgen.results.steps import SHIFTS, StepFigures

_LEAST_CLASSES, _MOST_CLASSES = 10, 30  # shown of a split, the fewer the more splits there are
_MOST_BUDGETS = 9  # that have a tick
_LONGEST_NAME = 28  # letters of a class
_MOST_PLACES = 1000  # of a plot, that a page links

_Splits = Sequence[tuple[EvaluatedSplit, StepFigures]]


def step_plots(splits: Sequence[EvaluatedSplit]) -> dict[str, Callable[[], Plot]]:
    """Return functions that draw the pictures, by the pictures' names.

    There are none if no split keeps its steps, or if no FMR is known. Many splits come in falling order of their
    figures.
    """
    with_steps = []
    for split in splits:
        if split.steps is not None and split.steps.area_under_fmr is not None:
            with_steps.append((split, split.steps))
    shown, note = extremes(with_steps)
    if not shown:
        return {}
    plots: dict[str, Callable[[], Plot]] = {
        "budgets": partial(_budgets, shown, note),
        "thresholds": partial(_thresholds, shown, note),
        "failures": partial(_failures, shown, note),
    }
    if any(any(steps.distances.values()) for _, steps in shown):
        plots["distances"] = partial(_distances, shown, note)
    by_class = [(split, steps) for split, steps in shown if _lowest(steps, 1)]
    if any(len(split.class_names) > 1 for split, _ in by_class):
        plots["classes-by-budget"] = partial(_classes, by_class, note)
    return plots


def _budgets(splits: _Splits, note: str) -> Plot:
    """Draw FMR of each split's own classifier, had the budget been smaller."""
    figure = Plot(figsize=(6.4, 3.6))
    axes = figure.subplots()
    for (name, steps), colour in _coloured(splits):
        area = steps.area_under_fmr
        label = name
        if area is not None:
            label += f", mean {area.value:.1f}"
        draw_band(axes, [at.budget for at in steps.budgets], [at.fmr for at in steps.budgets], colour, label)
    axes.set_xlabel(f"budget, guided steps{note}")
    _percent(axes, "FMR, %", "FMR by budget, of each split's own classifier")
    axes.legend(fontsize=8, loc="lower left")
    _link_budgets(figure, axes, splits)
    return figure


def _link_budgets(figure: Plot, axes: Axes, splits: _Splits) -> None:
    """Make a place of each budget: it shows the rows of the first split on which so many steps were enough."""
    first, _ = splits[0]
    titles: dict[int, list[str]] = {}
    for (name, steps), _ in _coloured(splits):
        for at in steps.budgets:
            titles.setdefault(at.budget, []).append(f"{name}: {format_estimate(at.fmr)}")
    low, high = axes.get_ylim()
    for budget, lines in titles.items():
        wanted = gallery_filter(split=first.name, step=str(budget))
        title = "\n".join([f"FMR at budget {budget}", *lines])
        figure.places.append(Place(axes, budget - 0.5, low, 1, high - low, title, wanted))


def _distances(splits: _Splits, note: str) -> Plot:
    """Draw FMR of each split's own classifier, had larger changes not counted."""
    figure = Plot(figsize=(6.4, 7.2))
    panels = figure.subplots(len(SHIFTS), 1)
    for axes, (column, space) in zip(panels, SHIFTS.items(), strict=True):
        for (name, steps), colour in _coloured(splits):
            distances = steps.distances.get(column, [])
            draw_band(axes, [at.most for at in distances], [at.fmr for at in distances], colour, name)
        axes.set_xlabel(f"largest change {space} that counts (RMS){note}")
        _percent(axes, "FMR, %", "")
    panels[0].set_title("FMR by distance, of each split's own classifier")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    return figure


def _thresholds(splits: _Splits, note: str) -> Plot:
    """Draw FMR and VR, had the oracle asked for a higher probability."""
    figure = Plot(figsize=(6.4, 5.2))
    above, below = figure.subplots(2, 1, sharex=True)
    for (name, steps), colour in _coloured(splits):
        places = [at.min_probability for at in steps.thresholds]
        draw_band(above, places, [at.fmr for at in steps.thresholds], colour, name, marker="o")
        draw_band(below, places, [at.validation_rate for at in steps.thresholds], colour, name, marker="o")
    _percent(above, "FMR, %", "Under a stricter oracle")
    _percent(below, "VR, %", "")
    below.set_xlabel(f"least probability that the oracle gives the class{note}")
    above.legend(fontsize=8)
    figure.tight_layout()
    return figure


def _failures(splits: _Splits, note: str) -> Plot:
    """Draw at which step the classifier is wrong for the first time."""
    figure = Plot(figsize=(6.4, 0.6 + 1.6 * len(splits)))
    panels = figure.subplots(len(splits), 1, squeeze=False, sharex=True)[:, 0]
    for axes, ((name, steps), colour), (split, _) in zip(panels, _coloured(splits), splits, strict=True):
        counts = {int(step): rows for step, rows in steps.first_failures.items()}
        axes.bar(list(counts), list(counts.values()), width=0.9, color=colour)
        for step, rows in counts.items():
            wanted = gallery_filter(split=split.name, step=f"{step}-{step}")
            title = f"first wrong at step {step}: {rows} rows"
            figure.places.append(Place(axes, step - 0.5, 0, 1, rows, title, wanted))
        axes.set_title(f"{name}: never wrong on {steps.never_failed} valid rows")
        axes.set_ylabel("rows")
        axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.tick_params(length=0)
    panels[-1].set_xlabel(f"step of the first wrong prediction (0: the plain reconstruction){note}")
    figure.tight_layout()
    return figure


def _classes(splits: _Splits, note: str) -> Plot:
    """Draw FMR by class and budget; of many classes those of lowest FMR."""
    most = max(_LEAST_CLASSES, min(_MOST_CLASSES, MOST_ROWS // len(splits)))
    classes_of_splits = [_lowest(steps, most) for _, steps in splits]
    heights = [0.7 + 0.24 * len(classes) for classes in classes_of_splits]
    figure = Plot(figsize=(6.4, sum(heights) + 0.6))
    panels = figure.subplots(len(splits), 1, squeeze=False, height_ratios=heights)[:, 0]
    short = short_names([split.name for split, _ in splits])
    for axes, (split, steps), classes in zip(panels, splits, classes_of_splits, strict=True):
        values = np.array([steps.classes[label].fmr for label in classes], dtype=float)  # None becomes NaN
        picture = axes.imshow(values, cmap="RdBu", vmin=0, vmax=100, aspect="auto", interpolation="nearest")
        budgets = [at.budget for at in steps.budgets]
        ticks = np.unique(np.linspace(0, len(budgets) - 1, _MOST_BUDGETS).round().astype(int))
        axes.set_xticks(ticks, [str(budgets[place]) for place in ticks])
        names = []
        for label in classes:
            name = split.class_names[label]
            if len(name) > _LONGEST_NAME:
                name = f"{name[: _LONGEST_NAME - 1]}…"
            names.append(name)
        axes.set_yticks(range(len(classes)), names)
        _link_classes(figure, axes, split, classes, budgets, values)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        title = short[split.name]
        if len(classes) < len(steps.classes):
            title += f", the {len(classes)} classes of lowest FMR"
        axes.set_title(title)
        bar = figure.colorbar(picture, ax=axes, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label("FMR, %")
    panels[-1].set_xlabel(f"budget, guided steps{note}")
    figure.tight_layout()
    return figure


def _link_classes(
    figure: Plot, axes: Axes, split: EvaluatedSplit, classes: Sequence[int], budgets: Sequence[int], values: np.ndarray
) -> None:
    """Make a place of each class and budget, unless they are too many for a page."""
    if values.size > _MOST_PLACES:
        return
    for (row, column), fmr in np.ndenumerate(values):
        label, budget = classes[row], budgets[column]
        wanted = gallery_filter(split=split.name, label=label, step=str(budget))
        figure_text = "n/a" if np.isnan(fmr) else f"{fmr:.1f}"
        title = f"{split.class_names[label]}, budget {budget}: FMR {figure_text}"
        figure.places.append(Place(axes, column - 0.5, row - 0.5, 1, 1, title, wanted))


def _lowest(steps: StepFigures, most: int) -> list[int]:
    """Return the labels of the `most` classes of lowest FMR at the whole budget, in the order of the classes."""
    at_whole_budget = {}
    for label, figures in enumerate(steps.classes):
        fmr = figures.fmr[-1]
        if fmr is not None:
            at_whole_budget[label] = fmr
    return sorted(sorted(at_whole_budget, key=at_whole_budget.__getitem__)[:most])


def _coloured(splits: _Splits) -> list[tuple[tuple[str, StepFigures], str]]:
    """Return for each split its short name with its steps, and the colour of its line."""
    short = short_names([split.name for split, _ in splits])
    named = [(short[split.name], steps) for split, steps in splits]
    return list(zip(named, cycle(LINES), strict=False))


def _percent(axes: Axes, label: str, title: str) -> None:
    axes.set_ylabel(label)
    axes.set_title(title)
    grid_of_figures(axes)
