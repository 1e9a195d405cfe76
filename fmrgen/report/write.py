"""The files that an evaluation leaves."""

import io
from pathlib import Path

import pyarrow.parquet as pq

from fmrgen.errors import UserError
from fmrgen.evaluation.evaluation import Evaluation
from fmrgen.files import write_atomically
from fmrgen.report.gallery import galleries
from fmrgen.report.markdown import to_markdown
from fmrgen.report.pages import report_page
from fmrgen.report.plots import all_plots
from fmrgen.report.side_by_side import side_by_side


def prepare_folder(folder: Path) -> None:
    """Makes the folder of a report. Raises UserError where it can't be one: before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".fmrgen").touch()
        (folder / ".fmrgen").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: can't be a folder for the report: {error.strerror}") from None


def write_report(evaluation: Evaluation, folder: str | Path) -> None:
    """Writes `evaluation.json`, `predictions.parquet`, `evaluation.md`, the plots and `report.html`.

    Args:
        evaluation: what `evaluate` returned.
        folder: to write into.

    Raises:
        UserError: it can't be written to.
    """
    folder = Path(folder)
    table = io.BytesIO()
    pq.write_table(evaluation.predictions, table, compression="zstd")
    write_atomically(folder / "evaluation.json", evaluation.to_json().encode())
    write_atomically(folder / "predictions.parquet", table.getvalue())
    write_atomically(folder / "evaluation.md", to_markdown(evaluation).encode())
    plots = all_plots(evaluation)
    if (picture := side_by_side(evaluation)) is not None:
        plots["models.png"] = picture
    for name, png in plots.items():
        write_atomically(folder / name, png)
    write_atomically(folder / "report.html", report_page(evaluation, plots, galleries(evaluation)).encode())
