"""The same images under several classifiers (paper Figures 2 and 3): one row an example, one column a split."""

import io
import warnings
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

from fmrgen.evaluation.evaluation import Evaluation
from fmrgen.evaluation.samples import Sample
from fmrgen.report.sheet import RIGHT, SHEET_STYLE, draw_image, told_answer
from fmrgen.report.tables import short_names

_ROWS = 8


def side_by_side(evaluation: Evaluation) -> bytes | None:
    """A PNG of a few examples as each classifier's own split has them, its answer above; None without two splits."""
    if evaluation.own is None:
        return None
    splits = [place.split for place in evaluation.own.ranking]
    by_id = {name: {s.columns.get("id"): s for s in evaluation.samples[name]} for name in splits}
    common: set[Any] = set.intersection(*(set(samples) for samples in by_id.values())) - {None}
    chosen = _of_each_label({example: by_id[splits[0]][example] for example in sorted(common)})
    if not chosen:
        return None
    names = {split.name: split.class_names for split in evaluation.splits}
    short = short_names(splits)
    with style.context(SHEET_STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(1.25 * (len(splits) + 1), 1.3 * len(chosen) + 0.4))
        panels = figure.subplots(len(chosen), len(splits) + 1, squeeze=False)
        for row, example in zip(panels, chosen, strict=True):
            first = by_id[splits[0]][example]
            label = first.columns["label"]
            draw_image(row[0], first.original, names[splits[0]][label], RIGHT)
            for axes, split in zip(row[1:], splits, strict=True):
                sample = by_id[split][example]
                told = told_answer(sample.columns.get("prediction"), label, names[split])
                draw_image(axes, sample.image, *told)
        for axes, title in zip(panels[0], ["original", *(short[split] for split in splits)], strict=True):
            axes.text(0.5, 1.32, title[-16:], transform=axes.transAxes, ha="center", fontsize=8, color=RIGHT)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.1)
        return buffer.getvalue()


def _of_each_label(samples: dict[Any, Sample]) -> list[Any]:
    """A few ids of many labels, valid ones first."""
    order = sorted(samples, key=lambda example: not samples[example].columns.get("valid", True))
    seen: set[int] = set()
    first: list[Any] = []
    more: list[Any] = []
    for example in order:
        label = samples[example].columns["label"]
        (more if label in seen else first).append(example)
        seen.add(label)
    return [*first, *more][:_ROWS]
