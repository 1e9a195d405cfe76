"""The sections of a report, once: a terminal, Markdown and a page show them in this order and in these words.

A new section is a function here that gives it where there is something to show, and its place in `_SECTIONS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from fmrgen.report.tables import (
    EXPLAINED,
    Table,
    agreement_table,
    all_notes,
    class_table,
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
    trainings_lines,
    trainings_table,
    transfer_reading,
    transfer_table,
    worst_line,
    worst_table,
)
from fmrgen.results.evaluation import Comparison, EvaluatedSplit, Evaluation, Result

INTERVALS = (
    "Percent, with 95 % intervals: Wilson's for accuracies and VR; the paired bootstrap's over examples for FMR and "
    "differences, since PA and SA come from the same images; Student's for steps. Two neighbours in a ranking are tied "
    "where the interval of their difference contains zero."
)


Shown = Literal["everywhere", "in files", "on the page"]
_MOST_UNFOLDED = 6  # splits of an evaluation, classifiers of a split
_MOST_BY_CLASS = 24  # classifiers of a split


@dataclass(frozen=True)
class Section:
    """A part of a report: a title, and below it what is not empty of the rest, in this order.

    Attributes:
        kind: which it is, the same in every report.
        title: above it.
        about: a sentence that says how to read it.
        tables: one below the other.
        lines: on what they show.
        facts: names and what is said of each.
        parts: sections below it.
        shown: everywhere, in files (Markdown and the page), or on the page alone.
        folded: on a page it opens when its title is clicked.
    """

    kind: str
    title: str
    about: str = ""
    tables: list[Table] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    parts: "list[Section]" = field(default_factory=list)
    shown: Shown = "everywhere"
    folded: bool = False


MADE_FOR_NONE = (
    "the split was made for none of these classifiers, so its images were made to fool another one: a difference holds "
    "for these images, and does not show what a classifier broke elsewhere (fmrgen diff --explain does)"
)


def outline(evaluation: Evaluation) -> list[Section]:
    """The sections of an evaluation's report. Its warnings stand above them: `tables.warning_lines`."""
    return [section for sections in _SECTIONS for section in sections(evaluation)]


def transfer_outline(evaluation: Evaluation) -> list[Section]:
    """Those of a transfer matrix alone; of one split its table is the matrix."""
    wanted = {"transfer" if len(evaluation.splits) > 1 else "split", "worst case", "notes", "figures"}
    return [section for section in outline(evaluation) if section.kind in wanted]


def _trainings(evaluation: Evaluation) -> list[Section]:
    if (table := trainings_table(evaluation)) is None:
        return []
    lines = trainings_lines(evaluation)
    return [Section("trainings", "What was trained, each training on its own split", tables=[table], lines=lines)]


def _own_splits(evaluation: Evaluation) -> list[Section]:
    if (table := own_table(evaluation)) is None:
        return []
    lines = own_lines(evaluation)
    return [Section("own splits", "Each classifier on its own split", tables=[table], lines=lines)]


def _worst_case(evaluation: Evaluation) -> list[Section]:
    if (table := worst_table(evaluation)) is None:
        return []
    return [Section("worst case", "On all splits at once", _sentence(worst_line(evaluation)), [table])]


def _fixed_sets(evaluation: Evaluation) -> list[Section]:
    if (table := fixed_table(evaluation)) is None:
        return []
    about = "Accuracy on the sets' images as they are, averaged over sets and severities."
    if any("mCE" in cell for cell in table.header):
        about += " mCE is an error relative to another classifier's, lower is better."
    return [Section("fixed sets", "Fixed sets", about, [table])]


