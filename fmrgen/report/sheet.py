"""A contact sheet of originals beside perturbed images, as in the paper's Figure 2."""

import io
import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from fmrgen.evaluation.samples import Sample
from fmrgen.image_files import open_rgb

_ACROSS = 6  # pairs
_CAPTION, _ROOM = 8, 55  # points: of the letters, and between two images
RIGHT, _WRONG, _PALE = "#22303c", "#c8472f", "#8a949d"

SHEET_STYLE = {"savefig.dpi": 150, "savefig.facecolor": "white", "font.size": 8, "text.parse_math": False}


def contact_sheet(title: str, class_names: Sequence[str], samples: Sequence[Sample]) -> bytes:
    """A PNG: each original with its label, the perturbed image right of it with what the classifier says of it.

    A wrong answer is red; the oracle's answer stands there where no classifier's is known. A row without an original
    shows its perturbed image alone.
    """
    down = -(-len(samples) // _ACROSS)
    with (
        style.context(SHEET_STYLE, after_reset=True),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        height = 0.6 + 1.16 * down
        figure = Figure(figsize=(1.9 * _ACROSS, height))
        # Two images close together, then a gap: the pairs are seen as pairs.
        grid = figure.add_gridspec(
            down,
            3 * _ACROSS,
            width_ratios=[1, 1, 0.18] * _ACROSS,
            wspace=0.04,
            hspace=0.32,
            left=0,
            right=1,
            bottom=0,
            top=1 - 0.5 / height,
        )
        for place, sample in enumerate(samples):
            row, column = divmod(place, _ACROSS)
            label = sample.columns["label"]
            answer = sample.columns.get("prediction", sample.columns.get("oracle_label"))
            shown = [
                (sample.original, class_names[label], RIGHT),
                (sample.image, *told_answer(answer, label, class_names)),
            ]
            for side, (image, caption, colour) in enumerate(shown):
                draw_image(figure.add_subplot(grid[row, 3 * column + side]), image, caption, colour)
        figure.suptitle(title, x=0.004, ha="left", y=1, fontsize=10, color=RIGHT)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.12)
        return buffer.getvalue()


def draw_image(axes: Axes, image: bytes | str | None, caption: str, colour: str) -> None:
    """An image without axes under its caption; nothing where there is none."""
    axes.set_axis_off()
    if image is not None:
        pixels = np.asarray(open_rgb(image))
        axes.imshow(pixels, interpolation="nearest" if len(pixels) <= 64 else "antialiased")
        axes.set_title(_shortened(caption), color=colour, fontsize=_CAPTION, pad=2.5)


def told_answer(answer: int | None, label: int, class_names: Sequence[str]) -> tuple[str, str]:
    """What a classifier says of an image, and the colour to write it in."""
    if answer is None:
        return "", _PALE
    name = class_names[answer] if 0 <= answer < len(class_names) else "no answer"
    return name, RIGHT if answer == label else _WRONG


def _shortened(name: str) -> str:
    """A class's first synonym, as far as it has room over an image."""
    name = name.partition(",")[0]
    shown = name
    while len(shown) > 1 and _width(shown) > _ROOM:
        name = name[:-1]
        shown = f"{name.rstrip()}…"
    return shown


def _width(text: str) -> float:
    """In points, as a caption."""
    return TextPath((0, 0), text, size=_CAPTION).get_extents().width if text.strip() else 0.0
