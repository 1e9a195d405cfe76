"""The report of a certificate: one line, what it took, and what it cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fmrgen.apps.release.certificate import (
    LEAST_REDUCTION,
    MADE,
    MOST_LISTED,
    OF_KIND,
    ORIGINALS,
    OTHERS,
    SCHEMA,
    Certificate,
    Requirement,
)
from fmrgen.apps.release.diff_report import flip_sheet, image_table
from fmrgen.apps.release.flips import Flip
from fmrgen.errors import option
from fmrgen.files import of_schema, read_json
from fmrgen.metrics.intervals import as_percent, format_estimate
from fmrgen.report.report import Badge, Check, KeyFigure, Outcome, Picture, Report, Section, Table

_BADGES = {
    "fixed": Badge("Fixed", "good"),
    "fixed but broke": Badge("Fixed, and something else broke", "bad"),
    "broke": Badge("Something else broke", "bad"),
    "not fixed": Badge("Not fixed", "bad"),
    "undecided": Badge("Undecided", "unclear"),
    "invalid": Badge("Invalid", "bad"),
}
_OUTCOMES: dict[str, Outcome] = {"fixed": "passed", "undecided": "skipped", "invalid": "error"}  # else a failure
_STATES = {"holds": "shown", "fails": "shown not to hold", "open": "open", "not asked": "not asked"}
_STATES_WITHOUT_FIGURE = {**_STATES, "holds": "nothing against it", "fails": "broke"}
_MEANINGS = {"figure": "With its 95 % interval, which holds whenever you stop to label more images."}


def certificate_report(
    certificate: Certificate,
    title: str,
    inputs: Mapping[str, str],
    images: Mapping[str, bytes | str] | None = None,
) -> Report:
    """Return the report of a certificate.

    Args:
        certificate: what `certify` returned.
        title: of the page.
        inputs: by name, which networks OLD, NEW and the controls are, and which images they were asked about.
        images: images of the kind by their ids, as far as there are any to show.
    """
    sections = [
        Section("repair", "Is it fixed?", tables=[_table(certificate.repair)]),
        Section("cost", "What did it cost?", tables=[_table(certificate.cost)]),
        Section("errors", "Errors", tables=[_errors_table(certificate)]),
        *_image_sections(certificate, images or {}),
        Section("about", "How to read this", lines=_about_lines(certificate, inputs), shown="in files"),
    ]
    old, new = certificate.errors["OLD"], certificate.errors["NEW"]
    return Report(
        "certificate",
        title,
        sections,
        {"schema": SCHEMA} | asdict(certificate),
        conclusions=[verdict_line(certificate)],
        warnings=list(certificate.notes),
        check=Check(
            "fmrgen diff --claim", f"fixed: {certificate.claim}", _OUTCOMES.get(certificate.verdict, "failure")
        ),
        meanings=_MEANINGS,
        badge=_BADGES[certificate.verdict],
        figures=[KeyFigure("errors of that kind, OLD", old), KeyFigure("errors of that kind, NEW", new)],
        next_steps=_next_steps(certificate),
        allow_nan=True,
    )


def read_report(path: Path) -> Report:
    """Return the report of a `certificate.json`, without its images. Raises UserError if it can't be read."""
    certificate = of_schema(Certificate, SCHEMA, read_json(path), str(path))
    return certificate_report(certificate, f"Fixed? {certificate.claim}", {})


def verdict_line(certificate: Certificate) -> str:
    """Return the verdict in words, with what it rests on, or what it would take."""
    match certificate.verdict:
        case "invalid":
            return "invalid: one of the networks does not work"
        case "fixed":
            return f"fixed: {_errors_line(certificate)}; {_phrase(certificate.cost[0])}{_not_asked(certificate)}"
        case "fixed but broke":
            return f"fixed, and something else broke: {_broken(certificate)}; {_errors_line(certificate)}"
        case "broke":
            errors = _errors_line(certificate)
            return f"something else broke: {_broken(certificate)}; whether it is fixed is open: {errors}"
        case "not fixed":
            return f"not fixed: {_errors_line(certificate)}; {_why_not(certificate)}"
    return _line_of_undecided(certificate)


def _errors_line(certificate: Certificate) -> str:
    """Return the errors of all networks on images of the kind."""
    others = [f"{name} {as_percent(share)}" for name, share in certificate.errors.items() if name != "OLD"]
    return (
        f"of {certificate.of_kind:,} real images ({certificate.claim}) OLD misreads "
        f"{as_percent(certificate.errors['OLD'])}, {', '.join(others)}"
    )


def _figure(requirement: Requirement) -> str:
    """Return a requirement's figure and its direction: `79.10 [62.0, 91.0] % fewer`, `8.77 [6.8, 10.8] points more`."""
    if requirement.measure is None:
        return ""
    reduction = requirement.measure if requirement.unit == "%" else -requirement.measure
    if reduction.value >= 0:
        return f"{reduction} {requirement.unit} fewer"
    return f"{-reduction} {requirement.unit} more"


def _phrase(requirement: Requirement) -> str:
    """Return what was measured, as `8.77 [6.8, 10.8] points more errors elsewhere than OLD`."""
    if requirement.measure is None:
        return requirement.shown or f"{requirement.name}: not asked"
    return f"{_figure(requirement)} {requirement.name}"


def _words(requirement: Requirement) -> str:
    """Return what is required, as `less than 3 points more errors elsewhere than OLD`."""
    if requirement.name == MADE:
        return f"nothing worse on {requirement.name}"
    if requirement.unit == "%":
        return f"at least {requirement.limit:g} % fewer {requirement.name}"
    return f"less than {requirement.limit:g} points more {requirement.name}"


