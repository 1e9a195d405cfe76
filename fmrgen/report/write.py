"""The files that an evaluation leaves."""

import io
from pathlib import Path

import pyarrow.parquet as pq

from fmrgen.evaluation.results import Evaluation
from fmrgen.report.gallery import galleries
from fmrgen.report.markdown import to_markdown
from fmrgen.report.pages import report_page
from fmrgen.report.plots import all_plots
from fmrgen.split import write_atomically


def write_report(evaluation: Evaluation, folder: str | Path) -> None:
    """Writes `evaluation.json`, `predictions.parquet`, `evaluation.md`, the plots and `report.html` into `folder`.

    Raises UserError where it can't be written to.
    """
    folder = Path(folder)
    plots = all_plots(evaluation)
    table = io.BytesIO()
    pq.write_table(evaluation.predictions, table, compression="zstd")
    write_atomically(folder / "evaluation.json", evaluation.to_json().encode())
    write_atomically(folder / "predictions.parquet", table.getvalue())
    write_atomically(folder / "evaluation.md", to_markdown(evaluation).encode())
    for name, png in plots.items():
        write_atomically(folder / name, png)
    write_atomically(folder / "report.html", report_page(evaluation, plots, galleries(evaluation)).encode())
