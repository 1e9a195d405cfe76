"""The figures of an evaluation as tables and lines of text, for a terminal, Markdown or a page."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from fmrgen.metrics.gradients import masked_because, may_be_rough
from fmrgen.metrics.intervals import Estimate, format_estimate
from fmrgen.metrics.summary import COMPARED, MAIN_METRICS, METRICS, OF_CLASSES, Metric, Summary
from fmrgen.report.gallery import gallery_filter
from fmrgen.report.report import Table
from fmrgen.results.evaluation import Comparison, EvaluatedSplit, Evaluation, Result
from fmrgen.results.judges import JudgeFigures, chance_line
from fmrgen.results.own_splits import ranks_in_words

CONDITIONED = "◆"  # marks a split's own classifier
RELATED = "‡"  # marks a judge that is no second opinion
_RELATED_TO_ORACLE = " (related to the oracle)"
_OWN_SPLIT_METRICS = (
    "standard_accuracy",
    "perturbed_accuracy",
    "validation_rate",
    "fmr",
    "mean_iterations",
    "reconstruction_accuracy",
)
_NAMED = 4  # splits or classifiers that a line names; of more it says how many
_MOST_ACROSS = 8  # classifiers, each with an interval
_MOST_LINES = 6  # on neighbours in a ranking
_FEWEST_RANKED = 3  # classifiers, of which Kendall's tau says something
_Neighbours = tuple[str, str, Estimate, str]  # two names, their difference, a verdict on it
EXPLAINED = {metric.name: metric.meaning for metric in METRICS}


def format_interval(estimate: Estimate) -> str:
    """Return `11.1 – 15.3`, or nothing if the interval has no ends."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:z.1f} – {estimate.high:z.1f}"


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return for each name the part after its colon or last slash, if that tells all of them apart, else the name."""
    short = {}
    for name in names:
        if ":" in name:
            short[name] = name.rpartition(":")[2]
        else:
            short[name] = name.rstrip("/").rpartition("/")[2]
    if len(set(short.values())) < len(short):
        return dict(zip(names, names, strict=True))
    return short


def short_split_names(evaluation: Evaluation) -> dict[str, str]:
    """Return the short names of an evaluation's splits, by their names."""
    return short_names([split.name for split in evaluation.splits])


def split_table(results: Sequence[Result]) -> Table:
    """Return the classifiers on one split, with the figures that any of them has."""
    metrics = []
    for metric in METRICS:
        if metric.of == "classifier" and any(result.total[metric] for result in results):
            metrics.append(metric)
    rows = [[_marked(result), *_cells(result.total, metrics)] for result in results]
    return Table(["classifier", *_names(metrics)], rows, first_columns=_names(MAIN_METRICS))


def split_facts(split: EvaluatedSplit, results: Sequence[Result]) -> str:
    """Return a line of the figures of the split that do not depend on the classifier."""
    total = results[0].total
    facts = [f"{total.rows} rows, {total.valid_rows} valid"]
    for metric in METRICS:
        if metric.of == "split" and metric.field not in ("stuck", "by_budget") and total[metric]:
            facts.append(f"{metric.name} {format_estimate(total[metric])}")
    if split.stop_reasons:
        counts = [f"{reason} {rows}" for reason, rows in split.stop_reasons.items()]
        facts.append(f"rows by how they ended: {', '.join(counts)}")
    return "; ".join(facts)


def class_table(result: Result, split: EvaluatedSplit) -> Table:
    """Return a classifier's figures by class (paper Tables 13 and 14), the totals last."""
    metrics = [metric for metric in OF_CLASSES if result.total[metric] and metric.of == "classifier"]
    rows, filters = [], []
    for label, (name, summary) in enumerate(zip(split.class_names, result.classes, strict=True)):
        rows.append([name, str(summary.rows), *_cells(summary, metrics)])
        filters.append(gallery_filter(split=split.name, network=result.classifier, label=label))
    rows.append(["all", str(result.total.rows), *_cells(result.total, metrics)])
    filters.append(gallery_filter(split=split.name, network=result.classifier))
    return Table(["class", "rows", *_names(metrics)], rows, filters=filters)


