"""The figures of an evaluation as tables of text, whatever shows them: a terminal, Markdown or a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fmrgen.evaluation.results import Comparison, Figures, Result, SplitFigures
from fmrgen.metrics import Estimate, Summary

Measure = Literal["standard_accuracy", "perturbed_accuracy", "fmr"]

SHORT: dict[str, str] = {"standard_accuracy": "SA", "perturbed_accuracy": "PA", "fmr": "FMR"}
CONDITIONED = "◆"  # marks a split's own classifier

_OF_CLASSIFIER = {
    "SA": "standard_accuracy",
    "PA": "perturbed_accuracy",
    "FMR": "fmr",
    "SA valid": "valid_standard_accuracy",
    "FMR valid": "valid_fmr",
    "recon.": "reconstruction_accuracy",
}
_OF_SPLIT = {"VR": "validation_rate", "oracle": "oracle_accuracy", "iterations": "mean_iterations"}
_COLUMNS = _OF_CLASSIFIER | _OF_SPLIT
EXPLAINED = {
    "SA": "accuracy on all originals",
    "PA": "accuracy on the perturbed images of valid rows",
    "VR": "share of rows whose first step the oracle accepted",
    "FMR": "PA / SA × 100",
    "SA valid": "accuracy on the originals of valid rows alone",
    "FMR valid": "PA / SA valid × 100: FMR without the effect of which rows the oracle let through",
    "recon.": "accuracy of the split's own classifier on images that only went through the generator",
    "oracle": "the oracle's own accuracy on all originals",
    "iterations": "mean guided steps of valid rows",
}


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column names the row."""

    header: list[str]
    rows: list[list[str]]


def figure(estimate: Estimate | None) -> str:
    """`13.05 [11.1, 15.3]`; n/a where there is none."""
    if estimate is None:
        return "n/a"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without what comes before their colon, as far as that leaves them apart."""
    short = {name: name.rpartition(":")[2] if ":" in name else name.rstrip("/").rpartition("/")[2] for name in names}
    return short if len(set(short.values())) == len(short) else {name: name for name in names}


def split_table(results: Sequence[Result]) -> Table:
    """The classifiers on one split, those figures that any of them has."""
    names = [name for name, field in _OF_CLASSIFIER.items() if any(getattr(result.total, field) for result in results)]
    rows = [[_marked(result), *_cells(result.total, names)] for result in results]
    return Table(["classifier", *names], rows)


def split_facts(split: SplitFigures, results: Sequence[Result]) -> str:
    """What holds of the split whatever classifier looks at it, on one line."""
    total = results[0].total
    facts = [f"{total.rows} rows, {total.valid_rows} valid"]
    facts += [f"{name} {figure(value)}" for name, field in _OF_SPLIT.items() if (value := getattr(total, field))]
    if split.stop_reasons:
        facts.append("stopped by " + ", ".join(f"{reason} {rows}" for reason, rows in split.stop_reasons.items()))
    return "; ".join(facts)


def class_table(result: Result, split: SplitFigures) -> Table:
    """A classifier by class (paper Tables 13 and 14), the totals last."""
    names = [name for name, field in _COLUMNS.items() if getattr(result.total, field)]
    rows = [
        [class_name, str(summary.rows), *_cells(summary, names)]
        for class_name, summary in zip(split.class_names, result.classes, strict=True)
    ]
    return Table(["class", "rows", *names], [*rows, ["all", str(result.total.rows), *_cells(result.total, names)]])


def transfer_table(figures: Figures, measure: Measure) -> Table:
    """The transfer matrix: splits down, classifiers across."""
    short = short_names([split.name for split in figures.splits])
    rows = [
        [short[row[0].split], *(_mark(cell) + figure(getattr(cell.total, measure)) for cell in row)]
        for row in figures.matrix
    ]
    return Table([SHORT[measure], *(classifier.name for classifier in figures.classifiers)], rows)


def ranked(results: Sequence[Result], comparison: Comparison) -> list[Result]:
    """The results of a split in the order of its ranking."""
    by_name = {result.classifier: result for result in results}
    return [by_name[place.classifier] for place in comparison.ranking]


def neighbours(comparison: Comparison) -> list[str]:
    """A line for each two neighbours in the ranking: how far apart they are, and whether that is told from zero."""
    lines = []
    measure = SHORT[comparison.measure]
    for place, following in zip(comparison.ranking, comparison.ranking[1:], strict=False):
        for pair in comparison.differences:
            apart: Estimate | None = getattr(pair, comparison.measure)
            if {pair.first, pair.second} == {place.classifier, following.classifier} and apart is not None:
                if pair.first != place.classifier and apart.low is not None and apart.high is not None:
                    apart = Estimate(-apart.value, -apart.high, -apart.low)
                verdict = "statistically tied" if place.tied_with_next else "apart"
                lines.append(
                    f"{place.classifier} – {following.classifier}: {measure} differs by {figure(apart)}, {verdict}"
                )
    return lines


def all_notes(figures: Figures) -> list[str]:
    """What a reader must know, each with the split or classifier that it is of."""
    short = short_names([split.name for split in figures.splits])
    of_splits = [f"{short[split.name]}: {note}" for split in figures.splits for note in split.notes]
    of_results = [f"{r.classifier} on {short[r.split]}: {note}" for r in figures.results for note in r.notes]
    return [*of_splits, *of_results]


def _cells(summary: Summary, names: Sequence[str]) -> list[str]:
    return [figure(getattr(summary, _COLUMNS[name])) for name in names]


def _marked(result: Result) -> str:
    return f"{result.classifier} {CONDITIONED}" if result.conditioned else result.classifier


def _mark(result: Result) -> str:
    return f"{CONDITIONED} " if result.conditioned else ""
