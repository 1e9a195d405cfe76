"""A contact sheet of originals beside perturbed images, as in the paper's Figure 2."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.textpath import TextPath

from fmrgen.image_files import open_rgb
from fmrgen.report.plot import INK, Plot, drawing
from fmrgen.results.samples import Sample

COLUMNS = 6  # pairs across
_PAIR, _ROW = 1.9, 1.16  # inches, from pair to pair and from row to row
SIDE, _SLIT = 0.84, 0.03  # inches: of an image, and between the two of a pair
_CAPTION, _ROOM = 8, 55  # points: of the letters, and between two images
_LONGEST = 200  # letters that are looked at: no more have room
WRONG, _PALE = "#c8472f", "#66727d"
_READING = "left the original under its label, right the perturbed image under the classifier's answer"


def contact_sheet(
    title: str | None, class_names: Sequence[str], samples: Sequence[Sample | None], columns: int = COLUMNS
) -> Plot:
    """Each original with its label, the perturbed image right of it with what the classifier says of it.

    A wrong answer is red; the oracle's answer stands there where no classifier's is known. A row without an original
    shows its perturbed image alone, and None leaves its place empty. `title` is followed by a line on how to read the
    sheet; None leaves both out.
    """
    columns = min(columns, len(samples))
    head = 0.0 if title is None else 0.52  # inches
    down = -(-len(samples) // columns)
    with drawing():
        figure, canvas = blank_canvas((columns - 1) * _PAIR + 2 * SIDE + _SLIT, head + down * _ROW)
        for place, sample in enumerate(samples):
            if sample is None:
                continue
            row, column = divmod(place, columns)
            left, top = column * _PAIR, head + row * _ROW + _ROW - SIDE
            label = sample.columns["label"]
            answer = sample.columns.get("prediction", sample.columns.get("oracle_label"))
            draw_image(canvas, (left, top), sample.original, class_names[label], INK)
            # Two images close together, then a gap: the pairs are seen as pairs.
            draw_image(canvas, (left + SIDE + _SLIT, top), sample.image, *told_answer(answer, label, class_names))
        if title is not None:
            canvas.text(0, 0, title, va="top", fontsize=10)
            canvas.text(0, 0.22, _READING, va="top", fontsize=7, color=_PALE)
    return figure


def blank_canvas(width: float, height: float) -> tuple[Plot, Axes]:
    """A figure in one coordinate system, inches from its upper left corner: an axes for each image takes far longer."""
    figure = Plot(figsize=(width, height))
    canvas = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    canvas.set_axis_off()
    return figure, canvas


def draw_image(canvas: Axes, corner: tuple[float, float], image: bytes | str | None, caption: str, colour: str) -> None:
    """An image under its caption, in a square with its upper left corner there; nothing where there is none."""
    if image is not None:
        left, top = corner
        pixels = np.asarray(open_rgb(image))
        height, width = (SIDE * length / max(pixels.shape[:2]) for length in pixels.shape[:2])
        left, low = left + (SIDE - width) / 2, top + (SIDE + height) / 2
        smooth = "nearest" if len(pixels) <= 64 else "antialiased"
        extent = (left, left + width, low, low - height)
        canvas.imshow(pixels, interpolation=smooth, extent=extent, aspect="auto")
        canvas.text(left, low - height - 0.035, _shortened(caption), va="bottom", color=colour, fontsize=_CAPTION)


def told_answer(answer: int | None, label: int, class_names: Sequence[str]) -> tuple[str, str]:
    """What a classifier says of an image, and the colour to write it in."""
    if answer is None:
        return "", _PALE
    name = class_names[answer] if 0 <= answer < len(class_names) else "no answer"
    return name, INK if answer == label else WRONG


def _shortened(name: str) -> str:
    """A class's first synonym, as far as it has room over an image."""
    name = name.partition(",")[0][:_LONGEST]
    if _width(name) <= _ROOM:
        return name
    fits, too_long = 0, len(name)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        fits, too_long = (middle, too_long) if _width(f"{name[:middle].rstrip()}…") <= _ROOM else (fits, middle)
    return f"{name[:fits].rstrip()}…"


def _width(text: str) -> float:
    """In points, as a caption."""
    return TextPath((0, 0), text, size=_CAPTION).get_extents().width if text.strip() else 0.0
