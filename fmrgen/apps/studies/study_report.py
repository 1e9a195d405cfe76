"""What became of a study: its claims beside the paper's table, as a table, Markdown and JSON."""

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
    """A row for each claim: both figures, how far they are apart, how far they would have to be for these images to
    tell, and the verdict."""
    rows = [
        [
            claim.says + ("" if claim.within is None else f" (within {claim.within:g} points)"),
            _NAMES[claim.metric] + (f", mean of {claim.trainings} trainings" if claim.trainings > 1 else ""),
            *map(format_estimate, (*claim.values, claim.apart)),
            "n/a" if claim.least is None else f"{claim.least:.1f}",
            claim.verdict,
        ]
        for claim in claims
    ]
    return Table(["claim", "figure", "one", "the other", "apart by", "least difference", ""], rows)


def own_class_tables(evaluation: Evaluation) -> dict[str, Table]:
    """Each classifier on its own split by class (paper Tables 13 and 14), by its name."""
    splits = {split.name: split for split in evaluation.splits}
    return {
        result.classifier: class_table(result, splits[result.split])
        for result in evaluation.results
        if result.conditioned
    }


def write_study(
    title: str,
    how: str,
    paper: str,
    claims: Sequence[ClaimFound],
    tables: Mapping[str, Table],
    evaluations: Mapping[str, Evaluation],
    folder: Path,
) -> list[Path]:
    """Writes `study.md`, the claims, our tables and the paper's, and `study.json` into `folder`.

    Args:
        title: of the study.
        how: it was run: its scale, and what was changed.
        paper: what the paper says, in Markdown.
        claims: and what became of them.
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
    for name, table in tables.items():
        parts += [f"## {escape(name)}", table_of(table)]
    for name, evaluation in evaluations.items():
        parts += [f"# {name}", to_markdown(evaluation)]
    found = [{**asdict(claim), "verdict": claim.verdict} for claim in claims]
    content = {
        "title": title,
        "how": how,
        "parts": list(evaluations),
        "claims": found,
        "tables": {name: asdict(table) for name, table in tables.items()},
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / "study.md", ("\n\n".join(parts).rstrip() + "\n").encode())
    write_atomically(folder / "study.json", text.encode())
    return [folder / "study.md", folder / "study.json"]
