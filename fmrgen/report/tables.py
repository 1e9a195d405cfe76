"""The figures of an evaluation as tables of text, whatever shows them: a terminal, Markdown or a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fmrgen.metrics.intervals import Estimate, format_coefficient, format_estimate, interval_ends
from fmrgen.metrics.summary import COMPARED, METRICS, Group, Metric, Summary
from fmrgen.results.evaluation import Comparison, EvaluatedSplit, Evaluation, Result
from fmrgen.results.judges import JudgeFigures, chance_line

CONDITIONED = "◆"  # marks a split's own classifier
RELATED = "‡"  # marks a judge that is no second opinion
_RELATED_TO_ORACLE = " (related to the oracle)"
_OF_OWN_SPLITS = (
    *("standard_accuracy", "perturbed_accuracy", "validation_rate", "fmr", "mean_iterations"),
    *("reconstruction_accuracy", "oracle_right_fmr"),
)
_NAMED = 4  # of those that one note is of
_MOST_ACROSS = 8  # classifiers, each with an interval
_MOST_LINES = 6  # on neighbours in a ranking
EXPLAINED = {metric.name: metric.meaning for metric in METRICS}


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column names the row."""

    header: list[str]
    rows: list[list[str]]


def format_interval(estimate: Estimate) -> str:
    """`11.1 – 15.3`; nothing where it has no ends."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:z.1f} – {estimate.high:z.1f}"


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without what comes before their colon, as far as that leaves them apart."""
    short = {name: name.rpartition(":")[2] if ":" in name else name.rstrip("/").rpartition("/")[2] for name in names}
    return short if len(set(short.values())) == len(short) else {name: name for name in names}


def split_table(results: Sequence[Result], group: Group = "main") -> Table:
    """The classifiers on one split, those figures of a group that any of them has."""
    wanted = [m for m in METRICS if m.of == "classifier" and m.group == group]
    shown = [metric for metric in wanted if any(result.total[metric] for result in results)]
    rows = [[_marked(result), *_cells(result.total, shown)] for result in results]
    return Table(["classifier", *(metric.name for metric in shown)], rows)


def split_facts(split: EvaluatedSplit, results: Sequence[Result]) -> str:
    """What holds of the split whatever classifier looks at it, on one line."""
    total = results[0].total
    facts = [f"{total.rows} rows, {total.valid_rows} valid"]
    facts += [
        f"{metric.name} {format_estimate(total[metric])}"
        for metric in METRICS
        if metric.of == "split" and metric.field not in ("stuck", "by_budget") and total[metric]
    ]
    if split.stop_reasons:
        facts.append(
            "rows by how they ended: " + ", ".join(f"{reason} {n}" for reason, n in split.stop_reasons.items())
        )
    return "; ".join(facts)


def class_table(result: Result, split: EvaluatedSplit) -> Table:
    """A classifier by class (paper Tables 13 and 14), the totals last."""
    shown = [metric for metric in METRICS if result.total[metric] and metric.group == "main"]
    rows = [
        [class_name, str(summary.rows), *_cells(summary, shown)]
        for class_name, summary in zip(split.class_names, result.classes, strict=True)
    ]
    total = ["all", str(result.total.rows), *_cells(result.total, shown)]
    return Table(["class", "rows", *(metric.name for metric in shown)], [*rows, total])


def mask_table(images: int, sparsity: float, test_score: float, dimensions: int, regularization: float) -> Table:
    """One mask (paper Table 11).

    Args:
        images: that it was found on.
        sparsity: share of the latent that does not move.
        test_score: share of held-out latents that are told apart.
        dimensions: that move.
        regularization: strength of the l1 penalty.

    Returns:
        A table of one row.
    """
    header = ["images", "sparsity", "test score", "dimensions that move", "regularization"]
    row = [str(images), f"{sparsity:.2%}", f"{test_score:.2%}", str(dimensions), f"{regularization:.4g}"]
    return Table(header, [row])


