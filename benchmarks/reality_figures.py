"""A figure of the five answers of benchmarks/reality.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

_SIZE = (15.0, 8.5)  # inches
_DPI = 110


def draw_answers(answers: Mapping[str, Any], file: Path) -> None:
    """Draws what `reality.answer` returned, a panel for each question, to a PNG."""
    figure, axes = plt.subplots(2, 3, figsize=_SIZE, layout="constrained")
    correlations, captured, verdicts, photos, near, empty = axes.flat
    _intervals(correlations, answers["1 partial correlation"])
    correlations.axvline(0, color="grey", linewidth=0.8)
    correlations.set(title="1. By class, given the 500 photos", xlabel="partial rank correlation with the real loss")
    _intervals(captured, answers["2 captured"])
    captured.set(title="2. The first three classes", xlabel="% of the loss of the three worst", xlim=(0, 100))
    _intervals(
        verdicts,
        {
            "regressions: diff": answers["3 regressions called worse"],
            "regressions: photos alone": answers["3 by the photos alone"],
            "twins: diff": answers["3 twins called worse"],
            "twins: photos alone": answers["3 twins by the photos alone"],
        },
    )
    verdicts.set(title="3. Called worse", xlabel="% of pairs", xlim=(0, 100))
    _photos(photos, answers["4 photos"])
    near_in_order = {name: answers["5 near"][name] for name in ("class", "originals", "kept")}
    _intervals(near, near_in_order)
    near.set(title="5. Real photos near what broke", xlabel="% that broke, less those fixed")
    empty.axis("off")
    empty.legend(*photos.get_legend_handles_labels(), loc="center left", title="Question 4")
    figure.savefig(file, dpi=_DPI)
    plt.close(figure)


def _intervals(axes: Axes, figures: Mapping[str, Sequence[float] | None]) -> None:
    """Draws a value and its interval for each name, the first on top."""
    names = [name for name, figure in figures.items() if figure is not None]
    for place, name in enumerate(reversed(names)):
        value, low, high = (figures[name] or [])[:3]
        axes.plot([low, high], [place, place], color="tab:blue")
        axes.plot(value, place, "o", color="tab:blue")
    axes.set_yticks(range(len(names)), labels=list(reversed(names)))
    axes.margins(y=0.1)


def _photos(axes: Axes, shares: Mapping[str, Mapping[str, Sequence[float] | None]]) -> None:
    """Draws how often so many photos alone show a loss, and as a line how often `diff` does on 500."""
    for kind, color in (("regressions", "tab:blue"), ("twins", "tab:orange")):
        figures = shares.get(kind, {})
        counts = [name for name, figure in figures.items() if name.isdecimal() and figure is not None]
        values = [(figures[name] or [])[0] for name in counts]
        axes.plot([int(name) for name in counts], values, "o-", color=color, label=f"{kind}, photos alone")
        of_diff = figures.get("diff on 500")
        if of_diff is not None:
            axes.axhline(of_diff[0], color=color, linestyle="--", label=f"{kind}, diff on 500")
    axes.set(title="4. Labelled photos alone", xlabel="photos", ylabel="% called worse", ylim=(0, 100))
