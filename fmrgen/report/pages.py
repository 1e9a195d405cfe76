"""Self-contained pages: no network, all images inside."""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fmrgen.errors import printable
from fmrgen.report.gallery import Gallery
from fmrgen.report.outline import outline
from fmrgen.report.tables import EXPLAINED, legend, short_split_names, warning_lines
from fmrgen.results.evaluation import Evaluation

_PLOTS = {
    "fmr": "FMR of every classifier on every split, with 95 % intervals",
    "transfer": "Transfer: every classifier on every split",
    "models": "The same images in each classifier's own split, with its answers",
    "accuracy": "SA on originals and PA on perturbed images, with 95 % intervals",
    "families": "PA against SA, a point for each classifier, coloured by the letters that its name begins with",
    "iterations": "Guided steps in the stored images of valid rows",
    "classes": "Accuracy by class",
    "budgets": "FMR of each split's own classifier at smaller budgets, and its mean over budgets",
    "distances": "FMR of each split's own classifier, had larger changes not counted",
    "thresholds": "FMR and VR, had the oracle asked for a higher probability",
    "failures": "The step at which a split's own classifier is first wrong",
    "classes-by-budget": "FMR by class and budget",
}
_PNG_DOTS_PER_INCH = 160  # savefig.dpi in plot.py
_PAGE_DOTS_PER_INCH = 100  # at which the pictures' letters are as large as the page's


def report_page(
    evaluation: Evaluation, plots: dict[str, bytes], galleries: Sequence[Gallery], plot_formats: Sequence[str]
) -> str:
    """Return the whole evaluation as one page of HTML.

    Args:
        evaluation: with its predictions.
        plots: PNGs by the names of their plots.
        galleries: of the splits.
        plot_formats: in each of which the plots lie beside the page.
    """
    short = short_split_names(evaluation)
    pictures = []
    for name, caption in _PLOTS.items():
        if name in plots:
            png = plots[name]
            picture = {"name": name, "caption": caption, "address": png_address(png), "width": _width(png)}
            pictures.append(picture)
    return render_page(
        "report.html",
        title="Robustness report",
        evaluation=evaluation,
        sections=outline(evaluation),
        plots=pictures,
        formats=plot_formats,
        warnings=warning_lines(evaluation),
        explained=EXPLAINED,
        legend=legend(evaluation),
        gallery=_script_data(galleries, short),
    )


def gallery_page(gallery: Gallery) -> str:
    """Return one split's rows as a page of HTML."""
    data = _script_data([gallery], {gallery.split: gallery.split})
    return render_page("gallery.html", title=gallery.split, gallery=data)


def audit_page(content: dict[str, Any]) -> str:
    """Return the page on which people name images.

    `content` has the `raters`, the `names` of the classes, the `total` of images and, if there is no server, the
    `images` of each rater as addresses and a `key` of the sample.
    """
    return render_page("audit.html", title="What do you see?", total=content["total"], content=_json_in_page(content))


def render_page(template: str, **values: Any) -> str:
    """Return a page from a template of this package; all values are escaped, and no character turns the direction of
    the text."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


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
