"""What all pictures have in common: one style wherever they are drawn, as PNG, PDF or SVG."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmrgen.errors import UserError
from fmrgen.files import write_atomically
from fmrgen.intervals import Estimate, interval_ends

INK, FAINT = "#22303c", "#c9d1d8"
LINES = ["#c8472f", "#2b6690", "#3f7d58", "#8a6bb1", "#b8862d", "#5b6770"]
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
    "savefig.dpi": 160,
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # TrueType, which publishers want, and not Type 3
    "svg.hashsalt": "fmrgen",
}
_METADATA: Any = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}  # the same figures, the same bytes


def all_formats(more: Sequence[str]) -> list[PlotFormat]:
    """PNG, which there always is, and `more`. Raises UserError for an unknown one."""
    for unknown in set(more).difference(FORMATS):
        raise UserError(f"plots are {', '.join(FORMATS)}, not {unknown}")
    return [name for name in FORMATS if name == "png" or name in more]


@contextmanager
def drawing() -> Iterator[None]:
    """The style of all pictures, within which they are made and written."""
    with style.context(_STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # names may be in any script
        yield


class Plot(Figure):
    """A figure of matplotlib that is written in the style it was made in; made within `drawing`."""

    def to_bytes(self, file_format: str = "png") -> bytes:
        """The file of the picture: `png`, `pdf` or `svg`, with the fonts inside."""
        buffer = io.BytesIO()
        with drawing():
            metadata = _METADATA[file_format]
            self.savefig(buffer, format=file_format, bbox_inches="tight", pad_inches=0.12, metadata=metadata)
        return buffer.getvalue()

    def save(self, path: str | Path) -> None:
        """Writes the picture; the end of the name says how.

        Args:
            path: ends in `.png`, `.pdf` or `.svg`.

        Raises:
            UserError: it ends otherwise, or can't be written.
        """
        file_format = Path(path).suffix.lower().removeprefix(".")
        if file_format not in FORMATS:
            raise UserError(f"{path}: a picture is .png, .pdf or .svg")
        write_atomically(Path(path), self.to_bytes(file_format))

    def save_all(self, folder: Path, name: str, more: Sequence[PlotFormat] = ()) -> list[Path]:
        """Writes the picture into `folder` as PNG, and in `more` formats; returns the paths, the PNG's first."""
        paths = [folder / f"{name}.{file_format}" for file_format in all_formats(more)]
        for path in paths:
            self.save(path)
        return paths

    def _repr_png_(self) -> bytes:
        return self.to_bytes()


def draw_band(
    axes: Axes, places: Sequence[float], values: Sequence[Estimate | None], colour: str, label: str, marker: str = ""
) -> None:
    """A line with its intervals; what is not known is left out."""
    known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
    if not known:
        return
    x = [place for place, _ in known]
    low, high = zip(*(interval_ends(value) for _, value in known), strict=True)
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(x, [value.value for _, value in known], color=colour, label=label, marker=marker, markersize=3.5)


def grid_of_percent(axes: Axes) -> None:
    """Faint lines for the eye, behind what is drawn."""
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
