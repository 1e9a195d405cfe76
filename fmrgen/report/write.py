"""The files of an evaluation's report."""

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from fmrgen.errors import UserError
from fmrgen.files import write_atomically
from fmrgen.report.gallery import galleries
from fmrgen.report.markdown import to_markdown
from fmrgen.report.pages import report_page
from fmrgen.report.plot import PlotFormat, all_formats
from fmrgen.report.plots import all_plots
from fmrgen.results.evaluation import Evaluation


def prepare_folder(folder: Path) -> None:
    """Make the folder of a report. Raise UserError if it can't be written to: before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".fmrgen").touch()
        (folder / ".fmrgen").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: can't be a folder for the report: {error.strerror}") from None


def write_report(evaluation: Evaluation, folder: str | Path, plot_formats: Sequence[PlotFormat] = ()) -> None:
    """Write `evaluation.json`, `predictions.parquet`, `evaluation.md`, `report.html` and its `plots`.

    Args:
        evaluation: returned by `evaluate`.
        folder: to write into.
        plot_formats: of each plot besides PNG: `pdf` and `svg`, for papers, with their fonts inside.

    Raises:
        UserError: it can't be written to; a format is unknown; `evaluation` was read from a file, without predictions.
    """
    folder, formats = Path(folder), all_formats(plot_formats)
    table = io.BytesIO()
    pq.write_table(evaluation.checked_predictions(), table, compression="zstd")
    write_atomically(folder / "evaluation.json", evaluation.to_json().encode())
    write_atomically(folder / "predictions.parquet", table.getvalue())
    write_atomically(folder / "evaluation.md", to_markdown(evaluation).encode())
    pictures = {}
    for name, draw in all_plots(evaluation).items():
        pictures[name] = draw().save_all(folder / "plots", name, plot_formats)[0].read_bytes()
    write_atomically(folder / "report.html", report_page(evaluation, pictures, galleries(evaluation), formats).encode())
