"""What was found, in sentences, as a page, a table and JSON."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fmrgen.failures.explain import Explanation, Finding, Pair
from fmrgen.files import write_atomically
from fmrgen.metrics.intervals import format_estimate
from fmrgen.report.pages import png_address, render_page
from fmrgen.report.plot import INK, MOST_PERCENT, Plot, colours, drawing, grid_of_figures
from fmrgen.report.sheet import SIDE, WRONG, blank_canvas, draw_image
from fmrgen.report.tables import Table

SCHEMA = "fmrgen-explain/1"
_WAYS = {"along": "that way", "against": "the other way", "otherwise": "as much otherwise"}
_PAIR, _ROW, _ACROSS = 2 * SIDE + 0.35, SIDE + 0.4, 4  # inches; pairs


def sentence(one: Finding) -> str:
    """A finding in words: where the classifier fails, how often, and against what."""
    others = " and ".join(f"{format_estimate(one.errors[way])} % {_WAYS[way]}" for way in one.errors if way != "along")
    line = f"it fails on {one.words}: {format_estimate(one.errors['along'])} % of the originals, against {others}"
    if one.pairs:
        line += "; most often " + " and ".join(
            f"{label} → {answer} ({count})" for label, answer, count in one.pairs[:2]
        )
    return line


def summary_lines(found: Explanation) -> list[str]:
    """What is proven, or that nothing is, and what could not have been seen."""
    proven = [sentence(one) for one in found.reported]
    few = found.fewest_errors
    unseen = (
        "these originals are too few to prove anything"
        if few is None
        else f"what makes fewer than {few} of {found.originals:,} originals wrong ({few / found.originals:.1%}) "
        "may be there and not be seen"
    )
    return [
        *(proven or ["nothing could be proven of what was tried"]),
        f"{found.fooled:,} of {found.rows:,} images fool it; {len(found.findings)} hypotheses were tried on "
        f"{found.originals:,} originals of other rows, as far as the oracle saw the class; on average at most 5 % of "
        f"what is said to be proven is false; {unseen}",
    ]


def words_lines(found: Explanation) -> list[str]:
    """What a model proposes; nothing where it was not asked, or sees nothing."""
    if not found.words:
        return []
    listed = ", ".join(f"{one.phrase} ({one.standard_errors:.1f})" for one in found.words)
    return [
        "not proven: where images fool the classifier, a model says, they come to fit these words more than "
        f"elsewhere, by so many standard errors: {listed}"
    ]


def findings_table(found: Explanation, unproven: int | None = None) -> Table:
    """Every hypothesis, those first that stand; of the others so many."""
    rows = []
    for one in found.findings if unproven is None else found.findings[: len(found.proven) + unproven]:
        errors = (format_estimate(one.errors.get(way)) for way in _WAYS)
        moves = "n/a" if one.in_split is None else f"{one.in_split:z.2f}"
        rows.append(
            [one.words, "proven" if one.is_proven else "", f"{one.area:z.1f}", *errors, f"{one.e_value:.3g}", moves]
        )
    ways = (f"{way}, %" for way in _WAYS.values())
    return Table(["it fails on", "", "area", *ways, "evidence", "in the split"], rows)


def write_explanation(found: Explanation, folder: Path) -> list[Path]:
    """Writes `explain.json` and `explain.html` into `folder`; returns their paths."""
    tree: dict[str, Any] = {"schema": SCHEMA} | asdict(found)
    for one in tree["findings"]:
        one["shown"] = [{key: pair[key] for key in ("id", "label", "answer")} for pair in one["shown"]]
    text = json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    pictures = [(one.words, png_address(_curve(one).to_bytes("png")), _pairs(one.shown)) for one in found.reported]
    page = render_page(
        "explain.html",
        title=f"Where the classifier fails: {found.split}",
        lines=[*summary_lines(found), *words_lines(found)],
        found=findings_table(found),
        pictures=pictures,
    )
    written = {folder / "explain.json": text, folder / "explain.html": page}
    for path, content in written.items():
        write_atomically(path, content.encode())
    return list(written)


def _curve(one: Finding) -> Plot:
    """Errors by dose, of the images that the oracle still accepts."""
    with drawing():
        figure = Plot(figsize=(5, 2.6))
        axes = figure.subplots()
        for (way, of), colour in zip(one.doses.items(), colours(len(one.doses)), strict=True):
            known = [(dose, 100 * wrong / accepted) for dose, accepted, wrong in of if accepted]
            axes.plot(*zip((0.0, 0.0), *known, strict=True), color=colour, marker="o", markersize=4, label=_WAYS[way])
        axes.set_xlabel("dose")
        axes.set_ylabel("wrong, % of the accepted")
        grid_of_figures(axes, MOST_PERCENT)
        axes.legend(fontsize=8)
    return figure


def _pairs(shown: list[Pair]) -> str:
    """Originals with their labels, beside what they were changed to, with the answer."""
    across = min(_ACROSS, len(shown))
    with drawing():
        figure, canvas = blank_canvas(across * _PAIR, -(-len(shown) // across) * _ROW)
        for place, pair in enumerate(shown):
            down, column = divmod(place, across)
            left, top = column * _PAIR, down * _ROW + 0.22
            draw_image(canvas, (left, top), pair.original, pair.label, INK)
            draw_image(canvas, (left + SIDE + 0.03, top), pair.image, pair.answer, WRONG)
    return png_address(figure.to_bytes("png"))
