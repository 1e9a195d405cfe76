"""The report of what predicts accuracy on real shifts."""

from functools import partial

from fmrgen.apps.studies.prediction import PredictionAnswer
from fmrgen.apps.studies.predictors import SHIFT
from fmrgen.apps.studies.predictors_report import (
    plot_of_predictor,
    predictions_table,
    report_of_tables,
    spreads_table,
)
from fmrgen.metrics.intervals import format_coefficient
from fmrgen.report.report import Picture, Report, Table


def prediction_report(answer: PredictionAnswer) -> Report:
    """Return the report of what predicts accuracy on real shifts, the verdict first."""
    predictor = answer.confirmed[0].predictor
    tables = {
        "the verdict": _verdict_table(answer),
        f"predictors of {SHIFT}, on the {len(answer.confirm)} recipes of training on which the question was put": (
            predictions_table(answer.confirmed, f"{predictor} less it")
        ),
        f"{predictor} and each shift": predictions_table(answer.by_target, None),
        f"all predictors on the other {len(answer.others)} recipes": predictions_table(answer.on_others, None),
        "all predictors on all recipes": predictions_table(answer.on_all, None),
        "how far networks differ": spreads_table(answer.spreads),
    }
    draw = partial(plot_of_predictor, answer.points, answer.confirm, predictor)
    picture = Picture("A point for each recipe of training on which the question was put", draw, "prediction")
    return report_of_tables("prediction", "What predicts accuracy on real shifts?", tables, picture, answer)


def _verdict_table(answer: PredictionAnswer) -> Table:
    power = (
        f"{answer.power:.0f} % of such studies see a true partial correlation of 0.5, four of five one of "
        f"{answer.visible:.2f}"
    )
    return Table(
        ["question", "answer"],
        [
            [f"does {answer.confirmed[0].predictor} predict accuracy on real shifts?", answer.verdict],
            ["power", power],
            ["left out, their SA is too low", ", ".join(answer.left_out) or "none"],
            ["reliability of SA", f"{answer.reliability:.2f}"],
            ["were SA exact", format_coefficient(answer.corrected)],
            ["order of FMR of one attack and of several", format_coefficient(answer.order)],
        ],
        of_text=True,
    )
