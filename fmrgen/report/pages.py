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
from fmrgen.report.tables import EXPLAINED, legend, short_names, warning_lines
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


def report_page(
    evaluation: Evaluation, plots: dict[str, bytes], galleries: Sequence[Gallery], plot_formats: Sequence[str]
) -> str:
    """The whole evaluation as one page of HTML; `plots` are PNGs by the names of their plots, which lie beside the page
    in each of `plot_formats`."""
    short = short_names([split.name for split in evaluation.splits])
    shown = [
        {"name": name, "caption": caption, "address": png_address(plots[name]), "width": _width(plots[name])}
        for name, caption in _PLOTS.items()
        if name in plots
    ]
    return render_page(
        "report.html",
        title="Robustness report",
        evaluation=evaluation,
        sections=outline(evaluation),
        plots=shown,
        formats=plot_formats,
        warnings=warning_lines(evaluation),
        explained=EXPLAINED,
        legend=legend(evaluation),
        gallery=_script_data(galleries, short),
    )


def gallery_page(gallery: Gallery) -> str:
    """One split's rows as a page of HTML."""
    return render_page(
        "gallery.html", title=gallery.split, gallery=_script_data([gallery], {gallery.split: gallery.split})
    )


def audit_page(content: dict[str, Any]) -> str:
    """The page on which people name images; `content` has the `raters`, the `names` of the classes, the `total` of
    images and, where there is no server, the `images` of each rater as addresses and a `key` of the sample."""
    return render_page("audit.html", title="What do you see?", total=content["total"], content=_json_in_page(content))


def render_page(template: str, **values: Any) -> str:
    """A page from a template of this package; whatever is put into it is text, and turns no direction."""
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
    """The galleries as JSON in a page."""
    return _json_in_page([asdict(gallery) | {"short": short[gallery.split]} for gallery in galleries])


def _json_in_page(content: Any) -> Markup:
    """JSON that nothing in it can break out of."""
    text = json.dumps(_shown(content), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _shown(content: Any) -> Any:
    """All texts in a value as a page may show them; markup is our own."""
    if isinstance(content, str):
        return content if isinstance(content, Markup) else "\n".join(map(printable, content.split("\n")))
    if isinstance(content, dict):
        return {key: _shown(value) for key, value in content.items()}
    return [_shown(value) for value in content] if isinstance(content, list | tuple) else content


def _width(png: bytes) -> int:
    """In pixels of a page, on which a picture's letters are as large as the text around it."""
    return int.from_bytes(png[16:20]) * 100 // 160


def png_address(png: bytes) -> str:
    """A picture as an address that is the picture itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
