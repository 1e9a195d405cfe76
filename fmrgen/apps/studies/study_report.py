"""The report of a study: its claims, the paper's table and ours."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace

from fmrgen.apps.pilot.report import mask_table
from fmrgen.apps.studies.attack_oracle_report import attacked_report
from fmrgen.apps.studies.claims import ClaimFound
from fmrgen.apps.studies.study import StudyFound
from fmrgen.metrics.intervals import format_estimate
from fmrgen.metrics.summary import METRICS
from fmrgen.report.orders import agreement_report
from fmrgen.report.outline import evaluation_report
from fmrgen.report.report import Badge, Report, Section, Shown, Table
from fmrgen.report.tables import class_table
from fmrgen.results.evaluation import Evaluation

_NAMES = {metric.field: metric.name for metric in METRICS}


def study_report(results: StudyFound, *, print_all: bool = False) -> Report:
    """Return the report of a study.

    Args:
        results: of its parts.
        print_all: whether a terminal shows the comparisons too, and the figures by class; files always have them.
    """
    study = results.study
    shown: Shown = "everywhere" if print_all else "in files"
    sections = []
    if results.claims:
        table = _claims_table(results.claims)
        sections.append(Section("claims", f"Which claims hold at {results.how}", tables=[table]))
    if study.paper:
        sections.append(_paper_section(study.paper))
    part_sections = _part_sections(results)
    if study.by_class:
        for name, evaluation in results.evaluations.items():
            part_sections += _class_sections(name, evaluation, shown)
    sections += part_sections
    for name, evaluation in results.evaluations.items():
        parts = [section for section in evaluation_report(evaluation).sections if section.kind != "plots"]
        links = {"Report": f"{name}/comparison/report.html"}
        sections.append(Section("comparison", name, parts=parts, links=links, shown=shown, folded=True))
    claims = []
    for claim in results.claims:
        claims.append({**asdict(claim), "verdict": claim.verdict})
    tables = {}
    for section in part_sections:
        for table in section.tables:
            tables[section.title] = {"header": table.header, "rows": table.rows, "of_text": table.of_text}
    content = {
        "title": study.title,
        "how": results.how,
        "parts": list(results.evaluations),
        "claims": claims,
        "tables": tables,
    }
    about = f"Run at {results.how}."
    conclusions = _conclusions(results.claims)
    badge = None
    if results.claims:
        holding = sum(claim.verdict == "holds" for claim in results.claims)
        badge = Badge(f"{holding} of {len(results.claims)} claims hold")
    return Report(
        "study", study.title, sections, content, conclusions=conclusions, about=about, badge=badge, allow_nan=True
    )


def _conclusions(claims: Sequence[ClaimFound]) -> list[str]:
    """Return a line that counts the verdicts on claims; none if there are no claims."""
    if not claims:
        return []
    counts = Counter(claim.verdict for claim in claims)
    verdicts = [f"{verdict}: {count}" for verdict, count in counts.items()]
    return [f"of {len(claims)} claims {', '.join(verdicts)}"]


def _paper_section(text: str) -> Section:
    """Return what the paper says: lines of text, and a table whose lines begin with a bar."""
    lines, cells = [], []
    for line in text.strip().splitlines():
        if line.startswith("|"):
            cells.append([cell.strip() for cell in line.strip("|").split("|")])
        elif line:
            lines.append(line)
    tables = []
    if cells:
        header, _, *rows = cells  # the second line rules off the header
        tables.append(Table(header, rows))
    return Section("paper", "The paper", " ".join(lines), tables, shown="in files")


def _part_sections(results: StudyFound) -> list[Section]:
    """Return the sections of parts that are not comparisons."""
    sections = []
    for name, judges in results.attacked.items():
        sections += attacked_report(judges, name).sections
    for name, mask in results.masks.items():
        sections.append(Section("mask", f"{name}, a mask of the latent", tables=[mask_table(mask)]))
    if results.agreement is not None:
        report = agreement_report(results.agreement)
        (section,) = report.sections
        sections.append(replace(section, lines=[*section.lines, *report.conclusions]))
    return sections


def _class_sections(name: str, evaluation: Evaluation, shown: Shown) -> list[Section]:
    """Return each classifier on its own split by class (paper Tables 13 and 14)."""
    splits = {split.name: split for split in evaluation.splits}
    sections = []
    for result in evaluation.results:
        if result.conditioned:
            title = f"{name}, {result.classifier} on its own split by class"
            table = class_table(result, splits[result.split])
            sections.append(Section("classes", title, tables=[table], shown=shown))
    return sections


def _claims_table(claims: Sequence[ClaimFound]) -> Table:
    """Return a row for each claim: both figures, their difference, the smallest one that can be shown, the verdict."""
    rows = []
    for claim in claims:
        text, metric = claim.says, _NAMES[claim.metric]
        if claim.within is not None:
            text += f" (within {claim.within:g} points)"
        if claim.trainings > 1:
            metric += f", mean of {claim.trainings} trainings"
        least = "n/a" if claim.least is None else f"{claim.least:.1f}"
        figures = map(format_estimate, (*claim.values, claim.apart))
        rows.append([text, metric, *figures, least, claim.verdict])
    return Table(["claim", "figure", "one", "the other", "apart by", "least difference", ""], rows)