def agreement_table(comparison: Comparison) -> Table | None:
    """The error consistency of each pair of classifiers; None of more than stand side by side, or where none is
    known."""
    names = list(dict.fromkeys(name for pair in comparison.differences for name in (pair.first, pair.second)))
    pairs = {frozenset((pair.first, pair.second)): pair.error_consistency for pair in comparison.differences}
    if not 2 <= len(names) <= _MOST_ACROSS or not any(pairs.values()):
        return None

    def cell(one: str, other: str) -> str:
        found = pairs.get(frozenset((one, other)))
        return "" if found is None else f"{found.value:z.2f} [{found.low:z.2f}, {found.high:z.2f}]"

    return Table(["", *names], [[one, *(cell(one, other) for other in names)] for one in names])


def transfer_table(evaluation: Evaluation, measure: str) -> Table:
    """The transfer matrix in one of the compared metrics, lying as `transfer_reading` says."""
    short, metric = short_names([split.name for split in evaluation.splits]), COMPARED[measure]
    rows = [
        [short[row[0].split], *(_mark(cell) + cell.total.text_of(metric) for cell in row)] for row in evaluation.matrix
    ]
    lines = [[metric.name, *(classifier.name for classifier in evaluation.classifiers)], *rows]
    header, *rest = map(list, zip(*lines, strict=True)) if classifiers_down(evaluation) else lines
    return Table(header, rest)


def classifiers_down(evaluation: Evaluation) -> bool:
    """Whether the transfer matrix has its classifiers down, since they are too many to stand side by side."""
    return len(evaluation.classifiers) > max(_MOST_ACROSS, len(evaluation.splits))


def transfer_reading(evaluation: Evaluation) -> str:
    """How the transfer matrix is read."""
    return "classifiers down, splits across" if classifiers_down(evaluation) else "splits down, classifiers across"


def ranked(results: Sequence[Result], comparison: Comparison) -> list[Result]:
    """The results of a split: its own classifier's, the others' in the order of the ranking, and what is not ranked."""
    by_name = {result.classifier: result for result in results}
    own = [result for result in results if result.conditioned]
    shown = [*own, *(by_name[place.classifier] for place in comparison.ranking)]
    return [*shown, *(result for result in results if result not in shown)]


def warning_lines(evaluation: Evaluation) -> list[str]:
    """Which classifiers are hardly better than chance, in a line for all splits on which they are the same; which have
    a masked or a rough gradient; which are related to the oracle of their own split; and which are fooled more by
    another's images than by their own.

    They stand above the tables: the figures of their own splits say nothing of robustness.
    """
    short = short_names([split.name for split in evaluation.splits])
    splits: dict[tuple[str, ...], list[str]] = {}
    masked: dict[str, list[str]] = {}
    maybe_masked: dict[str, list[str]] = {}  # without a control
    rough: dict[str, list[str]] = {}
    for split, results in zip(evaluation.splits, evaluation.matrix, strict=True):
        if names := tuple(result.classifier for result in results if result.at_chance):
            splits.setdefault(names, []).append(short[split.name])
        for result in results:
            if result.rough:
                rough.setdefault(result.classifier, []).append(short[split.name])
            elif result.masked and result.total.guided_less_random is None:
                maybe_masked.setdefault(result.classifier, []).append(short[split.name])
            elif result.masked:
                masked.setdefault(result.classifier, []).append(short[split.name])
    lines = [
        f"hardly better than chance on the originals of {_listed(where)}, so not ranked: {_listed(names)}; are the "
        "weights loaded, and the classes in the order of the labels?"
        for names, where in splits.items()
    ]
    lines += [
        f"the gradient of {name} is masked on {_listed(where)}, so it is not ranked there: the first step raises its "
        "loss hardly more often than a random step"
        for name, where in masked.items()
    ]
    lines += [
        f"the gradient of {name} may be masked on {_listed(where)}, so it is not ranked there: the first step raises "
        "its loss hardly more often than a random step, and there is no control by random steps to tell"
        for name, where in maybe_masked.items()
    ]
    lines += [
        f"the gradient of {name} is rough on {_listed(where)}: the first step seldom raises its loss, but guided steps "
        "fool it far more than random ones; it is ranked, and a search without gradients may find more"
        for name, where in rough.items()
    ]
    for split, results in zip(evaluation.splits, evaluation.matrix, strict=True):
        own = [result.classifier for result in results if result.conditioned]
        if split.related is not None and own:
            lines.append(f"{_listed(own)} on {short[split.name]}: {split.related}")
    return lines + [
        f"{case.classifier} is fooled more by the images of {short[case.fooled_more_by]} than by those of its own "
        "split, so its own gradient does not show the way: it is ranked by the former"
        for case in evaluation.worst
        if case.fooled_more_by is not None and case.classifier not in {*masked, *maybe_masked}
    ]


