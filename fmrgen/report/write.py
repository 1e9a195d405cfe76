"""The files of a report."""

import html
import io
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from fmrgen.errors import printable
from fmrgen.files import json_text, write_atomically
from fmrgen.image_files import open_rgb, webp_address
from fmrgen.report.markdown import to_markdown
from fmrgen.report.pages import report_page
from fmrgen.report.report import Picture, Report

if TYPE_CHECKING:
    from fmrgen.report.plot import PlotFormat
    from fmrgen.results.evaluation import Evaluation

_SHOWN = 100 / 160  # pixels of a page for each of a plot, whose letters are then as large as the page's
_QUALITY = 85  # of a WebP of photos, in percent


def write(report: Report, folder: Path, plot_formats: "Sequence[PlotFormat]" = ()) -> list[Path]:
    """Write a report's files: `NAME.json`, `NAME.md`, its pictures and its page.

    The pictures are written as files in each of `plot_formats`; those of photos always as PNG too, which Markdown
    shows. Returns the paths, the JSON's first and the page's last. Raises UserError if a file can't be written, or a
    format is unknown.
    """
    paths: list[Path] = []
    drawings: dict[Picture, Markup] = {}
    files: dict[Picture, list[Path]] = {}
    for picture in chain.from_iterable(section.pictures for section in report.all_sections()):
        plot, png = picture.draw(), None
        formats = dict.fromkeys(["png", *plot_formats] if picture.of_photos else plot_formats)
        files[picture] = [folder / f"{picture.name}.{file_format}" for file_format in formats if picture.name]
        for path in files[picture]:
            plot.save(path)
            if picture.of_photos and path.suffix == ".png":
                png = path.read_bytes()
        paths += files[picture]
        drawings[picture] = _drawn(picture, png or plot.to_bytes())
    json_path, markdown_path = folder / f"{report.name}.json", folder / f"{report.name}.md"
    page_path = folder / f"{report.page_name or report.name}.html"
    write_atomically(json_path, json_text(report.data, strict=not report.allow_nan).encode())
    write_atomically(markdown_path, to_markdown(report, with_pictures=True).encode())
    write_atomically(page_path, report_page(report, drawings, files).encode())
    return [json_path, markdown_path, *paths, page_path]


def _drawn(picture: Picture, png: bytes) -> Markup:
    """Return a picture as an element of HTML, as wide as its letters are large; `png` is its file."""
    bitmap = open_rgb(png)
    width = round(bitmap.width * _SHOWN)
    style = "" if picture.of_photos else ' class="drawn"'
    address = webp_address(bitmap, _QUALITY, lossless=not picture.of_photos)
    caption = html.escape(printable(picture.caption))
    return Markup(f'<img src="{address}" width="{width}" alt="{caption}"{style}>')


def write_report(evaluation: "Evaluation", folder: str | Path, plot_formats: "Sequence[PlotFormat]" = ()) -> None:
    """Write `evaluation.json`, `predictions.parquet`, `evaluation.md` and `report.html`.

    Args:
        evaluation: returned by `evaluate`.
        folder: to write into.
        plot_formats: `png`, `pdf` and `svg`, in which the plots are written too, with their fonts inside.

    Raises:
        UserError: it can't be written to; a format is unknown; `evaluation` was read from a file, without
            predictions.
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