def mistaken_pairs(columns: Mapping[str, np.ndarray], most: int) -> list[tuple[int, int, int]]:
    """Return the most frequent mistakes on valid rows: true label, prediction (-1 is none), and number of rows.

    `columns` are `label`, `prediction` and `valid` [N]; at most `most` pairs are returned.
    """
    is_wrong = columns["valid"].astype(bool) & (columns["prediction"] != columns["label"])
    pairs = Counter(zip(columns["label"][is_wrong].tolist(), columns["prediction"][is_wrong].tolist(), strict=True))
    return [(label, prediction, count) for (label, prediction), count in pairs.most_common(most)]


def pairs_table(evaluation: Evaluation, result: Result, split: EvaluatedSplit, most: int) -> Table | None:
    """Return the most frequent mistakes on valid rows, true class → prediction; None if there are none."""
    rows, filters = [], []
    for label, prediction, count in mistaken_pairs(evaluation.predictions_of(result.split, result.classifier), most):
        name = split.class_names[prediction] if prediction >= 0 else "no prediction"
        rows.append([f"{split.class_names[label]} → {name}", str(count)])
        filters.append(gallery_filter(split=split.name, network=result.classifier, label=label, prediction=prediction))
    return Table(["true → predicted", "rows"], rows, filters=filters) if rows else None


def group_table(results: Sequence[Result], column: str) -> Table:
    """Return the classifiers' first figures of each group of rows by a column, group by group."""
    metrics = []
    for metric in METRICS:
        is_first = metric.compared or metric.field == "validation_rate"
        if is_first and any(result.total[metric] for result in results):
            metrics.append(metric)
    rows = []
    for name in results[0].groups[column]:
        for result in results:
            summary = result.groups[column][name]
            rows.append([name, _marked(result), str(summary.rows), *_cells(summary, metrics)])
    return Table([column, "classifier", "rows", *_names(metrics)], rows)


def attacks_table(split: EvaluatedSplit) -> Table:
    """Return a split's own classifier after each attack, the first row after the first attack alone."""
    rows = []
    for number, after in enumerate(split.attacks, start=1):
        rows.append([str(number), after.attack, str(after.fooled), format_estimate(after.fmr)])
    return Table(["attacks", "the last of them", "rows fooled first by it", "FMR after it"], rows)


def transfer_table(evaluation: Evaluation, measure: str) -> Table:
    """Return the transfer matrix in one of the compared metrics, lying as `transfer_reading` says."""
    short, metric = short_split_names(evaluation), COMPARED[measure]
    lines = [[metric.name, *(classifier.name for classifier in evaluation.classifiers)]]
    for results in evaluation.matrix:
        line = [short[results[0].split]]
        for result in results:
            text = result.total.text_of(metric)
            line.append(f"{CONDITIONED} {text}" if result.conditioned else text)
        lines.append(line)
    if classifiers_down(evaluation):
        lines = list(map(list, zip(*lines, strict=True)))
    return Table(lines[0], lines[1:])


def classifiers_down(evaluation: Evaluation) -> bool:
    """Return whether the transfer matrix has its classifiers down, since they are too many to stand side by side."""
    return len(evaluation.classifiers) > max(_MOST_ACROSS, len(evaluation.splits))


def transfer_reading(evaluation: Evaluation) -> str:
    """Return how the transfer matrix is read."""
    return "classifiers down, splits across" if classifiers_down(evaluation) else "splits down, classifiers across"


def ranked(results: Sequence[Result], comparison: Comparison) -> list[Result]:
    """Return the results of a split: its own classifier's, the others in the order of the ranking, then the unranked
    ones."""
    by_name = {result.classifier: result for result in results}
    ordered = [result for result in results if result.conditioned]
    ordered += [by_name[place.classifier] for place in comparison.ranking]
    return ordered + [result for result in results if result not in ordered]


def warning_lines(evaluation: Evaluation) -> list[str]:
    """Return warnings: which classifiers are hardly better than chance, in a line for all splits on which they are the
    same; which have a masked or a rough gradient; which are related to the oracle of their own split; and which are
    fooled more by another's images than by their own.

    They stand above the tables: the figures of their own splits say nothing of robustness.
    """
    short = short_split_names(evaluation)
    lines = [*_lines_on_chance(evaluation, short), *_lines_on_gradients(evaluation, short)]
    for split, results in zip(evaluation.splits, evaluation.matrix, strict=True):
        own = [result.classifier for result in results if result.conditioned]
        if split.related is not None and own:
            lines.append(f"{_listed(own)} on {short[split.name]}: {split.related}")
    masked = {result.classifier for result in evaluation.results if result.masked and not result.rough}
    for name, split_name in evaluation.fooled_more.items():
        if name not in masked:
            lines.append(
                f"{name} is fooled more by the images of {short[split_name]} than by those of its own split, so its "
                "own gradient does not show the way: it has no rank"
            )
    return lines


