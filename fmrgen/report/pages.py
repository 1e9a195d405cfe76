"""Self-contained pages: no network, all images inside."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fmrgen.errors import printable
from fmrgen.report.gallery import Gallery
from fmrgen.report.report import Picture, Report, sentence
from fmrgen.report.tables import short_names

_APPS = Path(__file__).parents[1] / "apps"
_PNG_DOTS_PER_INCH = 160  # savefig.dpi in plot.py
_PAGE_DOTS_PER_INCH = 100  # at which the pictures' letters are as large as the page's


def report_page(report: Report, pngs: Mapping[Picture, bytes], plot_formats: Sequence[str]) -> str:
    """Return a report as one page of HTML.

    Args:
        report: to be shown.
        pngs: of its pictures.
        plot_formats: in each of which the pictures that have a name lie beside the page.
    """
    gallery = None
    if report.galleries is not None:
        galleries = report.galleries()
        short = short_names([shown.split for shown in galleries])
        gallery = _script_data(galleries, short)
    addresses = {picture: png_address(png) for picture, png in pngs.items()}
    widths = {picture: _width(png) for picture, png in pngs.items()}
    return render_page(
        "report.html",
        title=report.title,
        report=report,
        addresses=addresses,
        widths=widths,
        formats=plot_formats,
        gallery=gallery,
    )


def gallery_page(gallery: Gallery) -> str:
    """Return one split's rows as a page of HTML."""
    data = _script_data([gallery], {gallery.split: gallery.split})
    return render_page("gallery.html", title=gallery.split, gallery=data)


def render_page(template: str, **values: Any) -> str:
    """Return a page from a template, of this package or of an app's; all values are escaped, and no character turns
    the direction of the text."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent / "templates", *_APPS.glob("*/templates")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sentence"] = sentence
    environment.filters["json"] = _json_in_page
    return environment


def _script_data(galleries: Sequence[Gallery], short: dict[str, str]) -> Markup:
    """Return the galleries as JSON in a page."""
    return _json_in_page([asdict(gallery) | {"short": short[gallery.split]} for gallery in galleries])


def _json_in_page(content: Any) -> Markup:
    """Return JSON whose texts cannot end the script element that holds it."""
    text = json.dumps(_shown(content), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _shown(content: Any) -> Any:
    """Return a value with all its texts as a page may show them; markup is our own and stays."""
    if isinstance(content, Markup):
        return content
    if isinstance(content, str):
        return "\n".join(map(printable, content.split("\n")))
    if isinstance(content, dict):
        return {key: _shown(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_shown(value) for value in content]
    return content


def _width(png: bytes) -> int:
    """Return the width in CSS pixels at which a picture's letters are as large as the text around it."""
    width = int.from_bytes(png[16:20])  # in the PNG's header
    return width * _PAGE_DOTS_PER_INCH // _PNG_DOTS_PER_INCH


def png_address(png: bytes) -> str:
    """Return a picture as a `data:` address."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