def judges_table(split: EvaluatedSplit) -> Table | None:
    """Who looked at a split besides its oracle, and what they make of it; None where nobody did."""
    if not split.judges:
        return None
    header = ["judge", "looked at", "sees the label", "in originals", "kappa with the oracle", "same answer twice"]
    rows = [
        [
            _judge_name(judge),
            f"{judge.audited:,}",
            *map(format_estimate, (judge.preserved, judge.originals_right)),
            format_coefficient(judge.oracle_kappa),
            format_estimate(judge.self_agreement),
        ]
        for judge in split.judges
    ]
    return Table(header, rows)


def judged_table(split: EvaluatedSplit, results: Sequence[Result]) -> Table | None:
    """FMR under each judge: of each classifier over the images in which the judge sees the label."""
    if not any(result.judged for result in results):
        return None
    rows = []
    for result in results:
        found = [result.judged.get(judge.judge) for judge in split.judges]
        cells = [format_estimate(None if of_judge is None else of_judge.fmr) for of_judge in found]
        rows.append([_marked(result), format_estimate(result.total.fmr), *cells])
    return Table(["FMR", "the split's oracle", *map(_judge_name, split.judges)], rows)


def _judge_name(judge: JudgeFigures) -> str:
    """With a mark where it is no second opinion, as `judges_lines` tells."""
    return f"{judge.judge} {RELATED}" if judge.shares_weights_with else judge.judge


def judges_lines(split: EvaluatedSplit, results: Sequence[Result]) -> list[str]:
    """Who is no second opinion, or guesses, how far people agree, and whether judges rank as the oracle does."""
    lines = [
        f"{RELATED} {related_line(judge.judge, judge.shares_weights_with)}"
        for judge in split.judges
        if judge.shares_weights_with
    ]
    at_chance = (chance_line(judge.judge, judge.originals_right, len(split.class_names)) for judge in split.judges)
    lines += [line for line in at_chance if line is not None]
    if split.people_alpha is not None:
        lines.append(f"agreement between people: Krippendorff's alpha {format_coefficient(split.people_alpha)}")
    lines += [
        f"{judge.judge}: FMR of {result.classifier} is {of_judge.fmr} if images that fool it were missed as often as "
        f"others; however many were missed, it is from {ends[0]:.1f} to {ends[1]:.1f}"
        for judge in split.judges
        if judge.kind == "person"
        for result in results
        if result.conditioned and (of_judge := result.judged.get(judge.judge)) and of_judge.fmr_range
        for ends in [interval_ends(of_judge.fmr_range)]
    ]
    for judge in split.judges:
        pairs = [
            (result.total.fmr.value, of_judge.fmr.value)
            for result in results
            if result.total.fmr
            and not result.at_chance
            and (of_judge := result.judged.get(judge.judge))
            and of_judge.fmr
        ]
        if len(pairs) > 2:
            from scipy.stats import kendalltau  # a second's import, which most jobs do without

            tau = float(kendalltau(*zip(*pairs, strict=True)).statistic)
            lines.append(f"{judge.judge} and the oracle: Kendall's tau {tau:.2f} over {len(pairs)} classifiers")
    return lines


def related_line(judge: str, shares_weights_with: Sequence[str]) -> str:
    """That a judge's figures are those of the oracle, or of a classifier, once more."""
    return f"{judge} shares its weights with {' and '.join(shares_weights_with)}: its figures are no second opinion"


