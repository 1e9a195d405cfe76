"""The report of flips between two classifiers on real images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from fmrgen.apps.release.flips import Flip, FlippedGroup, Flips
from fmrgen.metrics.intervals import Estimate, format_estimate
from fmrgen.report.report import Check, Report, Section, Table

SCHEMA = "fmrgen-flips/1"
_MOST_GROUPS = 8  # of each kind, off the page
_MOST_IMAGES = 20  # of each side, off the page
_VERDICTS = {
    "broke more": "NEW broke more than it fixed",
    "fixed more": "NEW fixed more than it broke",
    "no worse": "NEW is no worse",
    "undecided": "undecided",
}


def flips_report(outcome: Flips, title: str, networks: Mapping[str, str]) -> Report:
    """Return the report of flips.

    Args:
        outcome: what `flips` returned.
        title: of the page.
        networks: what OLD and NEW are.
    """
    sections = [Section("flips", "Flips on the images as they are", tables=[_main_table(outcome)])]
    worse = _worse_lines(outcome)
    if worse:
        about = "More broke than was fixed, with at most 5 % false discoveries on average."
        sections.append(Section("worse", "Where NEW is significantly worse", about, lines=worse))
    kinds = {"class": outcome.classes, "pair, true → answer": outcome.pairs, **outcome.groups}
    for kind, groups in kinds.items():
        if groups:
            sections.append(
                Section("groups", f"By {kind}", tables=[_group_table(kind, groups)], most_rows=_MOST_GROUPS)
            )
    for name, images in (("Negative flips", outcome.broken), ("Positive flips", outcome.mended)):
        if images:
            sections.append(Section("images", name, tables=[_image_table(images)], most_rows=_MOST_IMAGES))
    if outcome.doubted:
        about = "Both give the same answer, which is not the label. They do not count as flips. Is the label right?"
        table = _image_table(outcome.doubted)
        sections.append(Section("labels", "Labels to check", about, [table], shown="in files", folded=True))
    sections.append(Section("about", "How to read this", lines=_about_lines(outcome, networks), shown="in files"))
    failed = outcome.verdict == "broke more"
    check = Check("fmrgen diff", "NEW breaks no more than it fixes", "failure" if failed else "passed")
    data = {"schema": SCHEMA} | asdict(outcome)
    return Report("flips", title, sections, data, conclusions=[verdict_line(outcome)], check=check, allow_nan=True)


def verdict_line(outcome: Flips) -> str:
    """Return the verdict in words, with what it rests on."""
    counts = (
        f"of {outcome.images:,} images {format_estimate(outcome.broke)} % broke and "
        f"{format_estimate(outcome.fixed)} % were fixed"
    )
    line = f"{_VERDICTS[outcome.verdict]}: {counts}"
    if outcome.verdict == "no worse":
        line = f"NEW is no worse than by {outcome.margin:g} points: {counts}"
    if outcome.verdict == "undecided":
        line += f"; NEW may have lost {max(outcome.drop.ends[1], 0.0):.1f} points"
        if outcome.trainings == 1 and outcome.images_needed > outcome.images:
            line += f"; about {outcome.images_needed:,} images would show a loss of {outcome.margin:g}"
    if outcome.old_flips is not None:
        line += f"; between two trainings of OLD {outcome.old_flips:.1f} % break"
    if outcome.verdict == "broke more" and outcome.pairs:
        most = [f"{pair.name} ({pair.broke})" for pair in outcome.pairs[:2] if pair.broke]
        line += f"; most often {' and '.join(most)}"
    return line


def _main_table(outcome: Flips) -> Table:
    old = "OLD"
    if outcome.trainings > 1:
        old = f"OLD, mean of {outcome.trainings} trainings"
    rows = [
        [f"accuracy of {old}, %", format_estimate(outcome.old_accuracy)],
        ["accuracy of NEW, %", format_estimate(outcome.new_accuracy)],
        ["OLD less NEW, points", format_estimate(outcome.drop)],
        ["negative flips: OLD right, NEW wrong, %", format_estimate(outcome.broke)],
        ["positive flips: OLD wrong, NEW right, %", format_estimate(outcome.fixed)],
    ]
    if outcome.old_flips is not None:
        rows.append(["negative flips between trainings of OLD, %", f"{outcome.old_flips:.2f}"])
    calibration: dict[str, Estimate | None] = {"OLD": outcome.old_calibration, "NEW": outcome.new_calibration}
    for name, error in calibration.items():
        if error is not None:
            rows.append([f"calibration error of {name}, points", format_estimate(error)])
    return Table(["", f"of {outcome.images:,} images"], rows)


def _worse_lines(outcome: Flips) -> list[str]:
    kinds = {"class": outcome.classes, "pair": outcome.pairs, **outcome.groups}
    lines = []
    for kind, groups in kinds.items():
        for group in groups:
            if group.is_worse:
                lines.append(f"{kind} {group.name}: {group.broke} of {group.images} broke, {group.fixed} were fixed")
    return lines


def _group_table(kind: str, groups: Sequence[FlippedGroup]) -> Table:
    rows = []
    for group in groups:
        mark = "worse" if group.is_worse else ""
        rows.append([group.name, str(group.images), str(group.broke), str(group.fixed), f"{group.p_value:.2g}", mark])
    return Table([kind, "images", "broke", "fixed", "p", ""], rows)


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


def _about_lines(outcome: Flips, networks: Mapping[str, str]) -> list[str]:
    lines = [f"{name}: {network}" for name, network in networks.items()]
    if outcome.trainings == 1:
        lines += [
            f"the verdict is that of McNemar's exact test, two-sided, p = {outcome.p_value:.2g}: of equal networks it "
            "calls 5 % different at most",
            "two trainings of one recipe flip too: name several of OLD to know what exceeds that",
        ]
    else:
        lines.append(
            f"the verdict asks whether NEW may be another training of OLD's recipe, by how much "
            f"{outcome.trainings} of them differ (Welch and Satterthwaite), p = {outcome.p_value:.2g}"
        )
    return lines
