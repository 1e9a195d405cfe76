"""An evaluation as Markdown, to be pasted."""

from fmrgen.errors import printable
from fmrgen.evaluation.results import EvaluationResults
from fmrgen.report.tables import (
    EXPLAINED,
    Table,
    all_notes,
    fixed_table,
    judged_table,
    judges_lines,
    judges_table,
    legend,
    neighbours,
    own_lines,
    own_table,
    ranked,
    split_facts,
    split_table,
    transfer_table,
    warning_lines,
    worst_line,
    worst_table,
)
from fmrgen.report.trainings import TITLE as TRAININGS
from fmrgen.report.trainings import trainings_lines, trainings_table


def to_markdown(evaluation: EvaluationResults) -> str:
    """Every split's table with its ranking, and the transfer matrix where there is more than one cell."""
    parts = [f"**Warning:** {escape(line)}" for line in warning_lines(evaluation)]
    if (trainings := trainings_table(evaluation)) is not None:
        parts += [f"## {TRAININGS.capitalize()}", table_of(trainings)]
        parts.append("\n".join(f"* {escape(line)}" for line in trainings_lines(evaluation)))
    if (own := own_table(evaluation)) is not None:
        parts += ["## Each classifier on its own split", table_of(own)]
        parts.append("\n".join(f"* {escape(line)}" for line in own_lines(evaluation)))
    comparisons = {comparison.split: comparison for comparison in evaluation.comparisons}
    for split, row in zip(evaluation.splits, evaluation.matrix, strict=True):
        comparison = comparisons.get(split.name)
        shown = ranked(row, comparison) if comparison else row
        parts += [f"## {escape(split.name)}", escape(split_facts(split, row)), table_of(split_table(shown))]
        if (otherwise := split_table(shown, secondary=True)).header[1:]:
            parts += ["FMR by other ways of counting:", table_of(otherwise)]
        if comparison and (lines := neighbours(comparison)):
            parts.append("\n".join(f"* {escape(line)}" for line in lines))
        if (judges := judges_table(split)) is not None:
            parts += ["Other judges of its images:", table_of(judges)]
            judged = judged_table(split, shown)
            parts += [] if judged is None else [table_of(judged)]
            if told := judges_lines(split, shown):
                parts.append("\n".join(f"* {escape(line)}" for line in told))
    if len(evaluation.splits) > 1:
        parts.append("## Transfer")
        parts += [
            table_of(transfer_table(evaluation, "fmr")),
            table_of(transfer_table(evaluation, "perturbed_accuracy")),
        ]
    if (worst := worst_table(evaluation)) is not None:
        parts += ["## On all splits at once", f"{worst_line(evaluation)}.", table_of(worst)]
    if (fixed := fixed_table(evaluation)) is not None:
        parts += ["## Fixed sets", "Accuracy, mean over sets and severities; mCE is an error.", table_of(fixed)]
    if notes := all_notes(evaluation):
        parts += ["## Notes", "\n".join(f"* {escape(note)}" for note in notes)]
    parts.append("\n".join(f"* {name}: {text}" for name, text in EXPLAINED.items()))
    parts.append(
        "Percent, with 95 % intervals: Wilson's for accuracies and VR, the paired bootstrap's over examples for FMR "
        "and differences, Student's for iterations." + (f" {mark}." if (mark := legend(evaluation)) else "")
    )
    return "\n\n".join(parts) + "\n"


def table_of(table: Table) -> str:
    """A table in Markdown."""
    header = [escape(cell) for cell in table.header]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *([escape(name), *cells] for name, *cells in table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line; names come from anyone."""
    text = printable(" ".join(text.split()))
    for character in "\\`*_<>|[]&#~":
        text = text.replace(character, f"\\{character}")
    return text
