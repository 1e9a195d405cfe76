"""The report of an evaluation, in sections.

To add a section, write a function that returns it, or nothing if it would be empty, and add it to `_SECTIONS`.
"""

from collections.abc import Callable
from functools import partial

from fmrgen.report.gallery import galleries
from fmrgen.report.headline import headline
from fmrgen.report.plots import all_plots
from fmrgen.report.report import Picture, Report, Section, sentence
from fmrgen.report.tables import (
    EXPLAINED,
    all_notes,
    attacks_table,
    class_table,
    fixed_table,
    group_table,
    judged_table,
    judges_lines,
    judges_table,
    legend,
    neighbours,
    own_lines,
    own_table,
    pairs_table,
    ranked,
    split_facts,
    split_table,
    trainings_lines,
    trainings_table,
    transfer_reading,
    transfer_table,
    warning_lines,
)
from fmrgen.results.evaluation import EvaluatedSplit, Evaluation, Result

INTERVALS = (
    "Percent, with 95 % intervals: Wilson's for accuracies and VR, joined with their correlation for FMR, since PA and "
    "SA come from the same images; the paired delta method's over examples for differences; Student's for steps. Two "
    "neighbours in a ranking are tied where the interval of their difference contains zero."
)


_CAPTIONS = {
    "fmr": "FMR of every classifier on every split, with 95 % intervals",
    "transfer": "Transfer: every classifier on every split",
    "budgets": "FMR of each split's own classifier at smaller budgets and under a stricter oracle",
    "steps": "Guided steps in the stored images of valid rows",
}
# Of a network trained without attacks, by the recipes that are shipped.
_YARDSTICK = (
    "Compare FMR within one recipe: under mnist-lenet a plain LeNet has 80 %, under gtsrb-cnn a plain VGG 14 %."
)
_MOST_UNFOLDED = 6  # splits of an evaluation, classifiers of a split
_MOST_PAIRS = 24  # of a class and a prediction
_MOST_BY_CLASS = 24  # classifiers of a split


MADE_FOR_NONE = (
    "the split was generated against none of these classifiers, so its images are to fool another one: a difference "
    "holds for these images, and does not show what a classifier broke elsewhere (fmrgen diff does)"
)


def evaluation_report(evaluation: Evaluation) -> Report:
    """Return the report of an evaluation; its page needs the predictions."""
    sections: list[Section] = []
    for make_sections in _SECTIONS:
        sections += make_sections(evaluation)
    first = headline(evaluation)
    return Report(
        "evaluation",
        "Robustness report",
        sections,
        evaluation.to_tree(),
        conclusions=first.conclusions,
        about=_about(evaluation),
        badge=first.badge,
        figures=first.figures,
        next_steps=first.next_steps,
        warnings=warning_lines(evaluation),
        meanings=EXPLAINED,
        galleries=partial(galleries, evaluation),
        page_name="report",
    )


def _about(evaluation: Evaluation) -> str:
    classifiers, splits = len(evaluation.classifiers), len(evaluation.splits)
    text = f"{classifiers} classifier{'s' if classifiers > 1 else ''} on {splits} perturbed split"
    text += f"{'s' if splits != 1 else ''}. Percent, with 95 % intervals"
    mark = legend(evaluation)
    return f"{text}; {mark}. {_YARDSTICK}" if mark else f"{text}."


def _trainings(evaluation: Evaluation) -> list[Section]:
    table = trainings_table(evaluation)
    if table is None:
        return []
    lines = trainings_lines(evaluation)
    return [Section("trainings", "What was trained, each training on its own split", tables=[table], lines=lines)]


def _own_splits(evaluation: Evaluation) -> list[Section]:
    table = own_table(evaluation)
    if table is None:
        return []
    lines = own_lines(evaluation)
    return [Section("own splits", "Each classifier on its own split", tables=[table], lines=lines)]


def _fixed_sets(evaluation: Evaluation) -> list[Section]:
    table = fixed_table(evaluation)
    if table is None:
        return []
    about = "Accuracy on the sets' images as they are, averaged over sets and severities."
    if any("mCE" in cell for cell in table.header):
        about += " mCE is an error relative to another classifier's, lower is better."
    return [Section("fixed sets", "Fixed sets", about, [table])]


def _splits(evaluation: Evaluation) -> list[Section]:
    comparisons = {comparison.split: comparison for comparison in evaluation.comparisons}
    common_facts = _common_facts(evaluation)
    is_folded = len(evaluation.splits) > _MOST_UNFOLDED
    sections = []
    for split, row in zip(evaluation.splits, evaluation.matrix, strict=True):
        comparison = comparisons.get(split.name)
        results, lines = row, []
        if comparison is not None:
            results, lines = ranked(row, comparison), neighbours(comparison)
        lines += [f"FMR of {result.classifier} is {result.bound}" for result in results if result.bound]
        if lines and not any(result.conditioned for result in row):
            lines.append(MADE_FOR_NONE)
        parts = [
            *_judges(split, results),
            *_attacks(split),
            *_groups(results),
            *_made(split, common_facts),
            *_mistakes(evaluation, split, results),
            *_classes(split, results),
        ]
        about = sentence(split_facts(split, row))
        tables = [split_table(results)]
        sections.append(Section("split", split.name, about, tables, lines, parts=parts, folded=is_folded))
    title = "All splits were generated with" if len(sections) > 1 else "The split was generated with"
    if is_folded:
        sections = [Section("splits", f"{len(sections)} splits", parts=sections)]
    if common_facts:
        sections.append(Section("made with", title, facts=common_facts, shown="in files"))
    return sections


