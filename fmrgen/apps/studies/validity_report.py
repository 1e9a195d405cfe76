"""What became of the question whether FMR predicts accuracy on real shifts: tables and scatter plots."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from fmrgen.apps.studies.validity import SHIFT, STANDARD, Prediction, Validity
from fmrgen.files import write_atomically
from fmrgen.metrics.intervals import Estimate, format_coefficient
from fmrgen.report.plot import Plot, draw_points, drawing, write_key
from fmrgen.report.tables import Table

_BEST = 8  # candidates in the table


def validity_tables(found: Validity) -> dict[str, Table]:
    """By titles, the verdict first."""
    count = f"{len(found.confirm)} recipes of training"
    best = sorted(found.candidates, key=lambda name: -found.candidates[name])
    shown = [*best[:_BEST], *([found.default] if found.default not in best[:_BEST] else [])]
    asked = found.confirmed[0]
    return {
        "the verdict": Table(
            ["question", "answer"],
            [
                ["does FMR predict accuracy on real shifts?", found.verdict],
                [
                    "chosen among",
                    f"{len(found.candidates)} recipes of splits, on {len(found.choose)} recipes",
                ],
                [
                    "power, the choice counted",
                    f"{found.power:.0f} % of such studies see a true partial correlation of 0.5, four of five one of "
                    f"{found.visible:.2f} (if the other candidates have 0.1)",
                ],
                ["chosen", found.chosen],
                ["today's default", found.default],
                ["left out, their SA is too low", ", ".join(found.left_out) or "none"],
                ["recipes of splits without a figure", ", ".join(found.dropped) or "none"],
                ["reliability of SA", f"{found.reliability:.2f}"],
                ["were SA exact", format_coefficient(found.corrected)],
            ],
        ),
        f"predictors of {SHIFT}, on the {count} that confirm": _predictions(
            [*found.confirmed], f"{asked.predictor} less it"
        ),
        "the chosen FMR and each shift": _predictions(found.by_target, None),
        "the same under other steps, generators and oracles": _predictions(found.checked, f"{asked.predictor} less it"),
        "today's default over all recipes of training": _predictions([found.of_default], None),
        f"recipes of splits on the {len(found.choose)} recipes of training among which was chosen": Table(
            ["recipe of splits", f"rank correlation with {SHIFT} where SA is equal"],
            [[name, f"{found.candidates[name]:z.2f}"] for name in shown],
        ),
        "how far networks differ": Table(
            ["figure", "least", "median", "most", "deviation of recipes", "of trainings of one"],
            [
                [
                    one.figure,
                    *(f"{value:.1f}" for value in (one.least, one.median, one.most, one.between_recipes)),
                    "n/a" if one.between_trainings is None else f"{one.between_trainings:.1f}",
                ]
                for one in found.spreads
            ],
        ),
    }


def _predictions(found: Sequence[Prediction], less: str | None) -> Table:
    header = ["predictor", "of", "recipes", "rank correlation", "where SA is equal", *([less] if less else [])]
    rows = []
    for one in found:
        cells = [one.partial, *([one.less] if less else [])]
        estimates = ["" if cell is None else format_coefficient(cell) for cell in cells]
        rows.append([one.predictor, one.target, str(one.recipes), format_coefficient(one.spearman), *estimates])
    return Table(header, rows)


def write_validity(found: Validity, folder: Path) -> list[Path]:
    """Writes `validity.json`, all of it, and the scatter plots; returns the paths."""
    text = json.dumps(asdict(found), indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / "validity.json", text.encode())
    return [folder / "validity.json", *validity_plot(found).save_all(folder, "validity", ())]


def validity_plot(found: Validity) -> Plot:
    """A point for each recipe of training that confirms: SA and shift, FMR and shift, and both where SA is equal."""
    names = found.confirm
    of = {name: np.array([found.points[one][name] for one in names]) for name in (STANDARD, SHIFT, found.chosen)}
    rest = {name: _given(rankdata(of[name]), rankdata(of[STANDARD])) for name in (SHIFT, found.chosen)}
    panels = [
        (of[STANDARD], of[SHIFT], "SA, %", f"{SHIFT}, mean logit"),
        (of[found.chosen], of[SHIFT], f"{found.chosen}, %", f"{SHIFT}, mean logit"),
        (rest[found.chosen], rest[SHIFT], "rank by FMR, less what SA explains", "rank by real shift, less the same"),
    ]
    with drawing():
        figure = Plot(figsize=(15, 5))
        for axes, (x, y, below, beside) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            points = [(name, _point(at), _point(up)) for name, at, up in zip(names, x, y, strict=True)]
            draw_points(axes, points, names)
            axes.set_xlabel(below)
            axes.set_ylabel(beside)
        figure.tight_layout()
        write_key(figure, names)
    return figure


def _point(value: float) -> Estimate:
    return Estimate(float(value), None, None)


def _given(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What a straight line over `other` leaves of values."""
    rest: np.ndarray = values - np.polyval(np.polyfit(other, values, 1), other)
    return rest
