"""What became of a study: its claims beside the paper's table, as a table, Markdown and JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from fmrgen.evaluation.claims import ClaimFound
from fmrgen.evaluation.results import EvaluationResults
from fmrgen.files import write_atomically
from fmrgen.metrics import METRICS
from fmrgen.report.markdown import table_of, to_markdown
from fmrgen.report.tables import Table

_NAMES = {metric.field: metric.name for metric in METRICS}


def claims_table(claims: Sequence[ClaimFound]) -> Table:
    """A row for each claim: both figures, how far they are apart, and the verdict."""
    rows = [
        [claim.says, _NAMES[claim.metric], str(claim.values[0]), str(claim.values[1]), str(claim.apart), claim.verdict]
        for claim in claims
    ]
    return Table(["claim", "figure", "one", "the other", "apart by", ""], rows)


def write_study(
    title: str, paper: str, claims: Sequence[ClaimFound], evaluations: Mapping[str, EvaluationResults], folder: Path
) -> list[Path]:
    """Writes `study.md`, the claims, our tables and the paper's, and `study.json` into `folder`; returns the paths."""
    parts = [f"# {title}"]
    if claims:
        parts += ["## What of it holds here", table_of(claims_table(claims))]
    parts += ["## The paper", paper.strip()]
    for name, evaluation in evaluations.items():
        parts += [f"# {name}", to_markdown(evaluation)]
    told = {"title": title, "parts": list(evaluations)}
    found = [{**asdict(claim), "verdict": claim.verdict} for claim in claims]
    text = json.dumps({**told, "claims": found}, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / "study.md", ("\n\n".join(parts).rstrip() + "\n").encode())
    write_atomically(folder / "study.json", text.encode())
    return [folder / "study.md", folder / "study.json"]