def _judges(split: EvaluatedSplit, results: list[Result]) -> list[Section]:
    judges = judges_table(split)
    if judges is None:
        return []
    lines = judges_lines(split, results)
    sections = [Section("judges", "Other judges of its images", tables=[judges], lines=lines)]
    judged = judged_table(split, results)
    if judged is not None:
        sections.append(Section("judged", "FMR under each judge", tables=[judged]))
    return sections


def _attacks(split: EvaluatedSplit) -> list[Section]:
    if not split.attacks:
        return []
    about = "Of each image the worst that the oracle accepted counts, over all attacks and their steps."
    return [Section("attacks", "FMR after each attack", about, [attacks_table(split)])]


def _groups(results: list[Result]) -> list[Section]:
    sections = []
    for column in results[0].groups:
        sections.append(Section("groups", f"By {column}", tables=[group_table(results, column)]))
    return sections


def _mistakes(evaluation: Evaluation, split: EvaluatedSplit, results: list[Result]) -> list[Section]:
    """Return the most frequent mistakes of the split's own classifier, or of the only one."""
    if evaluation.predictions is None:
        return []
    sections = []
    for result in results:
        if result.conditioned or len(results) == 1:
            table = pairs_table(evaluation, result, split, _MOST_PAIRS)
            if table is not None:
                title = f"What {result.classifier} takes the images for"
                sections.append(Section("pairs", title, tables=[table], shown="on the page", folded=True))
    return sections


def _classes(split: EvaluatedSplit, results: list[Result]) -> list[Section]:
    sections = []
    for result in results[:_MOST_BY_CLASS]:
        title, table = f"{result.classifier} by class", class_table(result, split)
        sections.append(Section("classes", title, tables=[table], shown="on the page", folded=True))
    if len(sections) <= _MOST_UNFOLDED:
        return sections
    title, about = f"Each of {len(sections)} classifiers by class", ""
    if len(sections) < len(results):
        title = f"The first {len(sections)} classifiers by class"
        about = f"The others of the {len(results)} are in evaluation.json."
    return [Section("classes", title, about, parts=sections, shown="on the page", folded=True)]


def _common_facts(evaluation: Evaluation) -> dict[str, str]:
    """Return the facts of `made_with` that are the same for all splits."""
    if not evaluation.splits:
        return {}
    first, *others = [split.made_with or {} for split in evaluation.splits]
    common = dict(first)
    for facts in others:
        common = {name: text for name, text in common.items() if facts.get(name) == text}
    return common


def _made(split: EvaluatedSplit, common_facts: dict[str, str]) -> list[Section]:
    """Return a section of the facts of `made_with` that other splits do not share."""
    facts = {name: text for name, text in (split.made_with or {}).items() if name not in common_facts}
    if not facts:
        return []
    return [Section("made with", "Made with", facts=facts, shown="in files")]


def _transfer(evaluation: Evaluation) -> list[Section]:
    if len(evaluation.splits) < 2:
        return []
    tables = []
    if any(result.total.fmr for result in evaluation.results):
        tables.append(transfer_table(evaluation, "fmr"))
    tables.append(transfer_table(evaluation, "perturbed_accuracy"))
    return [Section("transfer", "Transfer", sentence(transfer_reading(evaluation)), tables)]


def _notes(evaluation: Evaluation) -> list[Section]:
    lines = all_notes(evaluation)
    if not lines:
        return []
    return [Section("notes", "Notes", lines=lines)]


def _figures(evaluation: Evaluation) -> list[Section]:
    about, mark = INTERVALS, legend(evaluation)
    if mark:
        about += f" {sentence(mark)}"
    return [Section("figures", "What the figures are", about, facts=EXPLAINED, folded=True)]


def _plots(evaluation: Evaluation) -> list[Section]:
    pictures = []
    plots = all_plots(evaluation)
    for name, caption in _CAPTIONS.items():
        if name in plots:
            pictures.append(Picture(caption, plots[name], f"plots/{name}"))
    if not pictures:
        return []
    return [Section("plots", "Plots", pictures=pictures, shown="on the page")]


_SECTIONS: tuple[Callable[[Evaluation], list[Section]], ...] = (
    _trainings,
    _own_splits,
    _splits,
    _transfer,
    _fixed_sets,
    _notes,
    _figures,
    _plots,
)
