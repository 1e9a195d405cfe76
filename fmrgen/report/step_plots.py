"""The steps of splits as pictures: FMR by budget and by the oracle's strictness, and where classifiers first fail."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fmrgen.report.dots import MOST_ROWS
from fmrgen.report.plot import LINES, MOST_PERCENT, Plot, draw_band, extremes, grid_of_figures
from fmrgen.report.tables import short_names
from fmrgen.results.evaluation import EvaluatedSplit
from fmrgen.results.steps import SHIFTS, StepFigures

_MOST_CLASSES = 30  # of a split

_Splits = Sequence[tuple[EvaluatedSplit, StepFigures]]


def step_plots(splits: Sequence[EvaluatedSplit]) -> dict[str, Callable[[], Plot]]:
    """What draws each picture, by its name; none where no split keeps its steps, or FMR is not to be had of any. Many
    splits come by falling figures."""
    kept, note = extremes(
        [(split, steps) for split in splits if (steps := split.steps) is not None and steps.area_under_fmr is not None]
    )
    if not kept:
        return {}
    plots: dict[str, Callable[[], Plot]] = {
        "budgets": partial(_budgets, kept, note),
        "thresholds": partial(_thresholds, kept, note),
        "failures": partial(_failures, kept, note),
    }
    if any(any(steps.distances.values()) for _, steps in kept):
        plots["distances"] = partial(_distances, kept, note)
    if any(len(split.class_names) > 1 for split, _ in kept):
        plots["classes-by-budget"] = partial(_classes, kept, note)
    return plots


def _budgets(splits: _Splits, note: str) -> Plot:
    """FMR of each split's own classifier, had the budget been smaller."""
    figure = Plot(figsize=(6.4, 3.6))
    axes = figure.subplots()
    for (name, steps), colour in _coloured(splits):
        area = steps.area_under_fmr
        label = f"{name}, mean {area.value:.1f}" if area is not None else name
        draw_band(axes, [at.budget for at in steps.budgets], [at.fmr for at in steps.budgets], colour, label)
    axes.set_xlabel(f"budget, guided steps{note}")
    _percent(axes, "FMR, %", "FMR by budget, of each split's own classifier")
    axes.legend(fontsize=8)
    return figure


def _distances(splits: _Splits, note: str) -> Plot:
    """FMR of each split's own classifier, had larger changes not counted."""
    figure = Plot(figsize=(6.4, 7.2))
    panels = figure.subplots(len(SHIFTS), 1)
    for axes, (column, of) in zip(panels, SHIFTS.items(), strict=True):
        for (name, steps), colour in _coloured(splits):
            at = steps.distances.get(column, [])
            draw_band(axes, [one.most for one in at], [one.fmr for one in at], colour, name)
        axes.set_xlabel(f"largest change {of} that counts (RMS){note}")
        _percent(axes, "FMR, %", "")
    panels[0].set_title("FMR by distance, of each split's own classifier")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    return figure


def _thresholds(splits: _Splits, note: str) -> Plot:
    """FMR and VR, had the oracle asked for more."""
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
    """At which step the classifier is wrong for the first time."""
    figure = Plot(figsize=(6.4, 0.6 + 1.6 * len(splits)))
    panels = figure.subplots(len(splits), 1, squeeze=False, sharex=True)[:, 0]
    for axes, ((name, steps), colour) in zip(panels, _coloured(splits), strict=True):
        counts = {int(step): rows for step, rows in steps.first_failures.items()}
        axes.bar(list(counts), list(counts.values()), width=0.9, color=colour)
        axes.set_title(f"{name}: never wrong on {steps.never_failed} valid rows")
        axes.set_ylabel("rows")
        axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.tick_params(length=0)
    panels[-1].set_xlabel(f"step of the first wrong prediction (0: the plain reconstruction){note}")
    figure.tight_layout()
    return figure


def _classes(splits: _Splits, note: str) -> Plot:
    """FMR by class and budget, the classes of lowest FMR where there are many."""
    most = max(10, min(_MOST_CLASSES, MOST_ROWS // len(splits)))
    chosen = [_lowest(steps, most) for _, steps in splits]
    heights = [0.7 + 0.24 * len(classes) for classes in chosen]
    figure = Plot(figsize=(6.4, sum(heights) + 0.6))
    panels = figure.subplots(len(splits), 1, squeeze=False, height_ratios=heights)[:, 0]
    short = short_names([split.name for split, _ in splits])
    for axes, (split, steps), classes in zip(panels, splits, chosen, strict=True):
        values = np.array([[np.nan if v is None else v for v in steps.classes[c].fmr] for c in classes], dtype=float)
        picture = axes.imshow(values, cmap="RdBu", vmin=0, vmax=100, aspect="auto", interpolation="nearest")
        budgets = [at.budget for at in steps.budgets]
        shown = np.unique(np.linspace(0, len(budgets) - 1, 9).round().astype(int))
        axes.set_xticks(shown, [str(budgets[place]) for place in shown])
        names = [split.class_names[c] for c in classes]
        axes.set_yticks(range(len(classes)), [name if len(name) <= 28 else f"{name[:27]}…" for name in names])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        more = f", the {len(classes)} classes of lowest FMR" if len(classes) < len(steps.classes) else ""
        axes.set_title(f"{short[split.name]}{more}")
        bar = figure.colorbar(picture, ax=axes, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label("FMR, %")
    panels[-1].set_xlabel(f"budget, guided steps{note}")
    figure.tight_layout()
    return figure


def _lowest(steps: StepFigures, most: int) -> list[int]:
    """The classes to show, in their own order."""
    last = {index: figures.fmr[-1] for index, figures in enumerate(steps.classes) if figures.fmr[-1] is not None}
    return sorted(sorted(last, key=lambda index: last[index] or 0.0)[:most])


def _coloured(splits: _Splits) -> list[tuple[tuple[str, StepFigures], str]]:
    short = short_names([split.name for split, _ in splits])
    named = [(short[split.name], steps) for split, steps in splits]
    return [(pair, LINES[place % len(LINES)]) for place, pair in enumerate(named)]


def _percent(axes: Axes, label: str, title: str) -> None:
    axes.set_ylabel(label)
    axes.set_title(title)
    grid_of_figures(axes, MOST_PERCENT)
