"""The report of an evaluation, in sections.

To add a section, write a function that returns it, and add it to `_SECTIONS`; one that would be empty is left out.
"""

from collections.abc import Callable
from functools import partial
from itertools import chain, pairwise

from fmrgen.metrics.intervals import format_estimate
from fmrgen.metrics.summary import BY_FIELD, COMPARED, MAIN_METRICS, METRICS
from fmrgen.report.gallery import galleries
from fmrgen.report.headline import headline
from fmrgen.report.plots import all_plots
from fmrgen.report.report import Picture, Report, Section, Table, sentence
from fmrgen.report.split_sections import split_sections
from fmrgen.report.tables import (
    CONDITIONED,
    all_notes,
    cells_of,
    classifiers_down,
    legend,
    named,
    neighbour_lines,
    short_split_names,
    table_of,
    warning_lines,
)
from fmrgen.results.evaluation import Evaluation
from fmrgen.results.own_splits import ranks_in_words

_INTERVALS = (
    "Percent, with 95 % intervals: Wilson's for accuracies and VR, joined with their correlation for FMR, since PA and "
    "SA come from the same images; the paired delta method's over examples for differences; Student's for steps. Two "
    "neighbours in a ranking are tied where the interval of their difference contains zero."
)
_MEANINGS = {metric.name: metric.meaning for metric in METRICS}
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