def own_table(evaluation: Evaluation) -> Table | None:
    """Each classifier on the split made for it (paper Tables 1, 2, 3 and 5), by falling FMR, with the mean of FMR over
    all budgets up to the split's."""
    if evaluation.own is None:
        return None
    shown = [metric for metric in METRICS if metric.field in _OF_OWN_SPLITS]
    splits = {split.name: split for split in evaluation.splits}
    rows = []
    for place in evaluation.own.ranking:
        result = evaluation.result(place.split, place.classifier)
        total = result.total
        ranks = "n/a" if place.best is None else str(place.best)
        ranks += f" – {place.worst}" if place.best != place.worst else ""
        steps = splits[place.split].steps
        area = format_estimate(None if steps is None else steps.area_under_fmr)
        name = _named(result) + (_RELATED_TO_ORACLE if splits[place.split].related else "")
        rows.append([name, ranks, *_cells(total, shown), area])
    return Table(["classifier", "rank", *(metric.name for metric in shown), "FMR by budget"], rows)


def own_lines(evaluation: Evaluation) -> list[str]:
    """How far apart neighbours in that table are, and what the ranks are."""
    if evaluation.own is None:
        return []
    pairs = {(pair.first, pair.second): pair.fmr for pair in evaluation.own.differences}
    names = [place.classifier for place in evaluation.own.ranking]
    apart = [(one, other, gap, "") for one, other in pairwise(names) if (gap := pairs.get((one, other))) is not None]
    lines = _lines_of_neighbours("FMR", apart)
    lines += [
        f"{spread.classifier}: FMR on its {len(spread.fmr)} splits is {', '.join(f'{fmr:.2f}' for fmr in spread.fmr)} "
        f"(mean {spread.mean:.2f}, standard deviation {spread.deviation:.2f}); it is ranked by the first"
        for spread in evaluation.own.spreads
    ]
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
    """Ways to train by falling mean FMR; None where no two classifiers are trainings of one."""
    if evaluation.own is None or evaluation.own.trainings is None:
        return None
    rows = []
    for group in evaluation.own.trainings.groups:
        ranks = "n/a" if group.best is None else str(group.best)
        ranks += f" – {group.worst}" if group.best != group.worst else ""
        each = ", ".join(f"{fmr:.1f}" for fmr in group.fmr)
        rows.append([group.name, ranks, format_estimate(group.mean), format_estimate(group.spread), each])
    return Table(["trainings of", "rank", "mean FMR", "spread", "of each training"], rows)


def trainings_lines(evaluation: Evaluation) -> list[str]:
    """How far apart neighbours are, how much of it another training gives, and what the intervals are over."""
    if evaluation.own is None or (found := evaluation.own.trainings) is None:
        return []
    apart = {(pair.first, pair.second): pair.fmr for pair in found.differences}
    names = [group.name for group in found.groups]
    lines = [f"{one} – {other}: mean FMR differs by {apart[one, other]}" for one, other in pairwise(names)]
    single = [group.name for group in found.groups if len(group.fmr) == 1]
    if single:
        lines.append(
            f"{', '.join(single)}: one training does not show how far trainings vary, so it gets no rank and no "
            "interval; train it again with other seeds"
        )
    return [
        *lines,
        "spread: the standard deviation of FMR between trainings of one classifier, in points, less that of images",
        f"these intervals and ranks are over trainings and the {found.rows} images that all have; ranks hold for all "
        "at once with 95 % confidence",
    ]


def worst_table(evaluation: Evaluation) -> Table | None:
    """Each classifier on all splits at once; None where there are no two that were made alike."""
    if not evaluation.worst:
        return None
    rows = [
        [case.classifier, format_estimate(case.fmr), format_estimate(case.perturbed_accuracy)]
        for case in evaluation.worst
    ]
    return Table(["classifier", "worst-case FMR", "worst-case PA"], rows)


def worst_line(evaluation: Evaluation) -> str:
    """What that table is."""
    first = evaluation.worst[0]
    return (
        f"right on every valid image that the {len(first.splits)} splits have of an original, over the {first.rows} "
        "that all have; no single gradient decides it"
    )


