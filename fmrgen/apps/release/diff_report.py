"""The report of a diff."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from fmrgen.apps.release.diff import BROKE, FIXED, Changed, Diff
from fmrgen.apps.release.gate_report import nothing_worse, others_of
from fmrgen.metrics.intervals import format_estimate
from fmrgen.report.plot import Plot
from fmrgen.report.report import Check, Picture, Report, Section, Table
from fmrgen.report.sheet import ImagePair, pair_sheet
from fmrgen.storage.shards import SplitFolder

SCHEMA = "fmrgen-diff/1"
_MOST_IMAGES = 24  # of each side
_MOST_PAIRS = 8  # of classes, in the table of each side
_PER_PAIR = 4  # images of each pair of classes, before any pair has more
_MOST_CLASSES = 5  # off the page
_VERDICTS = {
    "broke more": "NEW broke more than it fixed",
    "fixed more": "NEW fixed more than it broke",
    "no difference": "what broke and what was fixed do not differ significantly",
}


def diff_report(
    outcome: Diff,
    title: str,
    networks: Mapping[str, str],
    sides: Mapping[str, SplitFolder],
    new_failures: Sequence[str] = (),
    explanation: str | None = None,
) -> Report:
    """Return the report of a diff.

    Args:
        outcome: what `diff` returned.
        title: of the page.
        networks: which networks OLD and NEW are.
        sides: the folders of the splits `broke` and `fixed`.
        new_failures: lines on what NEW fails on and OLD does not.
        explanation: the page of that, beside the report's.
    """
    sections = [Section("diff", "What broke and what was fixed", tables=[_main_table(outcome)])]
    conditions = [f"NEW is worse on {condition.line}" for condition in outcome.worse]
    if conditions or new_failures:
        sections.append(
            Section(
                "new failures",
                "What NEW fails on where OLD does not, tried on originals",
                lines=[*conditions, *new_failures],
                links={} if explanation is None else {"All that was tried, with images": explanation},
            )
        )
    sections += _side_sections(outcome, sides)
    sections.append(Section("classes", "By class", tables=[_class_table(outcome)], most_rows=_MOST_CLASSES))
    if outcome.pairs:
        sections.append(Section("pairs", "By pair of classes", tables=[_pair_table(outcome)]))
    about = _about_lines(outcome, networks)
    sections.append(Section("about", "How to read this", lines=about, shown="in files"))
    failed = outcome.verdict == "broke more"
    check = Check("fmrgen diff", "NEW breaks no more than it fixes", "failure" if failed else "passed")
    tree: dict[str, Any] = {"schema": SCHEMA} | asdict(outcome)
    return Report("diff", title, sections, tree, conclusions=[verdict_line(outcome)], check=check, allow_nan=True)


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


def _main_table(outcome: Diff) -> Table:
    """Return a table of how many images broke and were fixed, beside the control images."""
    moved = ["originals moved until the two disagree", format_estimate(outcome.broke), format_estimate(outcome.fixed)]
    rows = [moved]
    for name, control in outcome.controls.items():
        counts = f"{control.broke_rows:,}"
        if control.fixed_rows != control.broke_rows:
            counts += f", {control.fixed_rows:,}"
        rows.append([f"control: {name} ({counts})", format_estimate(control.broke), format_estimate(control.fixed)])
    return Table(["% of originals", "broke", "fixed"], rows)


def _class_table(outcome: Diff) -> Table:
    """Return a table by class, by the share that broke minus the share that was fixed."""
    rows = []
    for row in outcome.classes:
        rows.append([row.name, str(row.rows), format_estimate(row.broke), format_estimate(row.fixed)])
    return Table(["class, by broke minus fixed", "originals", "broke, %", "fixed, %"], rows)


def _pair_table(outcome: Diff) -> Table:
    """Return a table of the most frequent confusions on each side."""
    rows = []
    for side, wrong_network in ((BROKE, "NEW"), (FIXED, "OLD")):
        pairs = [pair for pair in outcome.pairs if pair[0] == side]
        for _, label, answer, count in pairs[:_MOST_PAIRS]:
            rows.append([f"{label} → {answer}", side, wrong_network, str(count)])
    return Table(["most frequent, true → answer", "outcome", "who is wrong", "images"], rows)


def _about_lines(outcome: Diff, networks: Mapping[str, str]) -> list[str]:
    """Return lines on how to read the figures; `networks` says which networks OLD and NEW are."""
    return [
        *(f"{name}: {network}" for name, network in networks.items()),
        f"on the originals OLD is right on {format_estimate(outcome.old_accuracy)} % and NEW on "
        f"{format_estimate(outcome.new_accuracy)} %",
        _difference_line(outcome),
        "an image counts as broken if OLD is right on it and NEW wrong, and as fixed if it is the other way round, as "
        "far as the recipe's oracle sees its class; the oracle makes mistakes too: look at the images",
        "these two networks are compared: run it between two trainings of OLD's recipe to know what another training "
        "changes",
    ]


def _difference_line(outcome: Diff) -> str:
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


def _side_sections(outcome: Diff, sides: Mapping[str, SplitFolder]) -> list[Section]:
    """Return a section with a picture for each side that has images."""
    sections = []
    for side, split in sides.items():
        images = _representative(outcome, side)[:_MOST_IMAGES]
        if not images:
            continue
        right, wrong = _right_and_wrong(side)
        caption = (
            f"{right} is right, {wrong} wrong on {len(outcome.images[side])} images; here the most frequent pairs of "
            "classes first, and of each those on which the two differ most surely. Left the original with its label, "
            "beside it the image, with the probability that each network gives the true class."
        )
        picture = Picture(caption, partial(_sheet, images, split, side), side, of_photos=True)
        title = "What broke" if side == BROKE else "What was fixed"
        sections.append(Section(side, title, pictures=[picture], shown="in files"))
    return sections


def _right_and_wrong(side: str) -> tuple[str, str]:
    """Return the network that is right on the images of a side, and the one that is wrong."""
    if side == BROKE:
        return "OLD", "NEW"
    return "NEW", "OLD"


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


def _sheet(images: Sequence[Changed], split: SplitFolder, side: str) -> Plot:
    """Return a picture of each original with its label, and right of it the image.

    Above the image is the probability of the true class by the network that is right, below it that by the one that is
    wrong, with its answer.
    """
    right, wrong = _right_and_wrong(side)
    stored = {}
    for row in split.rows_of([image.id for image in images], ["id", "image", "original"]):
        stored[row["id"]] = row
    pairs = []
    for image in images:
        row = stored[image.id]
        original = row.get("original")
        pairs.append(
            ImagePair(
                None if original is None else original["bytes"],
                row["image"]["bytes"],
                image.label,
                f"{right} {image.before:.0%}",
                below=f"{wrong} {image.after:.0%}: {image.answer}",
            )
        )
    return pair_sheet(pairs)
