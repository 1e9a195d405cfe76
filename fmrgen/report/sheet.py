"""A contact sheet of originals beside perturbed images, as in the paper's Figure 2."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.textpath import TextPath

from fmrgen.evaluation.samples import Sample
from fmrgen.image_files import open_rgb
from fmrgen.report.plot import INK, Plot, drawing

COLUMNS = 6  # pairs across
_CAPTION, _ROOM = 8, 55  # points: of the letters, and between two images
_LONGEST = 200  # letters that are looked at: no more have room
_WRONG, _PALE = "#c8472f", "#66727d"
_READING = "left the original under its label, right the perturbed image under the classifier's answer"


def contact_sheet(
    title: str | None, class_names: Sequence[str], samples: Sequence[Sample], columns: int = COLUMNS
) -> Plot:
    """Each original with its label, the perturbed image right of it with what the classifier says of it.

    A wrong answer is red; the oracle's answer stands there where no classifier's is known. A row without an original
    shows its perturbed image alone. `title` is followed by a line on how to read the sheet; None leaves both out.
    """
    columns = min(columns, len(samples))
    down = -(-len(samples) // columns)
    head = 0.0 if title is None else 0.62  # inches
    height = head + 0.1 + 1.16 * down
    with drawing():
        figure = Plot(figsize=(1.9 * columns, height))
        # Two images close together, then a gap: the pairs are seen as pairs.
        grid = figure.add_gridspec(
            down,
            3 * columns,
            width_ratios=[1, 1, 0.18] * columns,
            wspace=0.04,
            hspace=0.32,
            left=0,
            right=1,
            bottom=0,
            top=1 - head / height,
        )
        for place, sample in enumerate(samples):
            row, column = divmod(place, columns)
            label = sample.columns["label"]
            answer = sample.columns.get("prediction", sample.columns.get("oracle_label"))
            shown = [
                (sample.original, class_names[label], INK),
                (sample.image, *told_answer(answer, label, class_names)),
            ]
            for side, (image, caption, colour) in enumerate(shown):
                draw_image(figure.add_subplot(grid[row, 3 * column + side]), image, caption, colour)
        if title is not None:
            figure.text(0.004, 1, title, va="top", fontsize=10)
            figure.text(0.004, 1 - 0.22 / height, _READING, va="top", fontsize=7, color=_PALE)
    return figure


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
    return name, INK if answer == label else _WRONG


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