def _lines_on_chance(evaluation: Evaluation, short: dict[str, str]) -> list[str]:
    """Return a line for each group of classifiers that are hardly better than chance on the same splits."""
    splits: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for split, results in zip(evaluation.splits, evaluation.matrix, strict=True):
        names = tuple(result.classifier for result in results if result.total.at_chance)
        if names:
            splits[names].append(short[split.name])
    return [
        f"hardly better than chance on the originals of {_listed(where)}, so not ranked: {_listed(names)}; are the "
        "weights loaded, and the classes in the order of the labels?"
        for names, where in splits.items()
    ]


def _lines_on_gradients(evaluation: Evaluation, short: dict[str, str]) -> list[str]:
    """Return a line for each classifier with a masked or a rough gradient, those that are not ranked first."""
    lines = []
    masked: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)  # names of splits, by the line's words
    rough: defaultdict[str, list[str]] = defaultdict(list)
    for result in evaluation.results:
        if result.rough:
            rough[result.classifier].append(short[result.split])
        elif result.masked:
            verb = "may be" if may_be_rough(result.total) else "is"
            masked[result.classifier, verb, masked_because(result.total)].append(short[result.split])
    for (name, verb, reason), splits in masked.items():
        lines.append(f"the gradient of {name} {verb} masked on {_listed(splits)}, so it is not ranked there: {reason}")
    for name, splits in rough.items():
        lines.append(
            f"the gradient of {name} is rough on {_listed(splits)}: the first step seldom raises its loss, but guided "
            "steps fool it far more than random ones; it is ranked, and a search without gradients may find more"
        )
    return lines


def judges_table(split: EvaluatedSplit) -> Table | None:
    """Return the figures of the judges of a split other than its oracle; None if there are none."""
    if not split.judges:
        return None
    header = ["judge", "looked at", "sees the label", "in originals"]
    rows = []
    for judge in split.judges:
        row = [
            _judge_name(judge),
            f"{judge.looked_at:,}",
            format_estimate(judge.preserved),
            format_estimate(judge.originals_right),
        ]
        rows.append(row)
    return Table(header, rows)


def judged_table(split: EvaluatedSplit, results: Sequence[Result]) -> Table | None:
    """Return FMR under each judge: of each classifier over the images in which the judge sees the label."""
    if not any(result.judged for result in results):
        return None
    rows = []
    for result in results:
        row = [_marked(result), format_estimate(result.total.fmr)]
        for judge in split.judges:
            row.append(format_estimate(result.judged.get(judge.judge)))
        rows.append(row)
    return Table(["FMR", "the split's oracle", *map(_judge_name, split.judges)], rows)


def _judge_name(judge: JudgeFigures) -> str:
    """Return the name, with a mark if the judge is no second opinion, which `judges_lines` explains."""
    return f"{judge.judge} {RELATED}" if judge.shares_weights_with else judge.judge


def judges_lines(split: EvaluatedSplit, results: Sequence[Result]) -> list[str]:
    """Return lines on which judges are no second opinion, or guess, and whether they rank the classifiers as the oracle
    does."""
    lines = []
    for judge in split.judges:
        if judge.shares_weights_with:
            lines.append(f"{RELATED} {related_line(judge.judge, judge.shares_weights_with)}")
    for judge in split.judges:
        warning = chance_line(judge.judge, judge.originals_right, len(split.class_names))
        if warning is not None:
            lines.append(warning)
    for judge in split.judges:
        fmr: list[tuple[float, float]] = []
        for result in results:
            judged = result.judged.get(judge.judge)
            if result.total.fmr and not result.total.at_chance and judged:
                fmr.append((result.total.fmr.value, judged.value))
        if len(fmr) >= _FEWEST_RANKED:
            from scipy.stats import kendalltau  # a second's import, which most reports do without

            tau = kendalltau(*zip(*fmr, strict=True)).statistic
            lines.append(f"{judge.judge} and the oracle: Kendall's tau {tau:.2f} over {len(fmr)} classifiers")
    return lines


