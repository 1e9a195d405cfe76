"""Self-contained pages: no network, all images inside."""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fmrgen.evaluation.results import EvaluationResults
from fmrgen.report.gallery import Gallery
from fmrgen.report.tables import (
    EXPLAINED,
    all_notes,
    class_table,
    legend,
    neighbours,
    own_lines,
    own_table,
    ranked,
    short_names,
    split_facts,
    split_table,
    transfer_table,
)

_PLOTS = {
    "transfer.png": "Transfer: splits down, classifiers across",
    "models.png": "The same images as each classifier's own split has them, with its answer",
    "accuracy.png": "SA on originals and PA on perturbed images, with 95 % intervals",
    "iterations.png": "Guided steps in the stored images of valid rows",
    "classes.png": "Accuracy by class",
    "budgets.png": "FMR of each split's own classifier, had the budget been smaller, and its mean over budgets",
    "thresholds.png": "FMR and VR, had the oracle asked for a higher probability",
    "failures.png": "The step at which a split's own classifier is wrong for the first time",
    "classes-by-budget.png": "FMR by class and budget",
}


def report_page(evaluation: EvaluationResults, plots: dict[str, bytes], galleries: Sequence[Gallery]) -> str:
    """The whole evaluation as one page of HTML."""
    short = short_names([split.name for split in evaluation.splits])
    sections = []
    for split, row, comparison in zip(evaluation.splits, evaluation.matrix, evaluation.comparisons, strict=True):
        sections.append(
            {
                "name": split.name,
                "facts": split_facts(split, row),
                "table": split_table(ranked(row, comparison)),
                "otherwise": split_table(ranked(row, comparison), secondary=True),
                "neighbours": neighbours(comparison),
                "classes": [(result.classifier, class_table(result, split)) for result in row],
            }
        )
    shown = [(caption, _png_address(plots[name]), name) for name, caption in _PLOTS.items() if name in plots]
    return _render(
        "report.html",
        title="Robustness report",
        evaluation=evaluation,
        own=own_table(evaluation),
        own_lines=own_lines(evaluation),
        sections=sections,
        transfer=[transfer_table(evaluation, "fmr"), transfer_table(evaluation, "perturbed_accuracy")]
        if len(evaluation.results) > 1
        else [],
        plots=shown,
        notes=all_notes(evaluation),
        explained=EXPLAINED,
        legend=legend(evaluation),
        gallery=_script_data(galleries, short),
    )


def gallery_page(gallery: Gallery) -> str:
    """One split's rows as a page of HTML."""
    return _render("gallery.html", title=gallery.split, gallery=_script_data([gallery], {gallery.split: gallery.split}))


def _render(template: str, **values: Any) -> str:
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _script_data(galleries: Sequence[Gallery], short: dict[str, str]) -> Markup:
    """The galleries as JSON that no name in it can break out of."""
    told = [asdict(gallery) | {"short": short[gallery.split]} for gallery in galleries]
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _png_address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
