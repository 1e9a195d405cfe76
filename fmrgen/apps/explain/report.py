"""What was found, in sentences, as a page, a table and JSON."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fmrgen.apps.explain.explain import Explanation, Finding, Pair
from fmrgen.files import write_atomically
from fmrgen.metrics.intervals import format_estimate
from fmrgen.report.pages import png_address, render_page
from fmrgen.report.plot import INK, MOST_PERCENT, Plot, colours, drawing, grid_of_figures
from fmrgen.report.sheet import SIDE, WRONG, blank_canvas, draw_image
from fmrgen.report.tables import Table

SCHEMA = "fmrgen-explain/1"
_WAYS = {"along": "changed this way", "against": "the opposite way", "otherwise": "equally large control change"}
_CONTROLS = {"against": "when changed the opposite way", "otherwise": "under an equally large control change"}
_BROKE = "-broke/new"  # how `fmrgen diff` calls the split of what NEW broke
_PAIR, _ROW, _ACROSS = 2 * SIDE + 0.35, SIDE + 0.4, 4  # inches; pairs


def sentence(one: Finding, who: str = "the classifier") -> str:
    """A finding in words: where a classifier fails, how often, and how often under the controls."""
    controls = [f"{format_estimate(one.errors[way])} % {how}" for way, how in _CONTROLS.items() if way in one.errors]
    share = format_estimate(one.errors["along"])
    line = f"{who} misreads {share} % of the originals when they are changed to {one.words} ({', '.join(controls)})"
    if one.pairs:
        line += "; most often " + " and ".join(
            f"{label} → {answer} ({count})" for label, answer, count in one.pairs[:2]
        )
    return line


def summary_lines(found: Explanation) -> list[str]:
    """What is significant, or that nothing is, and what so few originals can't show."""
    who = "NEW" if found.split.endswith(_BROKE) else "the classifier"
    proven = [sentence(one, who) for one in found.reported]
    attributes = dict.fromkeys(finding.attribute for finding in found.findings)
    few = found.fewest_errors
    if few is None:
        unseen = "these originals are too few to show anything"
    else:
        share = f"{few} of {found.originals:,} originals wrong ({few / found.originals:.1%})"
        unseen = f"a change that makes fewer than {share} can't be shown with so few"
    return [
        *(proven or [f"no change that was tried makes {who} fail significantly more often than the controls"]),
        f"{found.fooled:,} of {found.rows:,} perturbed images fool {who}; {len(found.findings)} hypotheses were tested "
        f"on {found.originals:,} other originals, changed for as long as the oracle saw their class; on average at "
        f"most 5 % of the findings are false; {unseen}",
        f"tried: {', '.join(attributes)}; a fault outside these is not found: silence is no clean bill of health",
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
    return Table(["originals changed to", "", "area", *ways, "evidence", "in the split"], rows)


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
