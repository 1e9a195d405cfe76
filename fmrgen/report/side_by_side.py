"""The same images under several classifiers (paper Figures 2 and 3): one row an example, one column a split."""

import io
import warnings
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmrgen.evaluation.samples import Sample
from fmrgen.evaluation.summarise import Evaluation
from fmrgen.image_files import open_rgb
from fmrgen.report.tables import short_names

_ROWS = 8
_INK, _WRONG = "#22303c", "#c8472f"
_STYLE: Any = {"savefig.dpi": 150, "savefig.facecolor": "white", "font.size": 8, "text.parse_math": False}


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
    with style.context(_STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(1.25 * (len(splits) + 1), 1.3 * len(chosen) + 0.4))
        panels = figure.subplots(len(chosen), len(splits) + 1, squeeze=False)
        for row, example in zip(panels, chosen, strict=True):
            first = by_id[splits[0]][example]
            label = first.columns["label"]
            _show(row[0], first.original, names[splits[0]][label], _INK)
            for axes, split in zip(row[1:], splits, strict=True):
                sample = by_id[split][example]
                answer = sample.columns.get("prediction")
                told = "" if answer is None or answer < 0 else names[split][answer]
                _show(axes, sample.image, told, _INK if answer == label else _WRONG)
        for axes, title in zip(panels[0], ["original", *(short[split] for split in splits)], strict=True):
            axes.text(0.5, 1.32, title[-16:], transform=axes.transAxes, ha="center", fontsize=8, color=_INK)
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


def _show(axes: Axes, image: bytes | str | None, caption: str, colour: str) -> None:
    axes.set_axis_off()
    if image is not None:
        pixels = np.asarray(open_rgb(image))
        axes.imshow(pixels, interpolation="nearest" if len(pixels) <= 64 else "antialiased")
        axes.set_title(caption.partition(",")[0][:14], color=colour, fontsize=8, pad=2.5)
