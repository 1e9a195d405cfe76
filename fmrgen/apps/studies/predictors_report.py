"""Tables and pictures of predictors of accuracy on real shifts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import rankdata

from fmrgen.apps.studies.predictors import SHIFT, STANDARD, Prediction, Spread
from fmrgen.metrics.intervals import Estimate, format_coefficient
from fmrgen.report.plot import Plot, draw_points, drawing, write_key
from fmrgen.report.report import Picture, Report, Section, Table


def predictions_table(predictions: Sequence[Prediction], less: str | None) -> Table:
    """Return a table with a row for each prediction.

    Args:
        predictions: the correlations.
        less: title of the column of differences; None for no such column.
    """
    header = ["predictor", "of", "recipes", "rank correlation", "where SA is equal"]
    if less is not None:
        header.append(less)
    rows = []
    for prediction in predictions:
        row = [prediction.predictor, prediction.target, str(prediction.recipes)]
        row += [format_coefficient(prediction.spearman), _coefficient_or_blank(prediction.partial)]
        if less is not None:
            row.append(_coefficient_or_blank(prediction.less))
        rows.append(row)
    return Table(header, rows)


def _coefficient_or_blank(estimate: Estimate | None) -> str:
    return "" if estimate is None else format_coefficient(estimate)


def spreads_table(spreads: Sequence[Spread]) -> Table:
    """Return a table with a row for each figure: how far networks differ in it."""
    rows = []
    for spread in spreads:
        row = [spread.figure]
        for value in (spread.least, spread.median, spread.most, spread.between_recipes, spread.between_trainings):
            row.append("n/a" if value is None else f"{value:.1f}")
        rows.append(row)
    return Table(["figure", "least", "median", "most", "deviation of recipes", "of trainings of one"], rows)


def plot_of_predictor(points: Mapping[str, Mapping[str, float]], names: Sequence[str], predictor: str) -> Plot:
    """Return a plot of SA and shift, of predictor and shift, and of both where SA is equal.

    Args:
        points: figures of each recipe of training.
        names: the recipes that are shown.
        predictor: name of a figure.
    """
    columns = {}
    for figure_name in (STANDARD, SHIFT, predictor):
        columns[figure_name] = np.array([points[name][figure_name] for name in names])
    sa, shift, values = columns[STANDARD], columns[SHIFT], columns[predictor]
    ranks_of_sa = rankdata(sa)
    residuals, shift_residuals = _residuals(rankdata(values), ranks_of_sa), _residuals(rankdata(shift), ranks_of_sa)
    panels = [
        (sa, shift, "SA, %", f"{SHIFT}, mean logit"),
        (values, shift, f"{predictor}, %", f"{SHIFT}, mean logit"),
        (
            residuals,
            shift_residuals,
            f"rank by {predictor}, less what SA explains",
            "rank by real shift, less the same",
        ),
    ]
    with drawing():
        figure = Plot(figsize=(15, 5))
        for axes, (x, y, x_label, y_label) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            draw_points(axes, [(name, _point(x[i]), _point(y[i])) for i, name in enumerate(names)], names)
            axes.set_xlabel(x_label)
            axes.set_ylabel(y_label)
        figure.tight_layout()
        write_key(figure, names)
    return figure


def report_of_tables(name: str, title: str, tables: Mapping[str, Table], picture: Picture, answer: Any) -> Report:
    """Return the report of a study's question.

    Args:
        name: of the report, and of its picture.
        title: of the page.
        tables: by their titles, the verdict first.
        picture: below them, on the page.
        answer: a dataclass with a `verdict`.
    """
    sections = [Section(name, heading, tables=[table]) for heading, table in tables.items()]
    sections.append(Section("plots", "Plots", pictures=[picture], shown="on the page"))
    return Report(name, title, sections, asdict(answer), conclusions=[answer.verdict], allow_nan=True)


def _point(value: float) -> Estimate:
    return Estimate(float(value), None, None)


def _residuals(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return what a straight line over `other` leaves of values."""
    residuals: np.ndarray = values - np.polyval(np.polyfit(other, values, 1), other)
    return residuals
