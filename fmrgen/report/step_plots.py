"""FMR by budget and by the oracle's strictness, from the steps that splits keep."""

from collections.abc import Sequence
from itertools import cycle

from matplotlib.axes import Axes

from fmrgen.report.plot import LINES, Plot, draw_band, extremes, grid_of_figures
from fmrgen.report.tables import short_names
from fmrgen.results.evaluation import EvaluatedSplit
from fmrgen.results.steps import StepFigures

_Splits = Sequence[tuple[EvaluatedSplit, StepFigures]]


def splits_with_budgets(splits: Sequence[EvaluatedSplit]) -> _Splits:
    """Return the splits that keep their steps and whose FMR is known, with their figures by step."""
    with_budgets = []
    for split in splits:
        if split.steps is not None and split.steps.area_under_fmr is not None:
            with_budgets.append((split, split.steps))
    return with_budgets


def budgets(all_splits: _Splits) -> Plot:
    """Draw FMR of each split's own classifier, had the budget been smaller, and had the oracle been stricter.

    Many splits come in falling order of their figures.
    """
    splits, note = extremes(all_splits)
    figure = Plot(figsize=(6.4, 6.4))
    by_budget, by_threshold = figure.subplots(2, 1)
    for (name, steps), colour in _coloured(splits):
        area = steps.area_under_fmr
        label = name if area is None else f"{name}, mean {area.value:.1f}"
        draw_band(by_budget, [at.budget for at in steps.budgets], [at.fmr for at in steps.budgets], colour, label)
        least = [at.min_probability for at in steps.thresholds]
        draw_band(by_threshold, least, [at.fmr for at in steps.thresholds], colour, name, marker="o")
    by_budget.set_xlabel("budget, guided steps")
    by_threshold.set_xlabel(f"least probability that the oracle gives the class{note}")
    _percent(by_budget, "FMR, %", "Under a smaller budget, of each split's own classifier")
    _percent(by_threshold, "FMR, %", "Under a stricter oracle")
    by_budget.legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    return figure


def _coloured(splits: _Splits) -> list[tuple[tuple[str, StepFigures], str]]:
    """Return for each split its short name with its steps, and the colour of its line."""
    short = short_names([split.name for split, _ in splits])
    named = [(short[split.name], steps) for split, steps in splits]
    return list(zip(named, cycle(LINES), strict=False))


def _percent(axes: Axes, label: str, title: str) -> None:
    axes.set_ylabel(label)
    axes.set_title(title)
    grid_of_figures(axes)
