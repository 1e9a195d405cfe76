"""The report of a diff: the verdict, what it rests on, then real images, and those that were generated."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from fmrgen.apps.release.diff_gallery import class_names_of, diff_galleries, right_and_wrong
from fmrgen.apps.release.evidence import NEGATIVE, Evidence
from fmrgen.apps.release.flips import Flip, FlippedGroup, Flips
from fmrgen.apps.release.outcome import Diff
from fmrgen.errors import option
from fmrgen.metrics.intervals import format_estimate
from fmrgen.report.gallery import gallery_filter
from fmrgen.report.markdown import sections_to_markdown, to_markdown
from fmrgen.report.report import Badge, Check, KeyFigure, Outcome, Picture, Report, Section, Table, sentence
from fmrgen.results.markdown_text import escape

if TYPE_CHECKING:
    from fmrgen.apps.release.generated import Generated
    from fmrgen.report.plot import Plot

SCHEMA = "fmrgen-diff/5"
_MOST_ON_PAGE = 1000  # rows of a table; diff.json has more
_PAIR = "pair, true → predicted"  # the kind of groups that are pairs of classes
_SIX = 6  # pictures of a comment
_MARKS = {"good": "✅", "bad": "❌", "unclear": "❓", "plain": ""}
_LONGEST, _LONGEST_BLOCK = 60_000, 2_000  # characters: GitHub takes 65,536, and names may have any length
_OUTCOMES: dict[str, Outcome] = {"worse": "failure", "invalid": "error"}
_BADGES = {
    "worse": Badge("NEW is worse", "bad"),
    "no worse": Badge("NEW is no worse", "good"),
    "better": Badge("NEW is better", "good"),
    "undecided": Badge("Undecided", "unclear"),
    "invalid": Badge("Invalid", "bad"),
}
_MEANINGS = {
    "loss, points": "Share of negative flips less that of positive ones, with its 95 % interval.",
    "allowed": "Points that NEW may lose here: the margin, and on single classes and on transformed images what "
    "trainings of one recipe differ by.",
    "p": "How often a loss this large would appear by chance if NEW lost just what is allowed; of a class or a group "
    "times the number of those that can be shown to be worse. Small means worse; all lines together are wrong in 5 % "
    "of cases at most.",
}


def diff_report(
    outcome: Diff,
    title: str,
    networks: Mapping[str, str],
    *,
    images: Mapping[str, bytes | str] | None = None,
    strict: bool = False,
) -> Report:
    """Return the report of a diff.

    `networks` says which networks OLD and NEW are. `images` are flipped real ones by their ids, as far as there are any
    to show. With `strict`, to be undecided is to fail.
    """
    sections = [Section("evidence", "What the verdict rests on", tables=[_evidence_table(outcome)])]
    files = images or {}
    names = class_names_of(outcome)
    has_images = bool(files) or outcome.generated is not None
    sections += _flip_sections(outcome.flips, names, has_images=has_images)
    if outcome.generated is not None:
        for side, of_side in outcome.generated.images.items():
            right, wrong = right_and_wrong(side)
            about = (
                f"Generated so that {wrong} is wrong: {len(of_side)} of {outcome.generated.rows} originals gave an "
                f"image that {right} has right; no part of the verdict."
            )
            if of_side:
                sections.append(Section(side, f"Generated: {wrong} wrong", about, shown="in files"))
    sections += _six_pictures(outcome, files)
    sections.append(Section("about", "How to read this", lines=_about_lines(outcome, networks), shown="in files"))
    result = _OUTCOMES.get(outcome.verdict, "passed")
    if strict and outcome.verdict == "undecided":
        result = "failure"
    check = Check("fmrgen diff", f"NEW loses at most {_points(outcome.margin)}", result)
    badge = _BADGES[outcome.verdict]
    if outcome.verdict == "no worse":
        badge = replace(badge, words=badge.words + _limit(outcome))
    line = verdict_line(outcome)
    tree: dict[str, Any] = {"schema": SCHEMA, "line": line} | asdict(outcome)
    if outcome.generated is not None:
        del tree["generated"]["folders"]
    return Report(
        "diff",
        title,
        sections,
        tree,
        conclusions=[line],
        warnings=list(outcome.notes),
        check=check,
        galleries=partial(diff_galleries, outcome, files, names) if has_images else None,
        meanings=_MEANINGS,
        badge=badge,
        figures=_key_figures(outcome),
        next_steps=_next_steps(outcome, has_images=has_images),
        allow_nan=True,
    )


def _key_figures(outcome: Diff) -> list[KeyFigure]:
    """Return the loss on the real images, with both accuracies."""
    flips = outcome.flips
    limit = max(5.0, *(math.ceil(abs(end)) for end in flips.drop.ends))
    accuracies = {"accuracy of OLD": flips.old_accuracy, "accuracy of NEW": flips.new_accuracy}
    low = 10.0 * (min(accuracy.ends[0] for accuracy in accuracies.values()) // 10.0)  # the bar begins at a ten
    loss = KeyFigure(f"loss on {outcome.evidence[0].images}", flips.drop, "points", -limit, limit)
    return [loss, *(KeyFigure(name, accuracy, low=low) for name, accuracy in accuracies.items())]


def _next_steps(outcome: Diff, *, has_images: bool) -> list[str]:
    """Return what to do after the verdict; the page may have images to look at."""
    flips = outcome.flips
    look = []
    if has_images and flips.negatives:
        look = ["look at the negative flips, below: is each label right, and what do they have in common?"]
    match outcome.verdict:
        case "invalid":
            return ["check the weights, the preprocessing and the order of the classes, and run the same again"]
        case "worse":
            larger = ", which is larger on a class," if any(entry.kind == "class" for entry in outcome.worse) else ""
            return [*look, f"keep OLD, or accept the loss{larger} with {option('margin', 'margin')}"]
        case "undecided":
            steps = []
            if flips.trainings == 1 and flips.images_needed > flips.images:
                steps.append(f"label about {flips.images_needed - flips.images:,} more images")
            if not outcome.margin:
                steps.append(f"say how many points NEW may lose, with {option('margin', 'margin')}")
            return [*look, *steps]
    return ["NEW can take the place of OLD", *look]


def verdict_line(outcome: Diff) -> str:
    """Return the verdict in words, with what it rests on, or what it would take."""
    if outcome.verdict == "invalid":
        return "invalid: one of the two does not work"
    lines = {"worse": _line_of_worse, "undecided": _line_of_undecided}
    return lines.get(outcome.verdict, _line_of_no_worse)(outcome)


def _line_of_worse(outcome: Diff) -> str:
    """Return in what NEW is worse: a class first that holds most of the loss, then real images."""
    entries = outcome.worse
    parts = []
    real, *others = outcome.evidence
    lost = real.drop.value * real.originals
    for entry in takewhile(lambda other: other.kind == "class", others):  # a later one is of another kind's images
        if entry.is_worse and 2 * entry.drop.value * entry.originals >= lost:
            parts.append(f"{_count(entry)} are negative flips")
            entries.remove(entry)
            break
    if entries and (entries[0].kind == "originals" or not parts):
        first = entries.pop(0)
        parts.append(first.line)
        pairs = [(pair.name, pair.negative - pair.positive) for pair in outcome.flips.pairs[:2]]
        most = [f"{name} (+{more})" for name, more in pairs if more > 0]
        if first.kind == "originals" and most:
            parts.append(f"most new errors: {', '.join(most)}")
    if entries:
        parts.append(f"{_listed([_count(entry) for entry in entries])} are negative flips")
    return f"NEW is worse: {'; '.join(parts)}"


def _count(entry: Evidence) -> str:
    return f"{round(entry.negative.value * entry.originals / 100):,} of {entry.originals:,} {entry.images}"


def _line_of_undecided(outcome: Diff) -> str:
    """Return how much NEW may have lost, and how many images would tell."""
    flips = outcome.flips
    line = f"undecided: {outcome.evidence[0].line}{_lost_most(flips)}"
    for entry in outcome.evidence:
        if not entry.is_open:
            continue
        where = "" if entry.kind == "originals" else f" on {entry.images}"
        allowed = f" ({entry.margin:g} allowed)" if entry.margin else ""
        line += f"; NEW may have lost {entry.drop.ends[1]:.1f} points{where}{allowed}"
    if flips.trainings == 1 and flips.images_needed > flips.images:
        line += f"; about {flips.images_needed:,} images would show a loss of {_points(outcome.margin or 1)}"
    return line


def _line_of_no_worse(outcome: Diff) -> str:
    """Return that NEW is no worse, or better, and what it may lose on other images than the first."""
    limit = _limit(outcome)
    line = f"NEW is no worse{limit}: {outcome.evidence[0].line}"
    if outcome.verdict == "better":
        better = next(entry for entry in outcome.evidence if entry.is_better)
        line = f"NEW is better: {better.line}; it is no worse{limit}"
    others = [f"{_points(entry.margin)} on {entry.images}" for entry in outcome.evidence[1:] if entry.kind != "class"]
    if others:
        line += f"; it loses less than {_listed(others)}"
    return line + _lost_most(outcome.flips)


def _lost_most(flips: Flips) -> str:
    """Return the class on which NEW may have lost most, as the next part of a sentence; empty if there is none."""
    group = flips.lost_most
    if group is None:
        return ""
    return (
        f"; class {group.name} may have lost {group.most_lost:.0f} points: {group.negative} of {group.images} are "
        f"negative flips, {group.positive} positive"
    )


def _limit(outcome: Diff) -> str:
    """Return by how much NEW is no worse, as the end of a clause; empty without a margin."""
    return f" by more than {_points(outcome.margin)}" if outcome.margin else ""


def _points(margin: float) -> str:
    return f"{margin:g} point" if margin == 1 else f"{margin:g} points"


def _listed(names: Sequence[str]) -> str:
    """Return the first three names as the end of a sentence."""
    listed = list(names[:3])
    more = len(names) - len(listed)
    if more:
        listed.append(f"{more} more kind{'s' if more > 1 else ''} of images")
    *first, last = listed
    return f"{', '.join(first)} and {last}" if first else last


def _evidence_table(outcome: Diff) -> Table:
    rows = []
    for entry in outcome.evidence:
        mark = "better" if entry.is_better else ""
        if entry.is_worse:
            mark = "worse"
        figures = [format_estimate(share) for share in (entry.negative, entry.positive, entry.drop)]
        figures += [f"{entry.margin:g}", f"{entry.p_worse:.2g}"]
        rows.append([entry.images, f"{entry.originals:,}", *figures, mark])
    header = ["images", "number", "negative, %", "positive, %", "loss, points", "allowed", "p", ""]
    return Table(header, rows, first_columns=("loss, points", "p", ""))


def _flip_sections(flips: Flips, names: Sequence[str], *, has_images: bool) -> list[Section]:
    """Return sections on real images, or originals: figures, kinds of images, and the flipped ones.

    Beside the gallery, whose classes are `names`, lists of images are folded.
    """
    sections = [Section("flips", "Flips on the images as they are", tables=[_flip_table(flips)])]
    kinds = {"class": flips.classes, _PAIR: flips.pairs, **flips.groups}
    for kind, groups in kinds.items():
        if groups:
            table = _group_table(kind, groups[:_MOST_ON_PAGE], names)
            sections.append(Section("groups", f"By {kind}", tables=[table], most_rows=8))
    for name, images in {"Negative flips": flips.negatives, "Positive flips": flips.positives}.items():
        if images:
            table = _image_table(images[:_MOST_ON_PAGE])
            sections.append(Section("images", name, tables=[table], folded=has_images, most_rows=20))
    return sections


def _flip_table(flips: Flips) -> Table:
    old = "OLD" if flips.trainings == 1 else f"OLD, mean of {flips.trainings} trainings"
    rows = [
        [f"accuracy of {old}, %", format_estimate(flips.old_accuracy)],
        ["accuracy of NEW, %", format_estimate(flips.new_accuracy)],
        ["OLD less NEW, points", format_estimate(flips.drop)],
        ["negative flips: OLD right, NEW wrong, %", format_estimate(flips.negative)],
        ["positive flips: OLD wrong, NEW right, %", format_estimate(flips.positive)],
    ]
    if flips.old_flips is not None:
        rows.append(["negative flips between trainings of OLD, %", f"{flips.old_flips:.2f}"])
    return Table(["", f"of {flips.images:,} images"], rows)


def _group_table(kind: str, groups: Sequence[FlippedGroup], names: Sequence[str]) -> Table:
    """Return a table of one group or more; rows of classes and pairs are links to the gallery, whose classes are
    `names`."""
    numbers = {name: number for number, name in enumerate(names)}
    header = [kind, "images", "negative", "positive"]
    if groups[0].another_seed is not None:
        header.append("negative by another seed")
    if groups[0].p_worse is not None:
        header += ["p", ""]
    rows, filters = [], []
    for group in groups:
        label, arrow, prediction = group.name.partition(" → ") if kind == _PAIR else (group.name, "", "")
        address = ""
        if kind in ("class", _PAIR) and label in numbers and (not arrow or prediction in numbers):
            address = gallery_filter(label=numbers[label], prediction=numbers.get(prediction))
        filters.append(address)
        rows.append([group.name, str(group.images), str(group.negative), str(group.positive)])
        if group.another_seed is not None:
            rows[-1].append(str(group.another_seed))
        if group.p_worse is not None:
            rows[-1] += [f"{group.p_worse:.2g}", "worse" if group.is_worse else ""]
    return Table(header, rows, filters=filters)


def _image_table(images: Sequence[Flip]) -> Table:
    rows = []
    for image in images:
        old, new = image.old or "none", image.new or "none"
        if image.old_confidence is not None:
            old += f" ({image.old_confidence:.0%})"
        if image.new_confidence is not None:
            new += f" ({image.new_confidence:.0%})"
        rows.append([image.id, image.label, old, new])
    return Table(["id", "label", "OLD", "NEW"], rows, of_text=True)


def _six_pictures(outcome: Diff, files: Mapping[str, bytes | str]) -> list[Section]:
    """Return a section with six negative flips, for a comment: real images, or if none can be shown generated ones."""
    shown = [flip for flip in outcome.flips.negatives if flip.id in files][:_SIX]
    if shown:
        caption, draw = "Negative flips, with their labels and predictions", partial(_flip_sheet, shown, files)
    elif outcome.generated is not None and outcome.generated.images[NEGATIVE]:
        caption = "Images generated so that NEW is wrong, beside their originals"
        draw = partial(_generated_sheet, outcome.generated)
    else:
        return []
    return [Section("six", caption, pictures=[Picture(caption, draw, "six", of_photos=True)], shown="in a comment")]


def _flip_sheet(flips: Sequence[Flip], files: Mapping[str, bytes | str]) -> "Plot":
    """Return a picture of negative flips with their labels and, below, what NEW predicts."""
    from fmrgen.report.sheet import CaptionedImage, image_sheet

    images = []
    for flip in flips:
        confidence = "" if flip.new_confidence is None else f" {flip.new_confidence:.0%}"
        images.append(CaptionedImage(files[flip.id], flip.label, f"NEW{confidence}\n{flip.new or 'none'}"))
    return image_sheet(images)


def _about_lines(outcome: Diff, networks: Mapping[str, str]) -> list[str]:
    """Return lines on how to read the figures; `networks` says which networks OLD and NEW are."""
    lines = [f"{name}: {network}" for name, network in networks.items()]
    if outcome.flips.trainings > 1:
        lines.append(
            f"the verdict asks whether NEW may be another training of OLD's recipe, by how much "
            f"{outcome.flips.trainings} of them differ (Student's t); with few of them it takes a large loss to tell"
        )
        lines.append("classes, pairs, groups and flipped images are of the first training of OLD")
    else:
        lines += [
            "an image is a negative flip if OLD is right and NEW wrong on it, or on one of its transformations; a "
            "positive one if it is the other way round",
            "p: how often a loss this large would appear by chance if NEW lost just what is allowed, so a small one "
            "means worse; by McNemar's exact test, or Tango's where a loss is allowed; of a class times the number of "
            "classes that can be shown to be worse (Tarone)",
            "the verdict takes in all lines: equal networks are called different in 5 % of cases at most",
        ]
    if any(entry.margin > outcome.margin for entry in outcome.evidence):
        lines.append("trainings of one recipe differ by class, and on transformed images: so more is allowed there")
    if outcome.generated is not None:
        lines.append(
            "transformed and generated images count as far as the recipe's oracle sees their class; generated ones "
            "show how NEW fails and are no part of the verdict"
        )
    return lines


def _generated_sheet(generated: "Generated") -> "Plot":
    """Return a picture of six originals with their labels, and right of each the image that only OLD has right.

    Above the image is OLD's probability of the true class, below it NEW's, with its prediction.
    """
    from fmrgen.report.sheet import ImagePair, pair_sheet

    images = generated.images[NEGATIVE][:_SIX]
    ids = [image.id for image in images]
    stored = {row["id"]: row for row in generated.folders[NEGATIVE].rows_of(ids, ["id", "image", "original"])}
    pairs = []
    for image in images:
        row = stored[image.id]
        original = (row.get("original") or {}).get("bytes")
        above, below = f"OLD {image.before:.0%}", f"NEW {image.after:.0%}: {image.prediction}"
        pairs.append(ImagePair(original, row["image"]["bytes"], image.label, above, below=below))
    return pair_sheet(pairs)


def to_junit(report: Report) -> bytes:
    """Return a JUnit file with one test, the check of a report that has one; its output is the report as Markdown."""
    check = report.check
    assert check is not None
    suite = ElementTree.Element("testsuite", name=check.suite, tests="1")
    for count, outcome in (("errors", "error"), ("failures", "failure"), ("skipped", "skipped")):
        suite.set(count, str(int(check.outcome == outcome)))
    case = ElementTree.SubElement(suite, "testcase", classname=_plain(report.title), name=check.name)
    if check.outcome != "passed":
        message = "; ".join([*report.conclusions, *report.warnings])
        ElementTree.SubElement(case, check.outcome, message=_plain(message))
    ElementTree.SubElement(case, "system-out").text = _plain(to_markdown(report))
    ElementTree.indent(suite)
    text: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _plain(text: str) -> str:
    """Return text without characters that XML does not allow; names come from anyone."""
    return "".join(character if character in "\n\t" or character.isprintable() else "�" for character in text)


def to_comment(report: Report) -> str:
    """Return the report of a diff in Markdown, as short as a comment should be; its picture lies in the same folder."""
    mark = "" if report.badge is None else f"{_MARKS[report.badge.tone]} "
    blocks = [f"### {mark}{escape(report.title)}"]
    blocks += [escape(sentence(line)) for line in report.conclusions]
    blocks += [f"**Doubt:** {escape(line)}" for line in report.warnings]
    for section in report.sections:
        if section.shown == "in a comment":
            blocks += [f"![{escape(picture.caption)}]({picture.name}.png)" for picture in section.pictures]
    figures = sections_to_markdown(report.sections, level=4)
    if sum(map(len, (figures, *blocks))) > _LONGEST:
        figures = "They are too long for a comment: see diff.md."
    blocks.append(f"<details><summary>All figures</summary>\n\n{figures}\n\n</details>")
    return "\n\n".join(block[:_LONGEST_BLOCK] for block in blocks[:-1]) + f"\n\n{blocks[-1]}\n"