def evaluation_report(evaluation: Evaluation) -> Report:
    """Return the report of an evaluation; its page needs the predictions."""
    sections = chain.from_iterable(make_sections(evaluation) for make_sections in _SECTIONS)
    first = headline(evaluation)
    return Report(
        "evaluation",
        "Robustness report",
        [section for section in sections if not section.is_empty],
        evaluation.to_tree(),
        conclusions=first.conclusions,
        about=_about(evaluation),
        badge=first.badge,
        figures=first.figures,
        next_steps=first.next_steps,
        warnings=warning_lines(evaluation),
        meanings=_MEANINGS,
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
    """Return ways to train by falling mean FMR; none if no two classifiers are trainings of one."""
    if evaluation.own is None or evaluation.own.trainings is None:
        return []
    trainings = evaluation.own.trainings
    rows = []
    for group in trainings.groups:
        cells = {"rank": ranks_in_words(group.best, group.worst), "mean FMR": format_estimate(group.mean)}
        cells["standard deviation"] = "n/a" if group.deviation is None else f"{group.deviation:.2f}"
        rows.append((group.name, cells | {"of each training": ", ".join(f"{fmr:.1f}" for fmr in group.fmr)}))
    gaps = {(pair.first, pair.second): pair.fmr for pair in trainings.differences}
    lines = []
    for group, following in pairwise(trainings.groups):
        gap = gaps[group.name, following.name]
        lines.append(f"{group.name} – {following.name}: mean FMR differs by {gap}")
    single = [group.name for group in trainings.groups if len(group.fmr) == 1]
    if single:
        lines.append(
            f"{', '.join(single)}: one training does not show how far trainings vary, so it gets no rank and no "
            "interval; train it again with other seeds"
        )
    lines.append(
        f"these intervals and ranks are over trainings and the {trainings.rows} images that all have; ranks hold for "
        "all at once with 95 % confidence"
    )
    title = "What was trained, each training on its own split"
    return [Section("trainings", title, tables=[table_of("trainings of", rows)], lines=lines)]


def _own_splits(evaluation: Evaluation) -> list[Section]:
    """Return each classifier on the split generated against it (paper Tables 1, 2, 3 and 5), by falling FMR, with the
    mean of FMR over all budgets up to the split's; none if no two classifiers are compared so."""
    if evaluation.own is None:
        return []
    splits = {split.name: split for split in evaluation.splits}
    has_attacks = any(split.attacks for split in evaluation.splits)
    fields = ("fmr", "standard_accuracy", "perturbed_accuracy", "validation_rate", "mean_iterations")
    metrics = [BY_FIELD[name] for name in (*fields, "reconstruction_accuracy")]
    rows = []
    for place in evaluation.own.ranking:
        result, split = evaluation.result(place.split, place.classifier), splits[place.split]
        name = f"{named(result)} (related to the oracle)" if split.related else named(result)
        cells = {"rank": place.ranks}
        if has_attacks:
            state = "converged" if result.total.has_converged else "not converged"
            cells["attacks"] = f"{len(split.attacks)}, {state}" if split.attacks else "1"
            cells["FMR one attack"] = format_estimate(result.total.first_attack_fmr)
        area = None if split.steps is None else split.steps.area_under_fmr
        rows.append((name, cells | cells_of(result.total, metrics) | {"FMR by budget": format_estimate(area)}))
    lines = neighbour_lines("fmr", evaluation.own.ranking, evaluation.own.differences)
    lines.append(
        f"differences are paired over the {evaluation.own.rows} rows that all have; ranks hold for all classifiers at "
        "once with 95 % confidence"
    )
    if evaluation.own.trainings is None:
        lines.append(
            "intervals and ranks are over images: these are single trained networks, and another training of the same "
            "architecture may lie beyond them"
        )
    table = table_of("classifier", rows, first_columns=["rank", *(metric.name for metric in MAIN_METRICS)])
    return [Section("own splits", "Each classifier on its own split", tables=[table], lines=lines)]


def _transfer(evaluation: Evaluation) -> list[Section]:
    """Return the transfer matrix, in FMR if there is any, and in PA; none of a single split."""
    if len(evaluation.splits) < 2:
        return []
    tables = [_transfer_table(evaluation, "perturbed_accuracy")]
    if any(result.total.fmr for result in evaluation.results):
        tables.insert(0, _transfer_table(evaluation, "fmr"))
    down, across = ("classifiers", "splits") if classifiers_down(evaluation) else ("splits", "classifiers")
    return [Section("transfer", "Transfer", sentence(f"{down} down, {across} across"), tables)]


def _transfer_table(evaluation: Evaluation, measure: str) -> Table:
    """Return the transfer matrix in one of the compared metrics."""
    short, metric = short_split_names(evaluation), COMPARED[measure]
    rows = []
    for split, results in zip(evaluation.splits, evaluation.matrix, strict=True):
        cells = {}
        for result in results:
            text = result.total.text_of(metric)
            cells[result.classifier] = f"{CONDITIONED} {text}" if result.conditioned else text
        rows.append((short[split.name], cells))
    table = table_of(metric.name, rows)
    if classifiers_down(evaluation):
        header, *lines = map(list, zip(table.header, *table.rows, strict=True))
        table = Table(header, lines)
    return table


def _fixed_sets(evaluation: Evaluation) -> list[Section]:
    """Return accuracy and mCE on fixed sets, classifiers down."""
    with_error = {result.name for result in evaluation.fixed if result.mean_corruption_error is not None}
    rows: dict[str, dict[str, str]] = {}
    for result in evaluation.fixed:
        cells = rows.setdefault(result.classifier, {})
        cells[result.name] = format_estimate(result.accuracy)
        if result.name in with_error:
            cells[f"{result.name} mCE"] = format_estimate(result.mean_corruption_error)
    about = "Accuracy on the sets' images as they are, averaged over sets and severities."
    if with_error:
        about += " mCE is an error relative to another classifier's, lower is better."
    return [Section("fixed sets", "Fixed sets", about, [table_of("classifier", list(rows.items()))])]


def _notes(evaluation: Evaluation) -> list[Section]:
    return [Section("notes", "Notes", lines=all_notes(evaluation))]


def _figures(evaluation: Evaluation) -> list[Section]:
    mark = legend(evaluation)
    about = f"{_INTERVALS} {sentence(mark)}" if mark else _INTERVALS
    return [Section("figures", "What the figures are", about, facts=_MEANINGS, folded=True)]


def _plots(evaluation: Evaluation) -> list[Section]:
    plots = all_plots(evaluation)
    shown = {name: caption for name, caption in _CAPTIONS.items() if name in plots}
    pictures = [Picture(caption, plots[name], f"plots/{name}") for name, caption in shown.items()]
    return [Section("plots", "Plots", pictures=pictures, shown="on the page")]


_SECTIONS: tuple[Callable[[Evaluation], list[Section]], ...] = (
    _trainings,
    _own_splits,
    split_sections,
    _transfer,
    _fixed_sets,
    _notes,
    _figures,
    _plots,
)