def related_line(judge: str, shares_weights_with: Sequence[str]) -> str:
    """Return a line that says that a judge's figures repeat those of the oracle, or of a classifier."""
    return f"{judge} shares its weights with {' and '.join(shares_weights_with)}: its figures are no second opinion"


def own_table(evaluation: Evaluation) -> Table | None:
    """Return each classifier on the split generated against it (paper Tables 1, 2, 3 and 5), by falling FMR, with the
    mean of FMR over all budgets up to the split's; None if no two classifiers are compared so."""
    if evaluation.own is None:
        return None
    metrics = [metric for metric in METRICS if metric.field in _OWN_SPLIT_METRICS]
    splits = {split.name: split for split in evaluation.splits}
    has_attacks = any(split.attacks for split in evaluation.splits)
    rows = []
    for place in evaluation.own.ranking:
        result, split = evaluation.result(place.split, place.classifier), splits[place.split]
        area = format_estimate(None if split.steps is None else split.steps.area_under_fmr)
        name = _named(result)
        if split.related:
            name += _RELATED_TO_ORACLE
        attacks = []
        if has_attacks:
            attacks = [_attacks_cell(result.total, split), format_estimate(result.total.first_attack_fmr)]
        rows.append([name, place.ranks, *attacks, *_cells(result.total, metrics), area])
    of_attacks = ["attacks", "FMR one attack"] if has_attacks else []
    header = ["classifier", "rank", *of_attacks, *_names(metrics), "FMR by budget"]
    return Table(header, rows, first_columns=("rank", *_names(MAIN_METRICS)))


def _attacks_cell(summary: Summary, split: EvaluatedSplit) -> str:
    """Return the number of attacks, and whether FMR has converged with them."""
    if not split.attacks:
        return "1"
    return f"{len(split.attacks)}, {'converged' if summary.has_converged else 'not converged'}"


def own_lines(evaluation: Evaluation) -> list[str]:
    """Return lines on how far apart neighbours in the table of own splits are, and on what the ranks mean."""
    if evaluation.own is None:
        return []
    differences = {(pair.first, pair.second): pair.fmr for pair in evaluation.own.differences}
    neighbouring: list[_Neighbours] = []
    for place, following in pairwise(evaluation.own.ranking):
        gap = differences.get((place.classifier, following.classifier))
        if gap is not None:
            neighbouring.append((place.classifier, following.classifier, gap, ""))
    lines = _lines_of_neighbours("FMR", neighbouring)
    lines.append(
        f"differences are paired over the {evaluation.own.rows} rows that all have; ranks hold for all classifiers at "
        "once with 95 % confidence"
    )
    if evaluation.own.trainings is None:
        lines.append(
            "intervals and ranks are over images: these are single trained networks, and another training of the same "
            "architecture may lie beyond them"
        )
    return lines


def trainings_table(evaluation: Evaluation) -> Table | None:
    """Return ways to train by falling mean FMR; None if no two classifiers are trainings of one."""
    if evaluation.own is None or evaluation.own.trainings is None:
        return None
    rows = []
    for group in evaluation.own.trainings.groups:
        ranks = ranks_in_words(group.best, group.worst)
        each = ", ".join(f"{fmr:.1f}" for fmr in group.fmr)
        deviation = "n/a" if group.deviation is None else f"{group.deviation:.2f}"
        rows.append([group.name, ranks, format_estimate(group.mean), deviation, each])
    return Table(["trainings of", "rank", "mean FMR", "standard deviation", "of each training"], rows)


def trainings_lines(evaluation: Evaluation) -> list[str]:
    """Return lines on how far apart neighbours are, on ways to train with one training, and on what the intervals are
    over."""
    if evaluation.own is None or evaluation.own.trainings is None:
        return []
    trainings = evaluation.own.trainings
    differences = {(pair.first, pair.second): pair.fmr for pair in trainings.differences}
    lines = []
    for group, following in pairwise(trainings.groups):
        gap = differences[group.name, following.name]
        lines.append(f"{group.name} – {following.name}: mean FMR differs by {gap}")
    single = [group.name for group in trainings.groups if len(group.fmr) == 1]
    if single:
        lines.append(
            f"{', '.join(single)}: one training does not show how far trainings vary, so it gets no rank and no "
            "interval; train it again with other seeds"
        )
    return [
        *lines,
        f"these intervals and ranks are over trainings and the {trainings.rows} images that all have; ranks hold for "
        "all at once with 95 % confidence",
    ]


