"""The style of all pictures, as PNG, PDF or SVG, and helpers to draw them."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from fmrgen.errors import UserError, printable_lines
from fmrgen.files import write_atomically
from fmrgen.metrics.intervals import Estimate

_T = TypeVar("_T")

INK, FAINT = "#22303c", "#c9d1d8"
LINES = ["#c8472f", "#2b6690", "#3f7d58", "#8a6bb1", "#b8862d", "#5b6770"]
MOST_PERCENT = 200.0  # that an axis shows: FMR of a network at chance, and the ends of its interval, know no bounds
MOST_PANELS = len(LINES)  # and lines, each of a split
PlotFormat = Literal["png", "pdf", "svg"]
FORMATS: tuple[PlotFormat, ...] = get_args(PlotFormat)
_STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titlecolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called b$_$c
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "image.composite_image": False,  # images stay images of their own in PDF and SVG
    "savefig.dpi": 160,
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # TrueType, which publishers want, and not Type 3
    "svg.hashsalt": "fmrgen",
}
_METADATA: Any = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}  # the same figures, the same bytes


@contextmanager
def drawing() -> Iterator[None]:
    """Set the style of all pictures, within which they are made and written."""
    with style.context(_STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # names may be in any script
        yield


class Plot(Figure):
    """A figure of matplotlib that is written in the style it was made in; made within `drawing`."""

    def to_bytes(self, file_format: str = "png") -> bytes:
        """Return the file of the picture: `png`, `pdf` or `svg`, with the fonts inside."""
        buffer = io.BytesIO()
        with drawing():
            self._write_out_control_characters()
            metadata = _METADATA[file_format]
            self.savefig(buffer, format=file_format, bbox_inches="tight", pad_inches=0.12, metadata=metadata)
        return buffer.getvalue()

    def _write_out_control_characters(self) -> None:
        """Replace control characters in all texts by their escapes.

        Names come from anyone: ESC makes an SVG unreadable, and U+202E turns the direction of what follows.
        """
        for axes in self.axes:
            for axis in (axes.xaxis, axes.yaxis):
                names = [label.get_text() for label in axis.get_ticklabels()]
                printable_names = list(map(printable_lines, names))
                if printable_names != names:
                    axis.set_ticks(axis.get_ticklocs(), printable_names)
        for text in self.findobj(Text):
            text.set_text(printable_lines(text.get_text()))

    def save(self, path: str | Path) -> None:
        """Write the picture in the format that the end of the name says.

        Args:
            path: ends in `.png`, `.pdf` or `.svg`.

        Raises:
            UserError: it ends otherwise, or can't be written.
        """
        file_format = Path(path).suffix.lower().removeprefix(".")
        if file_format not in FORMATS:
            raise UserError(f"{path}: a picture is .png, .pdf or .svg")
        write_atomically(Path(path), self.to_bytes(file_format))

    def _repr_png_(self) -> bytes:
        return self.to_bytes()


def draw_band(
    axes: Axes, places: Sequence[float], values: Sequence[Estimate | None], colour: str, label: str, marker: str = ""
) -> None:
    """Draw a line with its intervals: an estimate for each of the `places` on the x axis, None is left out."""
    points = []
    for place, estimate in zip(places, values, strict=True):
        if estimate is not None:
            points.append((place, estimate.value, *estimate.ends))
    if points:
        x, y, low, high = zip(*points, strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, y, color=colour, label=label, marker=marker, markersize=3.5)


def shortened(name: str, longest: int = 36) -> str:
    """Return a name of at most `longest` letters: its beginning and its end, which tells it from similar ones."""
    if len(name) <= longest:
        return name
    end = longest // 3
    return f"{name[: longest - end - 1]}…{name[-end:]}"


def extremes(splits: Sequence[_T]) -> tuple[list[_T], str]:
    """Return the first and the last few of many splits, and a line for an axis label that says so.

    The splits come in falling order of their figures. Few splits are returned as they are, with an empty line.
    """
    if len(splits) <= MOST_PANELS:
        return list(splits), ""
    few = MOST_PANELS // 2
    return [*splits[:few], *splits[-few:]], f"\nthe {few} highest and the {few} lowest of {len(splits)} splits"


def colours(count: int) -> list[str]:
    """Return a colour for each of so many lines; many lines get shades in their order."""
    if count <= len(LINES):
        return LINES[:count]
    return [to_hex(shade) for shade in colormaps["turbo"](np.linspace(0.05, 0.95, count))]


def grid_of_figures(axes: Axes, most: float = MOST_PERCENT) -> None:
    """Let the y axis run from 0 to the highest value drawn, `most` at most, with room for whole marks at the ends, and
    draw faint grid lines behind the values."""
    top = min(axes.get_ylim()[1], most)
    axes.set_ylim(-0.03 * top, 1.03 * top)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both")
