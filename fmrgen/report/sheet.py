"""Sheets of originals beside perturbed images, as in the paper's Figure 2."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.textpath import TextPath

from fmrgen.image_files import open_rgb
from fmrgen.report.plot import INK, Plot, drawing, shortened
from fmrgen.results.samples import Sample

COLUMNS = 6  # pairs across
_PAIR, _ROW = 1.9, 1.16  # inches, from pair to pair and from row to row
_SIDE, _SLIT = 0.84, 0.03  # inches: of an image, and between the two of a pair
_BETWEEN = 0.3  # inches between single images
_HEAD, _BELOW = 0.52, 0.2  # inches: of the title, and of a line below an image
_CAPTION, _ROOM = 7, 58  # points: of the letters, and between two images
_SHORTEST = 3  # letters of a caption: its first, a sign for what is left out, and its last
_LONGEST = 40  # letters of a caption that are measured: more never fit
_WRONG, _PALE = "#c8472f", "#66727d"
_READING = (
    "left the original under its label, right the perturbed image under the classifier's prediction;\n"
    "*: invalid, the oracle rejects the first step, and the image is unperturbed"
)


@dataclass(frozen=True)
class ImagePair:
    """An original and what became of it."""

    original: bytes | str | None  # a file's bytes or its path; None leaves the place empty
    image: bytes | str | None  # as the original
    label: str  # above the original
    prediction: str  # above the image
    is_wrong: bool = False  # whether the prediction is in the colour of mistakes
    below: str = ""  # below the image, in the colour of mistakes


@dataclass(frozen=True)
class CaptionedImage:
    """An image by itself."""

    image: bytes | str  # a file's bytes or its path
    above: str  # its caption
    below: str  # a line or two, in the colour of mistakes


def image_sheet(images: Sequence[CaptionedImage], columns: int = 8) -> Plot:
    """Return a sheet of single images, at least one, from left to right and from top to bottom."""
    columns = min(columns, len(images))
    across = _SIDE + _BETWEEN
    row_height = _ROW + _BELOW * max(1 + image.below.count("\n") for image in images)
    with drawing():
        figure, canvas = _blank_canvas(columns * across - _BETWEEN, -(-len(images) // columns) * row_height)
        for place, image in enumerate(images):
            row, column = divmod(place, columns)
            left, top = column * across, row * row_height + _ROW - _SIDE
            below = "\n".join(map(_shortened, image.below.split("\n")))
            _draw_image(canvas, left, top, image.image, image.above, below=below)
    return figure


def pair_sheet(pairs: Sequence[ImagePair | None], columns: int = COLUMNS, title: str | None = None) -> Plot:
    """Return a sheet of pairs: an original under its label, and right of it the image under the prediction.

    The pairs go from left to right and from top to bottom; None leaves a place empty. Below the title are two lines on
    how to read the sheet; None leaves both out.
    """
    columns = min(columns, len(pairs))
    head = 0.0 if title is None else _HEAD
    has_below = any(pair is not None and pair.below for pair in pairs)
    row_height = _ROW + _BELOW if has_below else _ROW
    down = -(-len(pairs) // columns)
    with drawing():
        figure, canvas = _blank_canvas((columns - 1) * _PAIR + 2 * _SIDE + _SLIT, head + down * row_height)
        for place, pair in enumerate(pairs):
            if pair is None:
                continue
            row, column = divmod(place, columns)
            left, top = column * _PAIR, head + row * row_height + _ROW - _SIDE
            _draw_image(canvas, left, top, pair.original, pair.label)
            # Two images close together, then a gap: the pairs are seen as pairs.
            right, below = left + _SIDE + _SLIT, pair.below[:24]
            _draw_image(canvas, right, top, pair.image, pair.prediction, pair.is_wrong, below)
        if title is not None:
            canvas.text(0, 0, title, va="top", fontsize=10)
            canvas.text(0, 0.22, _READING, va="top", fontsize=7, color=_PALE)
    return figure


def contact_sheet(
    title: str | None, class_names: Sequence[str], samples: Sequence[Sample | None], columns: int = COLUMNS
) -> Plot:
    """Return a sheet of rows of a split, as `pair_sheet` draws them.

    The prediction is the classifier's, or the oracle's if the split stores none of the classifier; a wrong one is red,
    and that of an invalid row has an asterisk. A row without an original shows its perturbed image alone, and None
    leaves a place empty. The names of classes are by label.
    """
    pairs: list[ImagePair | None] = []
    for sample in samples:
        if sample is None:
            pairs.append(None)
            continue
        label = sample.columns["label"]
        prediction = sample.columns.get("prediction", sample.columns.get("oracle_label"))
        text = "" if prediction is None else "no prediction"
        if prediction is not None and 0 <= prediction < len(class_names):
            text = class_names[prediction]
        if not sample.columns.get("valid", True):
            text = f"* {text}"
        pairs.append(ImagePair(sample.original, sample.image, class_names[label], text, prediction != label))
    return pair_sheet(pairs, columns, title)


def _blank_canvas(width: float, height: float) -> tuple[Plot, Axes]:
    """Return a figure and its only axes, in inches from the upper left corner: an axes for each image is far slower."""
    figure = Plot(figsize=(width, height))
    canvas = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    canvas.set_axis_off()
    return figure, canvas


def _draw_image(
    canvas: Axes,
    left: float,
    top: float,
    image: bytes | str | None,
    caption: str,
    is_wrong: bool = False,
    below: str = "",
) -> None:
    """Draw an image under its caption, in the middle of a square that begins at `left`, `top`, in inches.

    The image is a file's bytes or its path; None draws nothing. A caption that `is_wrong` is in the colour of mistakes,
    as the text below the square.
    """
    if below:
        canvas.text(left, top + _SIDE + 0.04, below, va="top", fontsize=_CAPTION, color=_WRONG)
    if image is None:
        return
    pixels = np.asarray(open_rgb(image))
    rows, columns = pixels.shape[:2]
    height, width = _SIDE * rows / max(rows, columns), _SIDE * columns / max(rows, columns)
    left, low = left + (_SIDE - width) / 2, top + (_SIDE + height) / 2
    interpolation = "nearest" if rows <= 64 else "antialiased"  # small images keep their pixels
    extent = (left, left + width, low, low - height)
    canvas.imshow(pixels, interpolation=interpolation, extent=extent, aspect="auto")
    colour = _WRONG if is_wrong else INK
    canvas.text(left, low - height - 0.035, _shortened(caption), va="bottom", color=colour, fontsize=_CAPTION)


def _shortened(name: str) -> str:
    """Return a class's first synonym, without its middle if it is wider than an image."""
    name = name.partition(",")[0]
    length = min(len(name), _LONGEST)
    while length > _SHORTEST and _width(shortened(name, length)) > _ROOM:
        length -= 1
    return shortened(name, length)


def _width(text: str) -> float:
    """Return the width in points, as a caption."""
    if not text.strip():
        return 0.0
    return TextPath((0, 0), text, size=_CAPTION).get_extents().width
