"""Self-contained pages: no network, all images inside, no script but ours."""

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fmrgen.errors import printable_lines
from fmrgen.report.gallery import Gallery, page_data
from fmrgen.report.report import KeyFigure, Picture, Report, sentence
from fmrgen.report.tables import short_names


def report_page(report: Report, drawings: Mapping[Picture, Markup], files: Mapping[Picture, Sequence[Path]]) -> str:
    """Return a report as one page of HTML.

    `drawings` are its pictures as elements of a page; `files` of each picture lie beside the page or in a folder there.
    """
    shown = [] if report.galleries is None else report.galleries()
    gallery = page_data(shown, short_names([gallery.split for gallery in shown]))
    return render_page(
        "report.html", title=report.title, report=report, drawings=drawings, files=files, gallery=gallery
    )


def gallery_page(gallery: Gallery) -> str:
    """Return one split's rows as a page of HTML."""
    data = page_data([gallery], {gallery.split: gallery.split})
    return render_page("gallery.html", title=gallery.split, gallery=data)


def render_page(template: str, **values: Any) -> str:
    """Return a page from a template; all values are escaped, and no character turns the direction of the text."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = [name for name in loader.list_templates() if name.endswith(".js")]
    scripts = {name: loader.get_source(environment, name)[0] for name in names}
    digests = [base64.b64encode(sha256(script.encode()).digest()).decode() for script in scripts.values()]
    # What a page's policy names its scripts by: a browser runs no other.
    environment.globals["script_hashes"] = Markup(" ".join(f"'sha256-{digest}'" for digest in digests))
    environment.globals["script"] = lambda name: Markup(f"<script>{scripts[name]}</script>")
    environment.filters |= {"sentence": sentence, "json": _json_in_page, "bar": _bar}
    return environment


def _json_in_page(content: Any) -> Markup:
    """Return JSON whose texts cannot end the script element that holds it."""
    text = json.dumps(_shown(content), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _shown(content: Any) -> Any:
    """Return a value with all its texts as a page may show them; markup is our own and stays."""
    if isinstance(content, Markup):
        return content
    if isinstance(content, str):
        return printable_lines(content)
    if isinstance(content, dict):
        return {_shown(key): _shown(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_shown(value) for value in content]
    return content


def _bar(figure: KeyFigure) -> Markup:
    """Return a figure and its interval on a line from end to end of its scale, with a mark at zero inside it."""

    def place(value: float) -> float:
        share = (value - figure.low) / (figure.high - figure.low)
        return round(100 * min(1.0, max(0.0, share)), 1)

    left, right = map(place, figure.estimate.ends)
    parts = [
        f'<i class="span" style="left:{left}%;width:{max(0.5, round(right - left, 1))}%"></i>',
        f'<i class="dot" style="left:{place(figure.estimate.value)}%"></i>',
    ]
    if figure.low < 0 < figure.high:
        parts.append(f'<i class="zero" style="left:{place(0)}%"></i>')
    ends = f"<span>{figure.low:g}</span><span>{figure.high:g}</span>"
    return Markup(f'<div class="bar" aria-hidden="true">{"".join(parts)}</div><div class="ends">{ends}</div>')
