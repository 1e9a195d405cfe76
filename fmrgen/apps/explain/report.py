"""An explanation in sentences, as a page, a table and JSON."""

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
_WAY_TITLES = {"along": "changed this way", "against": "the opposite way", "otherwise": "equally large control change"}
_CONTROLS = {"against": "when changed the opposite way", "otherwise": "under an equally large control change"}
_BROKE = "-broke/new"  # how `fmrgen diff` names the split of images that NEW broke
_PAIR_WIDTH = 2 * SIDE + 0.35  # inches: two images and the gaps
_ROW_HEIGHT = SIDE + 0.4  # inches: an image and its title
_PAIRS_ACROSS = 4
_TITLE_HEIGHT = 0.22  # inches
_GAP = 0.03  # inches between an original and its image


def sentence(finding: Finding, name: str = "the classifier") -> str:
    """Return a finding in words: where a classifier, called `name`, fails, how often, and how often the controls."""
    controls = []
    for way, text in _CONTROLS.items():
        if way in finding.errors:
            controls.append(f"{format_estimate(finding.errors[way])} % {text}")
    share = format_estimate(finding.errors["along"])
    line = (
        f"{name} misreads {share} % of the originals when they are changed to {finding.words} ({', '.join(controls)})"
    )
    if finding.pairs:
        pairs = [f"{label} → {answer} ({count})" for label, answer, count in finding.pairs[:2]]
        line += "; most often " + " and ".join(pairs)
    return line


def summary_lines(explanation: Explanation) -> list[str]:
    """Return what is proven, or that nothing is, and what so few originals can't show."""
    name = "NEW" if explanation.split.endswith(_BROKE) else "the classifier"
    lines = [sentence(finding, name) for finding in explanation.reported]
    if not lines:
        lines = [f"no change that was tried makes {name} fail significantly more often than the controls"]
    attributes = dict.fromkeys(finding.attribute for finding in explanation.findings)
    originals, fewest = explanation.originals, explanation.fewest_errors
    if fewest is None:
        unseen = "these originals are too few to show anything"
    else:
        share = f"{fewest} of {originals:,} originals wrong ({fewest / originals:.1%})"
        unseen = f"a change that makes fewer than {share} can't be shown with so few"
    return [
        *lines,
        f"{explanation.fooled:,} of {explanation.rows:,} perturbed images fool {name}; {len(explanation.findings)} "
        f"hypotheses were tested on {originals:,} other originals, changed for as long as the oracle saw their class; "
        f"on average at most 5 % of the findings are false; {unseen}",
        f"tried: {', '.join(attributes)}; a fault outside these is not found: silence is no clean bill of health",
    ]


def findings_table(explanation: Explanation, unproven: int | None = None) -> Table:
    """Return a table of every hypothesis, the proven first; only the first `unproven` of the others, if a number."""
    findings = explanation.findings
    if unproven is not None:
        findings = findings[: len(explanation.proven) + unproven]
    rows = []
    for finding in findings:
        proven = "proven" if finding.is_proven else ""
        errors = [format_estimate(finding.errors.get(way)) for way in _WAY_TITLES]
        in_split = "n/a" if finding.in_split is None else f"{finding.in_split:z.2f}"
        rows.append([finding.words, proven, f"{finding.area:z.1f}", *errors, f"{finding.e_value:.3g}", in_split])
    titles = [f"{title}, %" for title in _WAY_TITLES.values()]
    return Table(["originals changed to", "", "area", *titles, "evidence", "in the split"], rows)


def write_explanation(explanation: Explanation, folder: Path) -> list[Path]:
    """Write `explain.json` and `explain.html` into `folder`; return their paths."""
    tree: dict[str, Any] = {"schema": SCHEMA} | asdict(explanation)
    for finding_tree in tree["findings"]:
        for pair in finding_tree["shown"]:
            del pair["original"], pair["image"]  # bytes; only the page has them
    text = json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    pictures = []
    for finding in explanation.reported:
        curve = png_address(_curve(finding).to_bytes("png"))
        pictures.append((finding.words, curve, _pairs(finding.shown)))
    page = render_page(
        "explain.html",
        title=f"Where the classifier fails: {explanation.split}",
        lines=summary_lines(explanation),
        found=findings_table(explanation),
        pictures=pictures,
    )
    written = {folder / "explain.json": text, folder / "explain.html": page}
    for path, content in written.items():
        write_atomically(path, content.encode())
    return list(written)


def _curve(finding: Finding) -> Plot:
    """Return a plot of errors by dose, among the images that the oracle still accepts."""
    with drawing():
        figure = Plot(figsize=(5, 2.6))
        axes = figure.subplots()
        for (way, counts), colour in zip(finding.doses.items(), colours(len(finding.doses)), strict=True):
            doses, percent = [0.0], [0.0]
            for dose, accepted, wrong in counts:
                if accepted:
                    doses.append(dose)
                    percent.append(100 * wrong / accepted)
            axes.plot(doses, percent, color=colour, marker="o", markersize=4, label=_WAY_TITLES[way])
        axes.set_xlabel("dose")
        axes.set_ylabel("wrong, % of the accepted")
        grid_of_figures(axes, MOST_PERCENT)
        axes.legend(fontsize=8)
    return figure


def _pairs(shown: list[Pair]) -> str:
    """Return a picture of originals with their labels, each beside its changed image with the answer."""
    across = min(_PAIRS_ACROSS, len(shown))
    with drawing():
        figure, canvas = blank_canvas(across * _PAIR_WIDTH, -(-len(shown) // across) * _ROW_HEIGHT)
        for place, pair in enumerate(shown):
            row, column = divmod(place, across)
            left, top = column * _PAIR_WIDTH, row * _ROW_HEIGHT + _TITLE_HEIGHT
            draw_image(canvas, (left, top), pair.original, pair.label, INK)
            draw_image(canvas, (left + SIDE + _GAP, top), pair.image, pair.answer, WRONG)
    return png_address(figure.to_bytes("png"))