def _broken(certificate: Certificate) -> str:
    return "; ".join(_phrase(requirement) for requirement in certificate.broken)


def _not_asked(certificate: Certificate) -> str:
    """Return what was not asked, as the end of a sentence; empty if all was."""
    names = [requirement.name for requirement in certificate.cost if requirement.state == "not asked"]
    return f"; not asked: {' and '.join(names)}" if names else ""


def _why_not(certificate: Certificate) -> str:
    failed = next(requirement for requirement in certificate.repair if requirement.state == "fails")
    return f"{_phrase(failed)}, and at least {failed.limit:g} % fewer are needed"


def _line_of_undecided(certificate: Certificate) -> str:
    """Return what is open, and how many images would tell."""
    line = f"undecided: {_errors_line(certificate)}"
    if any(requirement.state == "not asked" for requirement in certificate.repair):
        return f"{line}; no control: another training without the cure may have fixed as much"
    for words in (OF_KIND, OTHERS, ORIGINALS):
        more = [requirement.more for requirement in certificate.open if requirement.asked_on == words]
        if more and None not in more:
            line += f"; about {max(count for count in more if count):,} more {words} would tell"
        elif more:
            line += f"; no number of {words} would show it at the present rate"
    return line


def _next_steps(certificate: Certificate) -> list[str]:
    controls = option("controls", "controls")
    match certificate.verdict:
        case "invalid":
            return ["check the weights, the preprocessing and the order of the classes, and run the same again"]
        case "fixed":
            return ["NEW can take the place of OLD, as far as this failure goes; check the release with fmrgen diff"]
        case "fixed but broke" | "broke":
            return ["look at what broke, and train with a milder cure, or with more images of what broke"]
        case "not fixed":
            return ["try the next thing that fmrgen explain suggests, and ask again with the same controls"]
    if any(requirement.state == "not asked" for requirement in certificate.repair):
        return [f"train OLD's recipe once more with another seed, as long as NEW, and name it with {controls}"]
    if any(requirement.more is None for requirement in certificate.open):
        return [
            "more images would not show it, unless NEW does better on them: try the next thing that explain suggests"
        ]
    asked_on = {requirement.asked_on for requirement in certificate.open}
    if asked_on == {ORIGINALS}:
        return ["ask again with a recipe whose source has more originals: they are changed, and none has to be made"]
    if OF_KIND not in asked_on or certificate.cut is None:
        return ["label more images as they come, and ask again about all of them, with the same claim"]
    share = certificate.images / certificate.of_kind
    claim = option("claim", "claim")
    return [
        f"label more images as they come, of which one in {share:.0f} was of that kind, and ask again about all of "
        f"them with {claim} certificate.json, this page's file: it keeps what counts as of that kind"
    ]


def _table(requirements: Sequence[Requirement]) -> Table:
    rows = []
    for requirement in requirements:
        states = _STATES_WITHOUT_FIGURE if requirement.name == MADE else _STATES
        more = "" if requirement.more is None else f"{requirement.more:,}"
        count = f"{requirement.images:,}" if requirement.images else ""
        figure = requirement.shown or _figure(requirement)
        rows.append([_words(requirement), states[requirement.state], figure, count, more])
    return Table(["", "is", "figure", "images", "more would tell"], rows, first_columns=("is", "figure"))


def _errors_table(certificate: Certificate) -> Table:
    rows = []
    for name, of_kind in certificate.errors.items():
        elsewhere, flips = certificate.elsewhere[name], certificate.flips.get(name)
        flipped = "" if flips is None else format_estimate(flips)
        rows.append([name, format_estimate(of_kind), format_estimate(elsewhere), flipped])
    kind = f"of {certificate.of_kind:,} of that kind, %"
    return Table(["", kind, "elsewhere, %", "negative flips from OLD, %"], rows)


def _image_sections(certificate: Certificate, files: Mapping[str, bytes | str]) -> list[Section]:
    """Return sections with images of the kind: those that are mended, and those that NEW has wrong."""
    sections = []
    for title, name, flips in (
        (f"Images of that kind that NEW mended, {MOST_LISTED} at most", "mended", certificate.mended),
        (f"Images of that kind that NEW still has wrong, {MOST_LISTED} at most", "left", certificate.left),
    ):
        if not flips:
            continue
        pictures = _pictures(title, name, flips, files)
        if pictures:
            sections.append(Section("images", title, pictures=pictures, shown="in files"))
        listed = f"{title}: the list" if pictures else title
        sections.append(Section("images", listed, tables=[image_table(flips)], shown="in files", folded=bool(pictures)))
    return sections


def _pictures(title: str, name: str, flips: Sequence[Flip], files: Mapping[str, bytes | str]) -> list[Picture]:
    shown = [flip for flip in flips if flip.id in files]
    if not shown:
        return []
    caption = f"{title}: above the label, below the answer that is wrong."
    return [Picture(caption, partial(flip_sheet, shown, files), name, of_photos=True)]


def _about_lines(certificate: Certificate, inputs: Mapping[str, Any]) -> list[str]:
    return [
        *[f"{name}: {place}" for name, place in inputs.items()],
        f"fixed: NEW makes at least {LEAST_REDUCTION:g} % fewer errors of that kind than OLD and than each control, "
        "and nothing else that was asked is worse than allowed; all of it shown, with a 95 % interval each",
        "a control is an equal training without the cure: trainings that differ in their seed alone differ too",
        "evidence is by betting, which holds whenever you stop: label more images and ask again, with the same claim",
        f"on all other images NEW may lose less than {certificate.margin:g} points, on a single class 5 more",
        "negative flips: images that OLD has right and the other network wrong",
    ]
