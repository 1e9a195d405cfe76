"""The outcome of a diff for people, for GitHub's summary of a step, and for readers of JUnit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import escape as html_escape

from fmrgen.apps.release.diff import BROKE, FIXED, Changed, Diff
from fmrgen.apps.release.gate_report import bullets, junit_of_one, nothing_worse, others_of
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
_ON_PAGE = 24  # images of each side
_IN_SUMMARY = 6  # images of each side
_EXPLANATION = ("explain.json", "explain.html")  # which `--explain` writes into the same folder
_PAIRS = 8  # of classes, in the table of each side
_PER_PAIR = 4  # images of each pair of classes, before any pair has more
_CLASSES = 5  # in the summary
_ACROSS = 6  # pairs of images in a row
_PAIR_WIDTH = 2 * SIDE + 0.35  # inches: two images and the gaps
_ROW_HEIGHT = SIDE + 0.5  # inches: an image and a line above and below
_TITLE_HEIGHT = 0.22  # inches
_GAP = 0.05  # inches between an original and its image
_CAPTION_GAP = 0.04  # inches
_CAPTION_LETTERS = 24  # as long as an image is wide
_VERDICTS = {
    "broke more": "NEW broke more than it fixed",
    "fixed more": "NEW fixed more than it broke",
    "no difference": "what broke and what was fixed do not differ significantly",
}


def verdict_line(outcome: Diff) -> str:
    """Return the verdict in words, with what it rests on."""
    counts = _counts_line(outcome)
    if outcome.worse:
        worse = f"{outcome.worse[0].line}{others_of(outcome.worse)}"
        return f"NEW is worse on {worse}; of images made against the two, {counts}"
    line = f"{_VERDICTS[outcome.verdict]}: {counts}"
    if outcome.conditions and outcome.verdict != "broke more":
        line += f"; {nothing_worse(outcome.conditions)}"
    return line


def _counts_line(outcome: Diff) -> str:
    """Return how many originals broke and were fixed and, if more broke, the classes that are confused most often."""
    originals = f"{outcome.rows:,} originals"
    if outcome.rows < outcome.source_rows:
        originals = f"the first {outcome.rows:,} of {outcome.source_rows:,} originals, which were enough to tell,"
    broke, fixed = format_estimate(outcome.broke), format_estimate(outcome.fixed)
    line = f"of {originals} {broke} % broke and {fixed} % were fixed"
    if outcome.verdict == "broke more" and not outcome.worse:
        pairs = [f"{label} → {answer} ({count})" for side, label, answer, count in outcome.pairs if side == BROKE]
        line += f"; most often {' and '.join(pairs[:2])}"
    return line


def condition_lines(outcome: Diff) -> list[str]:
    """Return a line for each change of the originals under which NEW is worse."""
    return [f"NEW is worse on {condition.line}" for condition in outcome.worse]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def main_table(outcome: Diff) -> Table:
    """Return a table of how many images broke and were fixed, beside the control images."""
    moved = ["originals moved until the two disagree", format_estimate(outcome.broke), format_estimate(outcome.fixed)]
    rows = [moved]
    for name, control in outcome.controls.items():
        counts = f"{control.broke_rows:,}"
        if control.fixed_rows != control.broke_rows:
            counts += f", {control.fixed_rows:,}"
        rows.append([f"control: {name} ({counts})", format_estimate(control.broke), format_estimate(control.fixed)])
    return Table(["% of originals", "broke", "fixed"], rows)


def class_table(outcome: Diff) -> Table:
    """Return a table by class, by the share that broke minus the share that was fixed."""
    rows = []
    for row in outcome.classes:
        rows.append([row.name, str(row.rows), format_estimate(row.broke), format_estimate(row.fixed)])
    return Table(["class, by broke minus fixed", "originals", "broke, %", "fixed, %"], rows)


def pair_table(outcome: Diff) -> Table:
    """Return a table of the most frequent confusions on each side."""
    rows = []
    for side, wrong_network in ((BROKE, "NEW"), (FIXED, "OLD")):
        pairs = [pair for pair in outcome.pairs if pair[0] == side]
        for _, label, answer, count in pairs[:_PAIRS]:
            rows.append([f"{label} → {answer}", side, wrong_network, str(count)])
    return Table(["most frequent, true → answer", "outcome", "who is wrong", "images"], rows)


def about_lines(outcome: Diff, networks: Mapping[str, str]) -> list[str]:
    """Return lines on how to read the figures; `networks` says which networks OLD and NEW are."""
    return [
        *(f"{name}: {network}" for name, network in networks.items()),
        f"on the originals OLD is right on {format_estimate(outcome.old_accuracy)} % and NEW on "
        f"{format_estimate(outcome.new_accuracy)} %",
        difference_line(outcome),
        "an image counts as broken if OLD is right on it and NEW wrong, and as fixed if it is the other way round, as "
        "far as the recipe's oracle sees its class; the oracle makes mistakes too: look at the images",
        "these two networks are compared: run it between two trainings of OLD's recipe to know what another training "
        "changes",
    ]


def difference_line(outcome: Diff) -> str:
    """Return the difference, the test that the verdict is by, and how often that is wrong."""
    if outcome.test == "exact":
        error = "2.5 %" if outcome.conditions else "5 %"  # the test on changed originals has the other half
        return (
            f"broke minus fixed: {format_estimate(outcome.difference)} points; the verdict is that of an exact sign "
            f"test (McNemar, two-sided, p = {outcome.p_value:.2g}): {outcome.broke_alone:,} originals broke alone, "
            f"{outcome.fixed_alone:,} were fixed alone; of equal networks it calls {error} different at most"
        )
    return (
        f"broke minus fixed: {outcome.difference.value:z.1f} points, in the long run {outcome.low:z.1f} or more and "
        f"{outcome.high:z.1f} or less; the test is sequential (betting): each bound, and the verdict, is right in 95 % "
        "of cases, whenever one stops"
    )


def diff_markdown(
    outcome: Diff,
    title: str,
    networks: Mapping[str, str],
    new_failures: Sequence[str] = (),
    pictures: Sequence[str] = (),
) -> str:
    """Return a diff as Markdown, for the summary of a step or a comment.

    Args:
        outcome: what `diff` returned.
        title: for the heading.
        networks: which networks OLD and NEW are.
        new_failures: lines on what NEW fails on and OLD does not.
        pictures: names of the files of the two sides, which lie in the same folder.
    """
    if outcome.worse:
        headline, counts = "NEW is worse under a change of the images", verdict_line(outcome)
    else:
        headline, counts = _VERDICTS[outcome.verdict], _counts_line(outcome)
    parts = [f"### {escape(title)}: {escape(headline)}", f"{escape(_sentence(counts))}."]
    parts.append(table_of(main_table(outcome)))
    significant = [*condition_lines(outcome), *new_failures]
    if significant:
        parts.append(f"**{PROVEN}**\n\n{bullets(significant)}")
    for name in pictures:
        right, wrong = _right_and_wrong(name.removesuffix(".png"))
        parts.append(f"![images that {right} has right and {wrong} wrong]({name})")
    classes = class_table(outcome)
    parts.append(table_of(Table(classes.header, classes.rows[:_CLASSES])))
    if outcome.pairs:
        parts.append(table_of(pair_table(outcome)))
    parts.append(bullets(about_lines(outcome, networks)))
    return "\n\n".join(parts) + "\n"


def diff_junit(outcome: Diff, title: str, networks: Mapping[str, str], new_failures: Sequence[str] = ()) -> bytes:
    """Return a JUnit file with one test, which fails if more broke than was fixed.

    Args:
        outcome: what `diff` returned.
        title: of the test.
        networks: which networks OLD and NEW are.
        new_failures: lines on what NEW fails on and OLD does not, for the output of the test.
    """
    rows = [": ".join(row) for row in main_table(outcome).rows]
    lines = [*rows, *condition_lines(outcome), *new_failures, *about_lines(outcome, networks)]
    tag = "failure" if outcome.verdict == "broke more" else None
    return junit_of_one("fmrgen diff", title, "NEW breaks no more than it fixes", tag, verdict_line(outcome), lines)


def _right_and_wrong(side: str) -> tuple[str, str]:
    """Return the network that is right on the images of a side, and the one that is wrong."""
    if side == BROKE:
        return "OLD", "NEW"
    return "NEW", "OLD"


def write_diff(
    outcome: Diff,
    folder: Path,
    sides: Mapping[str, SplitFolder],
    title: str,
    networks: Mapping[str, str],
    new_failures: Sequence[str] = (),
) -> None:
    """Write `diff.json`, `diff.md`, `diff.html`, and pictures of the clearest images, `broke.png` and `fixed.png`.

    Args:
        outcome: what `diff` returned.
        folder: to write into.
        sides: the folders of the splits `broke` and `fixed`.
        title: of the page.
        networks: which networks OLD and NEW are.
        new_failures: lines on what NEW fails on and OLD does not. Without them, or if they are not those of the
            explanation in the folder, that explanation is removed as an earlier one.
    """
    is_explained = _is_explained(folder, new_failures)
    if not is_explained:
        for name in _EXPLANATION:
            (folder / name).unlink(missing_ok=True)
    tree: dict[str, Any] = {"schema": SCHEMA} | asdict(outcome)
    write_atomically(folder / "diff.json", (json.dumps(tree, indent=1, ensure_ascii=False) + "\n").encode())
    pictures = []
    for side, split in sides.items():
        images = _representative(outcome, side)[:_ON_PAGE]
        if not images:
            continue
        rows = split.rows_of([image.id for image in images], ["id", "image", "original"])
        stored = {row["id"]: row for row in rows}
        page_picture = _sheet(images, stored, side).to_bytes("png")
        summary_picture = _sheet(images[:_IN_SUMMARY], stored, side).to_bytes("png")
        write_atomically(folder / f"{side}.png", summary_picture)
        pictures.append((side, len(outcome.images[side]), png_address(page_picture)))
    picture_names = [f"{side}.png" for side, *_ in pictures]
    markdown = diff_markdown(outcome, title, networks, new_failures, picture_names)
    write_atomically(folder / "diff.md", markdown.encode())
    page = render_page(
        "diff.html",
        title=title,
        verdict=verdict_line(outcome),
        found=main_table(outcome),
        classes=class_table(outcome),
        pairs=pair_table(outcome),
        lines=about_lines(outcome, networks),
        proven=[*condition_lines(outcome), *new_failures],
        proven_title=PROVEN,
        explanation="explain.html" if is_explained else None,
        pictures=pictures,
    )
    write_atomically(folder / "diff.html", page.encode())


def _is_explained(folder: Path, new_failures: Sequence[str]) -> bool:
    """Return whether the explanation in the folder is of this very diff: it has all its lines."""
    page = folder / "explain.html"
    if not new_failures or not page.exists():
        return False
    text = page.read_text(encoding="utf-8")
    return all(str(html_escape(line)) in text for line in new_failures)


def _representative(outcome: Diff, side: str) -> list[Changed]:
    """Return the images of a side, a few of each pair of classes first.

    The most frequent pairs come first, and of each its clearest images.
    """
    by_pair: dict[tuple[str, str], list[Changed]] = {}
    for pair_side, label, answer, _ in outcome.pairs:
        if pair_side == side:
            by_pair[label, answer] = []
    for image in outcome.images[side]:
        by_pair[image.label, image.answer].append(image)
    first, others = [], []
    for images in by_pair.values():
        first += images[:_PER_PAIR]
        others += images[_PER_PAIR:]
    return first + others


def _sheet(images: Sequence[Changed], stored: Mapping[int, Mapping[str, Any]], side: str) -> Plot:
    """Return a picture of each original with its label, and right of it the image.

    Above the image is the probability of the true class by the network that is right, below it that by the one that is
    wrong, with its answer.
    """
    right, wrong = _right_and_wrong(side)
    across = min(_ACROSS, len(images))
    with drawing():
        figure, canvas = blank_canvas(across * _PAIR_WIDTH, -(-len(images) // across) * _ROW_HEIGHT)
        for place, image in enumerate(images):
            row, column = divmod(place, across)
            left, top = column * _PAIR_WIDTH, row * _ROW_HEIGHT + _TITLE_HEIGHT
            draw_image(canvas, (left, top), _bytes(stored[image.id].get("original")), image.label, INK)
            image_left = left + SIDE + _GAP
            title = f"{right} {image.before:.0%}"
            draw_image(canvas, (image_left, top), _bytes(stored[image.id]["image"]), title, INK)
            caption = f"{wrong} {image.after:.0%}: {image.answer}"[:_CAPTION_LETTERS]
            canvas.text(image_left, top + SIDE + _CAPTION_GAP, caption, va="top", fontsize=8, color=WRONG)
    return figure


def _bytes(stored: Mapping[str, Any] | None) -> bytes | str | None:
    return None if stored is None else stored_image(dict(stored))
