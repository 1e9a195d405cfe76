"""What the sections of an evaluation share: tables of figures, the names in them, warnings and notes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from operator import itemgetter

from fmrgen.metrics.gradients import masked_because, may_be_rough
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import COMPARED, Metric, Summary
from fmrgen.report.report import Table
from fmrgen.results.evaluation import Comparison, Evaluation, Result
from fmrgen.results.own_splits import OwnRank
from fmrgen.results.rankings import Difference, RankedClassifier

CONDITIONED = "◆"  # marks a split's own classifier
_NAMED = 4  # splits or classifiers that a line names; of more it says how many


def table_of(
    first: str,
    rows: Sequence[tuple[str, Mapping[str, str]]],
    *,
    first_columns: Sequence[str] = (),
    filters: Sequence[str] = (),
) -> Table:
    """Return a table of named rows, whose cells are by the headers of their columns; `first` is that of the names."""
    header = [first, *rows[0][1]] if rows else []
    lines = [[name, *cells.values()] for name, cells in rows]
    return Table(header, lines, first_columns=first_columns, filters=filters)


def cells_of(summary: Summary, metrics: Iterable[Metric]) -> dict[str, str]:
    """Return figures with their intervals, for `table_of`."""
    return {metric.name: summary.text_of(metric) for metric in metrics}


def measured(metrics: Iterable[Metric], results: Iterable[Result]) -> list[Metric]:
    """Return the metrics of which any result has a figure."""
    totals = [result.total for result in results]
    return [metric for metric in metrics if any(map(itemgetter(metric), totals))]


def named(result: Result) -> str:
    """Return the classifier's name, and whether its gradient is rough."""
    return f"{result.classifier} (rough gradient)" if result.rough else result.classifier


def marked(result: Result) -> str:
    """Return the same, with a mark if the split was generated against it."""
    return f"{named(result)} {CONDITIONED}" if result.conditioned else named(result)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return for each name the part after its colon or last slash, if that tells all of them apart, else the name."""
    short = {}
    for name in names:
        short[name] = name.rpartition(":")[2] if ":" in name else name.rstrip("/").rpartition("/")[2]
    if len(set(short.values())) < len(short):
        return dict(zip(names, names, strict=True))
    return short


def short_split_names(evaluation: Evaluation) -> dict[str, str]:
    """Return the short names of an evaluation's splits, by their names."""
    return short_names([split.name for split in evaluation.splits])


def classifiers_down(evaluation: Evaluation) -> bool:
    """Return whether the transfer matrix has its classifiers down, since they are too many to stand side by side."""
    return len(evaluation.classifiers) > max(8, len(evaluation.splits))


def ranked(results: Sequence[Result], comparison: Comparison) -> list[Result]:
    """Return the results of a split: its own classifier's, the others in the order of the ranking, then the unranked
    ones."""
    by_name = {result.classifier: result for result in results}
    ordered = [result for result in results if result.conditioned]
    ordered += [by_name[place.classifier] for place in comparison.ranking]
    return ordered + [result for result in results if result not in ordered]


def neighbour_lines(
    measure: str, ranking: Sequence[RankedClassifier | OwnRank], differences: Iterable[Difference]
) -> list[str]:
    """Return a line for each two neighbours in a ranking: how far apart they are, and whether that is beyond chance.

    Of more than six, there is a line for each verdict, which names the pairs of the rarer verdict.
    """
    pairs = {frozenset((pair.first, pair.second)): pair for pair in differences}
    neighbours: list[tuple[str, Estimate, str]] = []  # their names, their difference, a verdict on it
    for place, following in pairwise(ranking):
        pair = pairs.get(frozenset((place.classifier, following.classifier)))
        gap: Estimate | None = getattr(pair, measure, None)
        if pair is None or gap is None:
            continue
        verdict = ""
        if isinstance(place, RankedClassifier):
            verdict = ", statistically tied" if place.tied_with_next else ", significantly different"
        names = f"{place.classifier} – {following.classifier}"
        neighbours.append((names, gap if pair.first == place.classifier else -gap, verdict))
    differ = f"{COMPARED[measure].name} differs by"
    if len(neighbours) <= 6:
        return [f"{names}: {differ} {gap}{verdict}" for names, gap, verdict in neighbours]
    lines = []
    for verdict in dict.fromkeys(verdict for *_, verdict in neighbours):
        gaps = {names: gap.value for names, gap, other in neighbours if other == verdict}
        line = f"{len(gaps)} of {len(neighbours)} pairs of neighbours: {differ} "
        line += f"{min(gaps.values()):.2f} to {max(gaps.values()):.2f}{verdict}"
        lines.append(f"{line} ({_listed(list(gaps))})" if 2 * len(gaps) < len(neighbours) else line)
    return lines


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
    masked = {result.classifier for result in evaluation.results if result.masked}
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
    masked: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)  # names of splits, by the line's words
    rough: defaultdict[str, list[str]] = defaultdict(list)
    for result in evaluation.results:
        if result.rough:
            rough[result.classifier].append(short[result.split])
        elif result.masked:
            verb = "may be" if may_be_rough(result.total) else "is"
            masked[result.classifier, verb, masked_because(result.total)].append(short[result.split])
    lines = []
    for (name, verb, reason), splits in masked.items():
        lines.append(f"the gradient of {name} {verb} masked on {_listed(splits)}, so it is not ranked there: {reason}")
    for name, splits in rough.items():
        lines.append(
            f"the gradient of {name} is rough on {_listed(splits)}: the first step seldom raises its loss, but guided "
            "steps fool it far more than random ones; it is ranked, and a search without gradients may find more"
        )
    return lines


def related_line(judge: str, shares_weights_with: Sequence[str]) -> str:
    """Return a line that says that a judge's figures repeat those of the oracle, or of a classifier."""
    return f"{judge} shares its weights with {' and '.join(shares_weights_with)}: its figures are no second opinion"


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
    return lines + [f"{_listed(names)}: {note}" for note, names in owners.items()]


def _listed(names: Sequence[str]) -> str:
    """Return some of the names, and how many more there are."""
    text = ", ".join(names[:_NAMED])
    return text if len(names) <= _NAMED else f"{text} and {len(names) - _NAMED} more"
