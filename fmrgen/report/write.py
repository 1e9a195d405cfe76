"""The files of a report."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fmrgen.files import json_text, write_atomically
from fmrgen.report.index import write_page
from fmrgen.report.markdown import to_markdown
from fmrgen.report.pages import report_page
from fmrgen.report.report import Report

if TYPE_CHECKING:
    from fmrgen.report.plot import PlotFormat
    from fmrgen.results.evaluation import Evaluation


def write(report: Report, folder: Path, plot_formats: "Sequence[PlotFormat]" = ()) -> list[Path]:
    """Write a report's files: `NAME.json`, `NAME.md`, its pictures and its page.

    Args:
        report: to be written.
        folder: to write into.
        plot_formats: of each picture besides PNG.

    Returns:
        The paths, the JSON's first and the page's last.

    Raises:
        UserError: a file can't be written; a format is unknown.
    """
    formats: Sequence[PlotFormat] = ()
    if plot_formats or any(report.pictures()):
        from fmrgen.report.linked_svg import drawn  # brings matplotlib
        from fmrgen.report.plot import all_formats

        formats = all_formats(plot_formats)
    paths, drawings = [], {}
    for picture in report.pictures():
        plot = picture.draw()
        png = None
        if picture.name:
            files = plot.save_all(folder, picture.name, plot_formats)
            png = files[0].read_bytes()
            paths += files
        drawings[picture] = drawn(picture, plot, png, has_gallery=report.galleries is not None)
    json_path, markdown_path = folder / f"{report.name}.json", folder / f"{report.name}.md"
    page_path = folder / f"{report.page_name or report.name}.html"
    write_atomically(json_path, json_text(report.data, strict=not report.allow_nan).encode())
    write_atomically(markdown_path, to_markdown(report, with_pictures=True).encode())
    write_page(page_path, report_page(report, drawings, formats))
    return [json_path, markdown_path, *paths, page_path]


def write_report(evaluation: "Evaluation", folder: str | Path, plot_formats: "Sequence[PlotFormat]" = ()) -> None:
    """Write `evaluation.json`, `predictions.parquet`, `evaluation.md`, `report.html` and its `plots`.

    Args:
        evaluation: returned by `evaluate`.
        folder: to write into.
        plot_formats: of each plot besides PNG: `pdf` and `svg`, for papers, with their fonts inside.

    Raises:
        UserError: it can't be written to; a format is unknown; `evaluation` was read from a file, without predictions.
    """
    from fmrgen.report.outline import evaluation_report

    write_predictions(evaluation, Path(folder))
    write(evaluation_report(evaluation), Path(folder), plot_formats)


def write_predictions(evaluation: "Evaluation", folder: Path) -> None:
    """Write `predictions.parquet`. Raise UserError if `evaluation` was read from a file, without predictions."""
    import pyarrow.parquet as pq

    table = io.BytesIO()
    pq.write_table(evaluation.checked_predictions(), table, compression="zstd")
    write_atomically(folder / "predictions.parquet", table.getvalue())
