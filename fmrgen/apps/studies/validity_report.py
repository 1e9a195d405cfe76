"""The report of whether FMR predicts accuracy on real shifts."""

from functools import partial

from fmrgen.apps.studies.predictors import SHIFT
from fmrgen.apps.studies.predictors_report import (
    plot_of_predictor,
    predictions_table,
    report_of_tables,
    spreads_table,
)
from fmrgen.apps.studies.validity import Validity
from fmrgen.metrics.intervals import format_coefficient
from fmrgen.report.report import Picture, Report, Table

_BEST = 8  # candidates in the table


def validity_report(validity: Validity) -> Report:
    """Return the report of whether FMR predicts accuracy on real shifts, the verdict first."""
    choose, confirm = len(validity.choose), len(validity.confirm)
    less = f"{validity.confirmed[0].predictor} less it"
    tables = {
        "the verdict": _verdict_table(validity),
        f"predictors of {SHIFT}, on the {confirm} recipes of training that confirm": predictions_table(
            validity.confirmed, less
        ),
        "the chosen FMR and each shift": predictions_table(validity.by_target, None),
        "the same under other steps, generators and oracles": predictions_table(validity.checked, less),
        "today's default over all recipes of training": predictions_table([validity.of_default], None),
        f"recipes of splits on the {choose} recipes of training among which was chosen": _candidates_table(validity),
        "how far networks differ": spreads_table(validity.spreads),
    }
    draw = partial(plot_of_predictor, validity.points, validity.confirm, validity.chosen)
    plot = Picture("A point for each recipe of training that confirms", draw, "validity")
    return report_of_tables("validity", "Does FMR predict accuracy on real shifts?", tables, plot, validity)


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
        of_text=True,
    )


def _candidates_table(validity: Validity) -> Table:
    """Return the best candidates, and today's default."""
    names = sorted(validity.candidates, key=lambda name: -validity.candidates[name])[:_BEST]
    if validity.default not in names:
        names.append(validity.default)
    rows = [[name, f"{validity.candidates[name]:z.2f}"] for name in names]
    return Table(["recipe of splits", f"rank correlation with {SHIFT} where SA is equal"], rows)