def fixed_table(evaluation: Evaluation) -> Table | None:
    """Return accuracy and mCE on fixed sets, classifiers down; None if there are none."""
    if not evaluation.fixed:
        return None
    with_error = {result.name for result in evaluation.fixed if result.mean_corruption_error is not None}
    header = ["classifier"]
    for name in dict.fromkeys(result.name for result in evaluation.fixed):
        header.append(name)
        if name in with_error:
            header.append(f"{name} mCE")
    rows = []
    for classifier in evaluation.classifiers:
        cells = [classifier.name]
        for result in evaluation.fixed:
            if result.classifier == classifier.name:
                cells.append(format_estimate(result.accuracy))
                if result.name in with_error:
                    cells.append(format_estimate(result.mean_corruption_error))
        rows.append(cells)
    return Table(header, rows)


def neighbours(comparison: Comparison) -> list[str]:
    """Return a line for each two neighbours in the ranking: how far apart they are, and whether that is beyond
    chance."""
    neighbouring: list[_Neighbours] = []
    pairs = {frozenset((pair.first, pair.second)): pair for pair in comparison.differences}
    for place, following in pairwise(comparison.ranking):
        pair = pairs.get(frozenset((place.classifier, following.classifier)))
        if pair is None:
            continue
        gap: Estimate | None = getattr(pair, comparison.measure)
        if gap is None:
            continue
        if pair.first != place.classifier:
            gap = -gap
        verdict = ", statistically tied" if place.tied_with_next else ", significantly different"
        neighbouring.append((place.classifier, following.classifier, gap, verdict))
    return _lines_of_neighbours(COMPARED[comparison.measure].name, neighbouring)


def _lines_of_neighbours(measure: str, neighbouring: Sequence[_Neighbours]) -> list[str]:
    """Return a line for each two neighbours; if they are many a line for each verdict, which names the pairs of the
    rarer verdict."""
    lines = []
    if len(neighbouring) <= _MOST_LINES:
        for first, second, gap, verdict in neighbouring:
            lines.append(f"{first} – {second}: {measure} differs by {gap}{verdict}")
        return lines
    pairs: defaultdict[str, list[str]] = defaultdict(list)  # by verdict, as the gaps
    gaps: defaultdict[str, list[float]] = defaultdict(list)
    for first, second, gap, verdict in neighbouring:
        pairs[verdict].append(f"{first} – {second}")
        gaps[verdict].append(gap.value)
    for verdict, names in pairs.items():
        line = f"{len(names)} of {len(neighbouring)} pairs of neighbours: {measure} differs by "
        line += f"{min(gaps[verdict]):.2f} to {max(gaps[verdict]):.2f}{verdict}"
        if 2 * len(names) < len(neighbouring):
            line += f" ({_listed(names)})"
        lines.append(line)
    return lines


def legend(evaluation: Evaluation) -> str:
    """Return the meaning of the mark of a split's own classifier; empty if nothing is marked."""
    is_marked = any(result.conditioned for result in evaluation.results)
    return f"{CONDITIONED} the classifier that the split was generated against" if is_marked else ""


def all_notes(evaluation: Evaluation) -> list[str]:
    """Return the notes of the evaluation, each once, with the splits and classifiers that it is about."""
    short = short_split_names(evaluation)
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for split in evaluation.splits:
        for note in split.notes:
            owners[note].append(short[split.name])
    for result in evaluation.results:
        for note in result.notes:
            owners[note].append(f"{result.classifier} on {short[result.split]}")
    lines = [f"{failure.name} is left out: {failure.why}" for failure in evaluation.failed]
    for note, names in owners.items():
        lines.append(f"{_listed(names)}: {note}")
    return lines


def _listed(names: Sequence[str]) -> str:
    """Return some of the names, and how many more there are."""
    text = ", ".join(names[:_NAMED])
    if len(names) > _NAMED:
        text += f" and {len(names) - _NAMED} more"
    return text


def _names(metrics: Sequence[Metric]) -> list[str]:
    return [metric.name for metric in metrics]


def _cells(summary: Summary, metrics: Sequence[Metric]) -> list[str]:
    return [summary.text_of(metric) for metric in metrics]


def _marked(result: Result) -> str:
    if not result.conditioned:
        return result.classifier
    return f"{_named(result)} {CONDITIONED}"


def _named(result: Result) -> str:
    if not result.rough:
        return result.classifier
    return f"{result.classifier} (rough gradient)"