def _splits(evaluation: Evaluation) -> list[Section]:
    comparisons = {comparison.split: comparison for comparison in evaluation.comparisons}
    common, many = _made_alike(evaluation), len(evaluation.splits) > _MOST_UNFOLDED
    found = []
    for split, row in zip(evaluation.splits, evaluation.matrix, strict=True):
        comparison = comparisons.get(split.name)
        shown = ranked(row, comparison) if comparison else row
        parts = [
            *_judges(split, shown),
            *_otherwise(shown),
            *_confidence(shown),
            *_agreement(comparison),
            *_made(split, common),
            *_classes(split, shown),
        ]
        lines = neighbours(comparison) if comparison else []
        if lines and not any(result.conditioned for result in row):
            lines.append(MADE_FOR_NONE)
        about = _sentence(split_facts(split, row))
        found.append(Section("split", split.name, about, [split_table(shown)], lines, parts=parts, folded=many))
    title = "All splits were made with" if len(found) > 1 else "The split was made with"
    made = [Section("made with", title, facts=common, shown="in files")] if common else []
    if many:
        return [Section("splits", f"{len(found)} splits", parts=found), *made]
    return [*found, *made]


def _judges(split: EvaluatedSplit, results: list[Result]) -> list[Section]:
    if (judges := judges_table(split)) is None:
        return []
    lines = judges_lines(split, results)
    found = [Section("judges", "Other judges of its images", tables=[judges], lines=lines)]
    if (judged := judged_table(split, results)) is not None:
        found.append(Section("judged", "FMR under each judge", tables=[judged]))
    return found


def _otherwise(results: list[Result]) -> list[Section]:
    table = split_table(results, "otherwise")
    if not table.header[1:]:
        return []
    return [Section("otherwise", "FMR by other ways of counting", tables=[table], folded=True)]


def _confidence(results: list[Result]) -> list[Section]:
    table = split_table(results, "confidence")
    if not table.header[1:]:
        return []
    about = "Top-5, and what the classifiers think of their answers."
    return [Section("confidence", "How sure they are", about, [table], shown="in files", folded=True)]


def _agreement(comparison: Comparison | None) -> list[Section]:
    if comparison is None or (table := agreement_table(comparison)) is None:
        return []
    about = (
        "Error consistency (Geirhos et al. 2020) on the valid images: 1 where two fail on the same ones, 0 where as "
        "often as by chance."
    )
    return [Section("agreement", "Whether they fail together", about, [table], shown="in files", folded=True)]


def _classes(split: EvaluatedSplit, results: list[Result]) -> list[Section]:
    shown = results[:_MOST_BY_CLASS]
    each = [
        Section(
            "classes",
            f"{result.classifier} by class",
            tables=[class_table(result, split)],
            shown="on the page",
            folded=True,
        )
        for result in shown
    ]
    if len(each) <= _MOST_UNFOLDED:
        return each
    is_all = len(shown) == len(results)
    title = f"Each of {len(each)} classifiers by class" if is_all else f"The first {len(each)} classifiers by class"
    about = "" if is_all else f"The others of the {len(results)} are in evaluation.json."
    return [Section("classes", title, about, parts=each, shown="on the page", folded=True)]


def _made_alike(evaluation: Evaluation) -> dict[str, str]:
    """What all splits were made with."""
    made = [split.made_with or {} for split in evaluation.splits]
    return {what: how for what, how in (made[0] if made else {}).items() if all(one.get(what) == how for one in made)}


def _made(split: EvaluatedSplit, common: dict[str, str]) -> list[Section]:
    own = {what: how for what, how in (split.made_with or {}).items() if what not in common}
    return [Section("made with", "Made with", facts=own, shown="in files")] if own else []


def _transfer(evaluation: Evaluation) -> list[Section]:
    if len(evaluation.splits) < 2:
        return []
    measures = ["fmr"] if any(result.total.fmr for result in evaluation.results) else []
    tables = [transfer_table(evaluation, measure) for measure in (*measures, "perturbed_accuracy")]
    return [Section("transfer", "Transfer", _sentence(transfer_reading(evaluation)), tables)]


def _notes(evaluation: Evaluation) -> list[Section]:
    lines = all_notes(evaluation)
    return [Section("notes", "Notes", lines=lines)] if lines else []


def _figures(evaluation: Evaluation) -> list[Section]:
    mark = legend(evaluation)
    about = f"{INTERVALS} {_sentence(mark)}" if mark else INTERVALS
    return [Section("figures", "What the figures are", about, facts=EXPLAINED, folded=True)]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


_SECTIONS: tuple[Callable[[Evaluation], list[Section]], ...] = (
    *(_trainings, _own_splits, _worst_case, _splits, _transfer, _fixed_sets, _notes, _figures),
)
