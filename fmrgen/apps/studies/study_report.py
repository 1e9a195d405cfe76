"""The results of a study: its claims beside the paper's table, as a table, Markdown and JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from fmrgen.apps.studies.claims import ClaimFound
from fmrgen.files import write_atomically
from fmrgen.metrics.intervals import format_estimate
from fmrgen.metrics.summary import METRICS
from fmrgen.report.markdown import escape, table_of, to_markdown
from fmrgen.report.tables import Table, class_table
from fmrgen.results.evaluation import Evaluation

_NAMES = {metric.field: metric.name for metric in METRICS}


def claims_table(claims: Sequence[ClaimFound]) -> Table:
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


def own_class_tables(evaluation: Evaluation) -> dict[str, Table]:
    """Return each classifier on its own split by class (paper Tables 13 and 14), by its name."""
    splits = {split.name: split for split in evaluation.splits}
    tables = {}
    for result in evaluation.results:
        if result.conditioned:
            tables[result.classifier] = class_table(result, splits[result.split])
    return tables


def write_study(
    title: str,
    how: str,
    paper: str,
    claims: Sequence[ClaimFound],
    tables: Mapping[str, Table],
    evaluations: Mapping[str, Evaluation],
    folder: Path,
) -> list[Path]:
    """Write `study.md`, the claims, our tables and the paper's, and `study.json` into `folder`.

    Args:
        title: of the study.
        how: it was run: its scale, and what was changed.
        paper: what the paper says, in Markdown.
        claims: with their verdicts.
        tables: of parts that are no evaluations, by their titles.
        evaluations: by their parts.
        folder: of the study.

    Returns:
        The paths.
    """
    parts = [f"# {escape(title)}", f"Run at {escape(how)}."]
    if claims:
        parts += ["## Which claims hold here", table_of(claims_table(claims))]
    if paper:
        parts += ["## The paper", paper.strip()]
    tables_content = {}
    for name, table in tables.items():
        tables_content[name] = asdict(table)
        parts += [f"## {escape(name)}", table_of(table)]
    for name, evaluation in evaluations.items():
        parts += [f"# {name}", to_markdown(evaluation)]
    claims_content = []
    for claim in claims:
        claims_content.append({**asdict(claim), "verdict": claim.verdict})
    content = {
        "title": title,
        "how": how,
        "parts": list(evaluations),
        "claims": claims_content,
        "tables": tables_content,
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / "study.md", ("\n\n".join(parts).rstrip() + "\n").encode())
    write_atomically(folder / "study.json", text.encode())
    return [folder / "study.md", folder / "study.json"]
