"""The report of whether FMR predicts accuracy on real shifts."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
from scipy.stats import rankdata

from fmrgen.apps.studies.validity import SHIFT, STANDARD, Prediction, Spread, Validity
from fmrgen.metrics.intervals import Estimate, format_coefficient
from fmrgen.report.plot import Plot, draw_points, drawing, write_key
from fmrgen.report.report import Picture, Report, Section, Table

_BEST = 8  # candidates in the table


def validity_report(validity: Validity) -> Report:
    """Return the report of whether FMR predicts accuracy on real shifts, the verdict first."""
    choose, confirm = len(validity.choose), len(validity.confirm)
    less = f"{validity.confirmed[0].predictor} less it"
    tables = {
        "the verdict": _verdict_table(validity),
        f"predictors of {SHIFT}, on the {confirm} recipes of training that confirm": _predictions_table(
            validity.confirmed, less
        ),
        "the chosen FMR and each shift": _predictions_table(validity.by_target, None),
        "the same under other steps, generators and oracles": _predictions_table(validity.checked, less),
        "today's default over all recipes of training": _predictions_table([validity.of_default], None),
        f"recipes of splits on the {choose} recipes of training among which was chosen": _candidates_table(validity),
        "how far networks differ": _spreads_table(validity.spreads),
    }
    sections = [Section("validity", title, tables=[table]) for title, table in tables.items()]
    plot = Picture("A point for each recipe of training that confirms", partial(_plot, validity), "validity")
    sections.append(Section("plots", "Plots", pictures=[plot], shown="on the page"))
    title = "Does FMR predict accuracy on real shifts?"
    return Report("validity", title, sections, asdict(validity), conclusions=[validity.verdict], allow_nan=True)


def _verdict_table(validity: Validity) -> Table:
    power = (
        f"{validity.power:.0f} % of such studies see a true partial correlation of 0.5, four of five one of "
        f"{validity.visible:.2f} (if the other candidates have 0.1)"
    )
    candidates = f"{len(validity.candidates)} recipes of splits, on {len(validity.choose)} recipes"
    return Table(
        ["question", "answer"],
        [
            ["does FMR predict accuracy on real shifts?", validity.verdict],
            ["chosen among", candidates],
            ["power, the choice counted", power],
            ["chosen", validity.chosen],
            ["today's default", validity.default],
            ["left out, their SA is too low", ", ".join(validity.left_out) or "none"],
            ["recipes of splits without a figure", ", ".join(validity.dropped) or "none"],
            ["reliability of SA", f"{validity.reliability:.2f}"],
            ["were SA exact", format_coefficient(validity.corrected)],
        ],
    )


def _predictions_table(predictions: Sequence[Prediction], less: str | None) -> Table:
    """Return a row for each prediction; `less` is the title of the column of differences, None for no such column."""
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


def _candidates_table(validity: Validity) -> Table:
    """Return the best candidates, and today's default."""
    names = sorted(validity.candidates, key=lambda name: -validity.candidates[name])[:_BEST]
    if validity.default not in names:
        names.append(validity.default)
    rows = [[name, f"{validity.candidates[name]:z.2f}"] for name in names]
    return Table(["recipe of splits", f"rank correlation with {SHIFT} where SA is equal"], rows)


def _spreads_table(spreads: Sequence[Spread]) -> Table:
    rows = []
    for spread in spreads:
        row = [spread.figure]
        for value in (spread.least, spread.median, spread.most, spread.between_recipes, spread.between_trainings):
            row.append("n/a" if value is None else f"{value:.1f}")
        rows.append(row)
    return Table(["figure", "least", "median", "most", "deviation of recipes", "of trainings of one"], rows)


def _plot(validity: Validity) -> Plot:
    """Plot a point for each recipe of training that confirms: SA and shift, FMR and shift, both where SA is equal."""
    names, chosen = validity.confirm, validity.chosen
    columns = {}
    for figure_name in (STANDARD, SHIFT, chosen):
        columns[figure_name] = np.array([validity.points[name][figure_name] for name in names])
    sa, shift, fmr = columns[STANDARD], columns[SHIFT], columns[chosen]
    ranks_of_sa = rankdata(sa)
    fmr_residuals, shift_residuals = _residuals(rankdata(fmr), ranks_of_sa), _residuals(rankdata(shift), ranks_of_sa)
    panels = [
        (sa, shift, "SA, %", f"{SHIFT}, mean logit"),
        (fmr, shift, f"{chosen}, %", f"{SHIFT}, mean logit"),
        (fmr_residuals, shift_residuals, "rank by FMR, less what SA explains", "rank by real shift, less the same"),
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


def _point(value: float) -> Estimate:
    return Estimate(float(value), None, None)


def _residuals(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return what a straight line over `other` leaves of values."""
    residuals: np.ndarray = values - np.polyval(np.polyfit(other, values, 1), other)
    return residuals
