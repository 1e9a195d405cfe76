"""What classifiers are trainings of, compared: the table and its lines."""

from itertools import pairwise

from fmrgen.evaluation.results import EvaluationResults
from fmrgen.metrics.intervals import format_estimate
from fmrgen.report.tables import Table

TITLE = "what was trained, each training on its own split"


def trainings_table(evaluation: EvaluationResults) -> Table | None:
    """Ways to train by falling mean FMR; None where no two classifiers are trainings of one."""
    if evaluation.own is None or evaluation.own.trainings is None:
        return None
    rows = [
        [
            group.name,
            str(group.best) if group.best == group.worst else f"{group.best} – {group.worst}",
            format_estimate(group.mean),
            ", ".join(f"{fmr:.1f}" for fmr in group.fmr),
        ]
        for group in evaluation.own.trainings.groups
    ]
    return Table(["trainings of", "rank", "mean FMR", "of each training"], rows)


def trainings_lines(evaluation: EvaluationResults) -> list[str]:
    """How far apart neighbours are, how much of it another training gives, and what the intervals are over."""
    if evaluation.own is None or (found := evaluation.own.trainings) is None:
        return []
    apart = {(pair.first, pair.second): pair.fmr for pair in found.differences}
    names = [group.name for group in found.groups]
    lines = [f"{one} – {other}: mean FMR differs by {apart[one, other]}" for one, other in pairwise(names)]
    single = [group.name for group in found.groups if len(group.fmr) == 1]
    lines.append(
        f"trainings of one differ by {found.spread} points (standard deviation, without what images add; pooled)"
        + (f"; {', '.join(single)}: one training, which is taken to vary as the others do" if single else "")
    )
    return [
        *lines,
        f"these intervals and ranks are over trainings and the {found.rows} images that all have; ranks hold for all "
        "at once with 95 % confidence",
    ]
