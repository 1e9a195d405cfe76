"""What a diff found, for people, for GitHub's summary of a step, and for what reads JUnit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import escape as html_escape

from fmrgen.apps.release.diff import BROKE, FIXED, Changed, Diff
from fmrgen.apps.release.gate_report import junit_of_one, nothing_worse, others_of
from fmrgen.files import write_atomically
from fmrgen.image_files import stored_image
from fmrgen.metrics.intervals import format_estimate
from fmrgen.report.markdown import escape, table_of
from fmrgen.report.pages import png_address, render_page
from fmrgen.report.plot import INK, Plot, drawing
from fmrgen.report.sheet import SIDE, WRONG, blank_canvas, draw_image
from fmrgen.report.tables import Table
from fmrgen.storage.shards import SplitFolder

SCHEMA = "fmrgen-diff/1"
PROVEN = "What NEW fails on where OLD does not, tried on originals"
_SHOWN = {"page": 24, "summary": 6}  # images of each side
_EXPLANATION = ("explain.json", "explain.html")  # which `--explain` writes into the same folder
_PAIRS = 8
_OF_A_PAIR = 4  # images, of the most frequent pairs first
_ACROSS = 6
_VERDICTS = {
    "broke more": "NEW broke more than it fixed",
    "fixed more": "NEW fixed more than it broke",
    "no difference": "what broke and what was fixed do not differ significantly",
}


def verdict_line(found: Diff) -> str:
    """Return the verdict in words, with what it rests on."""
    if found.worse:
        worse = f"{found.worse[0].line}{others_of(found.worse)}"
        return f"NEW is worse on {worse}; of images made against the two, {_counts_line(found)}"
    line = f"{_VERDICTS[found.verdict]}: {_counts_line(found)}"
    return f"{line}; {nothing_worse(found.conditions)}" if found.conditions and found.verdict != "broke more" else line


def _counts_line(found: Diff) -> str:
    """Return how many originals broke and were fixed; where more broke, between which classes most."""
    looked = f"{found.rows:,} originals"
    if found.rows < found.source_rows:
        looked = f"the first {found.rows:,} of {found.source_rows:,} originals, which were enough to tell,"
    line = f"of {looked} {format_estimate(found.broke)} % broke and {format_estimate(found.fixed)} % were fixed"
    pairs = [f"{label} → {answer} ({count})" for side, label, answer, count in found.pairs if side == BROKE]
    is_of_classes = found.verdict == "broke more" and not found.worse
    return f"{line}; most often {' and '.join(pairs[:2])}" if is_of_classes else line


def condition_lines(found: Diff) -> list[str]:
    """Return a line for each change of the originals under which NEW is worse."""
    return [f"NEW is worse on {condition.line}" for condition in found.worse]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def main_table(found: Diff) -> Table:
    """How many images broke and were fixed, beside those that no step was aimed at."""
    rows = [["originals moved until the two disagree", format_estimate(found.broke), format_estimate(found.fixed)]]
    for name, control in found.controls.items():
        cells = ("n/a" if one is None else format_estimate(one) for one in (control.broke, control.fixed))
        counted = dict.fromkeys((f"{control.broke_rows:,}", f"{control.fixed_rows:,}"))
        rows.append([f"control: {name} ({', '.join(counted)})", *cells])
    return Table(["% of originals", "broke", "fixed"], rows)


def class_table(found: Diff) -> Table:
    """By class, those first of which most more broke than were fixed."""
    rows = [[one.name, str(one.rows), format_estimate(one.broke), format_estimate(one.fixed)] for one in found.classes]
    return Table(["class, by broke minus fixed", "originals", "broke, %", "fixed, %"], rows)


def pair_table(found: Diff) -> Table:
    """The most frequent confusions on each side."""
    rows = []
    for side, who in ((BROKE, "NEW"), (FIXED, "OLD")):
        pairs = [pair for pair in found.pairs if pair[0] == side][:_PAIRS]
        rows += [[f"{label} → {answer}", side, who, str(count)] for _, label, answer, count in pairs]
    return Table(["most frequent, true → answer", "outcome", "who is wrong", "images"], rows)


def about_lines(found: Diff, named: Mapping[str, str]) -> list[str]:
    """What else is to be known; `named` says which networks OLD and NEW are."""
    return [
        *(f"{who}: {what}" for who, what in named.items()),
        f"on the originals OLD is right on {format_estimate(found.old_accuracy)} % and NEW on "
        f"{format_estimate(found.new_accuracy)} %",
        difference_line(found),
        "an image counts as broken if OLD is right on it and NEW wrong, and as fixed if it is the other way round, as "
        "far as the recipe's oracle sees its class; the oracle makes mistakes too: look at the images",
        "these two networks are compared: run it between two trainings of OLD's recipe to know what another training "
        "changes",
    ]


def difference_line(found: Diff) -> str:
    """The difference, by which test the verdict is, and how often that is wrong."""
    if found.test == "exact":
        error = "2.5 %" if found.conditions else "5 %"  # of which changed originals take their half
        return (
            f"broke minus fixed: {format_estimate(found.difference)} points; the verdict is that of an exact sign test "
            f"(McNemar, two-sided, p = {found.p_value:.2g}): {found.broke_alone:,} originals broke alone, "
            f"{found.fixed_alone:,} were fixed alone; of equal networks it calls {error} different at most"
        )
    return (
        f"broke minus fixed: {found.difference.value:z.1f} points, in the long run {found.low:z.1f} or more and "
        f"{found.high:z.1f} or less; the test is sequential (betting): each bound, and the verdict, is right in 95 % "
        "of cases, whenever one stops"
    )


def diff_markdown(
    found: Diff, title: str, named: Mapping[str, str], proven: Sequence[str] = (), pictures: Sequence[str] = ()
) -> str:
    """For the summary of a step or a comment; `proven` is what NEW fails on where OLD does not, `pictures` are the
    names of the files of the two sides, as they lie beside it."""
    headline = "NEW is worse under a change of the images" if found.worse else _VERDICTS[found.verdict]
    counts = verdict_line(found) if found.worse else _counts_line(found)
    parts = [f"### {escape(title)}: {escape(headline)}", f"{escape(_sentence(counts))}."]
    parts.append(table_of(main_table(found)))
    if significant := [*condition_lines(found), *proven]:
        parts.append("\n".join([f"**{PROVEN}**", "", *(f"* {escape(line)}" for line in significant)]))
    for name in pictures:
        right, wrong = ("OLD", "NEW") if name.startswith(BROKE) else ("NEW", "OLD")
        parts.append(f"![images that {right} has right and {wrong} wrong]({name})")
    parts.append(table_of(Table(class_table(found).header, class_table(found).rows[:5])))
    if found.pairs:
        parts.append(table_of(pair_table(found)))
    parts.append("\n".join(f"* {escape(line)}" for line in about_lines(found, named)))
    return "\n\n".join(parts) + "\n"


def diff_junit(found: Diff, title: str, named: Mapping[str, str], proven: Sequence[str] = ()) -> bytes:
    """A JUnit file with one test, which fails where more broke than was fixed; `proven` is part of its output."""
    rows = [": ".join(row) for row in main_table(found).rows]
    lines = [*rows, *condition_lines(found), *proven, *about_lines(found, named)]
    tag = "failure" if found.verdict == "broke more" else None
    return junit_of_one("fmrgen diff", title, "NEW breaks no more than it fixes", tag, verdict_line(found), lines)


def write_diff(
    found: Diff,
    folder: Path,
    sides: Mapping[str, SplitFolder],
    title: str,
    named: Mapping[str, str],
    proven: Sequence[str] = (),
) -> None:
    """Writes `diff.json`, `diff.md`, `diff.html`, and pictures of the clearest images, `broke.png` and `fixed.png`.

    Args:
        found: what `diff` returned.
        folder: to write into.
        sides: the folders of the splits `broke` and `fixed`.
        title: of the page.
        named: which networks `OLD` and `NEW` are.
        proven: what NEW fails on where OLD does not; without it, or where that could not be explained, an earlier
            explanation in the folder is removed.
    """
    is_explained = _is_explained(folder, proven)
    if not is_explained:
        for name in _EXPLANATION:
            (folder / name).unlink(missing_ok=True)
    tree: dict[str, Any] = {"schema": SCHEMA} | asdict(found)
    write_atomically(folder / "diff.json", (json.dumps(tree, indent=1, ensure_ascii=False) + "\n").encode())
    pictures = []
    for side, split in sides.items():
        if not (shown := _telling(found, side)[: _SHOWN["page"]]):
            continue
        stored = {row["id"]: row for row in split.rows_of([one.id for one in shown], ["id", "image", "original"])}
        whole = _sheet(shown, stored, side).to_bytes("png")
        few = _sheet(shown[: _SHOWN["summary"]], stored, side).to_bytes("png")
        write_atomically(folder / f"{side}.png", few)
        pictures.append((side, len(found.images[side]), png_address(whole)))
    written = [f"{side}.png" for side, *_ in pictures]
    write_atomically(folder / "diff.md", diff_markdown(found, title, named, proven, written).encode())
    page = render_page(
        "diff.html",
        title=title,
        verdict=verdict_line(found),
        found=main_table(found),
        classes=class_table(found),
        pairs=pair_table(found),
        lines=about_lines(found, named),
        proven=[*condition_lines(found), *proven],
        proven_title=PROVEN,
        explanation="explain.html" if is_explained else None,
        pictures=pictures,
    )
    write_atomically(folder / "diff.html", page.encode())


def _is_explained(folder: Path, proven: Sequence[str]) -> bool:
    """Whether the explanation in the folder is of this very diff: it has all its lines."""
    page = folder / "explain.html"
    if not proven or not page.exists():
        return False
    text = page.read_text(encoding="utf-8")
    return all(str(html_escape(line)) in text for line in proven)


def _telling(found: Diff, side: str) -> list[Changed]:
    """The images of a side, some of each pair, the most frequent pairs and of each its clearest images first."""
    by_pair: dict[tuple[str, str], list[Changed]] = {pair[1:3]: [] for pair in found.pairs if pair[0] == side}
    for one in found.images[side]:
        by_pair[one.label, one.answer].append(one)
    first = [one for of_pair in by_pair.values() for one in of_pair[:_OF_A_PAIR]]
    return first + [one for of_pair in by_pair.values() for one in of_pair[_OF_A_PAIR:]]


def _sheet(shown: Sequence[Changed], stored: Mapping[int, Mapping[str, Any]], side: str) -> Plot:
    """Each original with its label; right of it the image, above it the probability of its class by who is right,
    below it by who is wrong, with the answer."""
    right, wrong = ("OLD", "NEW") if side == BROKE else ("NEW", "OLD")
    across = min(_ACROSS, len(shown))
    pair, row = 2 * SIDE + 0.35, SIDE + 0.5
    with drawing():
        figure, canvas = blank_canvas(across * pair, -(-len(shown) // across) * row)
        for place, one in enumerate(shown):
            down, column = divmod(place, across)
            left, top = column * pair, down * row + 0.22
            draw_image(canvas, (left, top), _bytes(stored[one.id].get("original")), one.label, INK)
            beside = left + SIDE + 0.05
            draw_image(canvas, (beside, top), _bytes(stored[one.id]["image"]), f"{right} {one.before:.0%}", INK)
            below = top + SIDE + 0.04
            seen = f"{wrong} {one.after:.0%}: {one.answer}"
            canvas.text(beside, below, seen[:24], va="top", fontsize=8, color=WRONG)
    return figure


def _bytes(stored: Mapping[str, Any] | None) -> bytes | str | None:
    return None if stored is None else stored_image(dict(stored))