def fixed_table(evaluation: Evaluation) -> Table | None:
    """Accuracy and mCE on fixed sets, classifiers down; None where there are none."""
    if not evaluation.fixed:
        return None
    names = list(dict.fromkeys(result.name for result in evaluation.fixed))
    with_error = {result.name for result in evaluation.fixed if result.mean_corruption_error is not None}
    header = ["classifier", *(column for name in names for column in _fixed_columns(name, name in with_error))]
    rows = []
    for classifier in evaluation.classifiers:
        cells = [classifier.name]
        for result in evaluation.fixed:
            if result.classifier == classifier.name:
                cells.append(format_estimate(result.accuracy))
                cells += [format_estimate(result.mean_corruption_error)] if result.name in with_error else []
        rows.append(cells)
    return Table(header, rows)


def _fixed_columns(name: str, has_error: bool) -> list[str]:
    return [name, f"{name} mCE"] if has_error else [name]


def neighbours(comparison: Comparison) -> list[str]:
    """A line for each two neighbours in the ranking: how far apart they are, and whether that is beyond chance."""
    apart = []
    pairs = {frozenset((pair.first, pair.second)): pair for pair in comparison.differences}
    for place, following in pairwise(comparison.ranking):
        pair = pairs.get(frozenset((place.classifier, following.classifier)))
        gap: Estimate | None = None if pair is None else getattr(pair, comparison.measure)
        if pair is None or gap is None:
            continue
        if pair.first != place.classifier and gap.low is not None and gap.high is not None:
            gap = Estimate(-gap.value, -gap.high, -gap.low)
        verdict = ", statistically tied" if place.tied_with_next else ", significantly different"
        apart.append((place.classifier, following.classifier, gap, verdict))
    return _lines_of_neighbours(COMPARED[comparison.measure].name, apart)


def _lines_of_neighbours(measure: str, apart: Sequence[tuple[str, str, Estimate, str]]) -> list[str]:
    """A line for each two; where they are many one for each verdict, which names the rarer ones."""
    if len(apart) <= _MOST_LINES:
        return [f"{one} – {other}: {measure} differs by {gap}{verdict}" for one, other, gap, verdict in apart]
    lines = []
    for verdict in dict.fromkeys(verdict for *_, verdict in apart):
        alike = [(f"{one} – {other}", gap.value) for one, other, gap, own in apart if own == verdict]
        names = f" ({_listed([pair for pair, _ in alike])})" if 2 * len(alike) < len(apart) else ""
        low, high = (end(gap for _, gap in alike) for end in (min, max))
        count = f"{len(alike)} of {len(apart)} pairs of neighbours"
        lines.append(f"{count}: {measure} differs by {low:.2f} to {high:.2f}{verdict}{names}")
    return lines


def legend(evaluation: Evaluation) -> str:
    """What the mark of a split's own classifier says, where there is one."""
    marked = any(result.conditioned for result in evaluation.results)
    return f"{CONDITIONED} the classifier that the split was made for" if marked else ""


def all_notes(evaluation: Evaluation) -> list[str]:
    """What a reader must know, each thing once, with the splits and classifiers that it is of."""
    short = short_names([split.name for split in evaluation.splits])
    owners: dict[str, list[str]] = {}
    for split in evaluation.splits:
        for note in split.notes:
            owners.setdefault(note, []).append(short[split.name])
    for result in evaluation.results:
        for note in result.notes:
            owners.setdefault(note, []).append(f"{result.classifier} on {short[result.split]}")
    failed = [f"{one.name} is left out: {one.why}" for one in evaluation.failed]
    return [*failed, *(f"{_listed(whose)}: {note}" for note, whose in owners.items())]


def _listed(names: Sequence[str]) -> str:
    """Some of the names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _cells(summary: Summary, metrics: Sequence[Metric]) -> list[str]:
    return [summary.text_of(metric) for metric in metrics]


def _marked(result: Result) -> str:
    return f"{_named(result)} {CONDITIONED}" if result.conditioned else result.classifier


def _named(result: Result) -> str:
    return f"{result.classifier} (rough gradient)" if result.rough else result.classifier


def _mark(result: Result) -> str:
    return f"{CONDITIONED} " if result.conditioned else ""
