"""The figures of an evaluation as pictures."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fmrgen.errors import UserError, unknown_message
from fmrgen.metrics.intervals import Estimate, interval_ends
from fmrgen.metrics.summary import COMPARED, Summary
from fmrgen.report.dots import MOST_ROWS, Panel, Series, dot_plot
from fmrgen.report.plot import INK, MOST_PANELS, MOST_PERCENT, Plot, drawing, extremes, shortened
from fmrgen.report.side_by_side import common_rows, side_by_side
from fmrgen.report.step_plots import step_plots
from fmrgen.report.tables import CONDITIONED, classifiers_down, ranked, short_names
from fmrgen.results.evaluation import EvaluatedSplit, Evaluation, Result

_SA, _PA, _ORACLE = "#7d93a8", "#c8472f", "#3f7d58"
_HEAT = LinearSegmentedColormap.from_list("robustness", ["#b5361c", "#e8a07c", "#f6efe6", "#9dbfd3", "#2b6690"])
_FAMILIES = ("#c8472f", "#2b6690", "#3f7d58", "#b08a2e", "#7a4f8f", "#4aa3a3", "#8c5a3c")
_LONGEST_LINE = 14  # letters of a name over a column
_MOST_SPLITS = 8  # of which a chart shows several classifiers each; of more it shows their own ones
_MOST_WIDE = 8  # cells across a matrix that have room for an interval
_MOST_CELLS = 40  # across or down
_MOST_CLASSES = 30  # of a split

_STEPS = "a split that keeps its steps"
# What figures must have, which not all have, for a plot.
NEEDS = {
    "fmr": "originals",
    "transfer": "two classifiers",
    "families": f"more than {_MOST_WIDE} classifiers, and originals",
    "models": "two splits of one source, with the classifiers that they were made for",
    "iterations": "a split with a column of iterations",
    **dict.fromkeys(("budgets", "thresholds", "failures", "classes-by-budget"), _STEPS),
    "distances": "a split made with perturb.keep=first",
}

Draw = Callable[[], Plot]


def all_plots(evaluation: Evaluation) -> dict[str, Draw]:
    """What draws each plot that the figures allow, by the plot's name. None grows without end with what is compared."""
    plots: dict[str, Draw] = {}
    if not evaluation.splits:  # fixed sets alone
        return plots
    by_split = _sorted(evaluation) if len(evaluation.splits) > MOST_PANELS else evaluation
    if any(result.total.fmr for result in evaluation.results):
        plots["fmr"] = lambda: _fmr(by_split)
    if len(evaluation.classifiers) > 1:
        plots["transfer"] = lambda: _transfer(evaluation)
    if chosen := common_rows(evaluation):
        plots["models"] = lambda: side_by_side(evaluation, chosen)
    plots["accuracy"] = lambda: _accuracy(by_split)
    if len(evaluation.classifiers) > _MOST_WIDE and (both := _with_both(evaluation)):
        plots["families"] = lambda: _families(both)
    if counted := [split for split in by_split.splits if split.iterations]:
        plots["iterations"] = lambda: _iterations(counted)
    plots["classes"] = lambda: _classes(by_split)
    plots |= step_plots(by_split.splits)
    return {name: _styled(draw) for name, draw in plots.items()}


def figure(evaluation: Evaluation, name: str) -> Plot:
    """Return one plot of the report, as `Evaluation.figure` does.

    Args:
        evaluation: what `evaluate` found.
        name: of a plot, see `Evaluation.figure`.

    Raises:
        UserError: there is no plot of that name, or these figures do not allow it.
    """
    plots = all_plots(evaluation)
    if name in plots:
        return plots[name]()
    if name in NEEDS:
        raise UserError(f"figure {name}: needs {NEEDS[name]}; choose from {', '.join(plots)}")
    raise UserError(unknown_message(f"figure {name}", name, plots))


def _styled(draw: Draw) -> Draw:
    def drawn() -> Plot:
        with drawing():
            return draw()

    return drawn


def _sorted(evaluation: Evaluation) -> Evaluation:
    """The same with its splits by a falling figure of their own classifiers."""
    measure = _measure(evaluation)

    def figure(row: Sequence[Result]) -> float:
        estimate = getattr(_own(row).total, measure)
        return -1.0 if estimate is None else estimate.value

    rows = sorted(
        zip(evaluation.splits, evaluation.matrix, evaluation.comparisons, strict=True),
        key=lambda entry: -figure(entry[1]),
    )
    return replace(
        evaluation,
        splits=[split for split, _, _ in rows],
        results=[result for _, row, _ in rows for result in row],
        comparisons=[comparison for _, _, comparison in rows],
    )


def _measure(evaluation: Evaluation) -> str:
    return "fmr" if any(result.total.fmr for result in evaluation.results) else "perturbed_accuracy"


def _own(row: Sequence[Result]) -> Result:
    """Of a split its own classifier's, or else the first one."""
    return next((result for result in row if result.conditioned), row[0])


def _fmr(evaluation: Evaluation) -> Plot:
    """FMR with its interval of every classifier on every split."""
    ends = [interval_ends(result.total.fmr)[1] for result in evaluation.results if result.total.fmr]
    series = [Series("the classifier that the split was made for", _PA, "D"), Series("others", INK)]
    return _by_split(
        evaluation,
        lambda result: [result.total.fmr, None] if result.conditioned else [None, result.total.fmr],
        series if any(result.conditioned for result in evaluation.results) else [series[0], Series("FMR", INK)],
        "FMR, %, with its 95 % interval",
        limit=min(MOST_PERCENT, max(105, *ends)),
    )


def _accuracy(evaluation: Evaluation) -> Plot:
    """SA beside PA of every classifier on every split, with intervals."""
    return _by_split(
        evaluation,
        lambda result: [result.total.standard_accuracy, result.total.perturbed_accuracy],
        [Series("SA, originals", _SA, shift=0.17), Series("PA, perturbed", _PA, shift=-0.17)],
        "accuracy, %",
    )


def _with_both(evaluation: Evaluation) -> list[tuple[EvaluatedSplit, list[Result]]]:
    """The splits with those of their classifiers that have SA and PA, and were not attacked there themselves."""
    rows = zip(evaluation.splits, evaluation.matrix, strict=True)
    found = [
        (split, [r for r in row if r.total.standard_accuracy and r.total.perturbed_accuracy and not r.conditioned])
        for split, row in rows
    ]
    return [(split, results) for split, results in found if results]


def _families(every: list[tuple[EvaluatedSplit, list[Result]]]) -> Plot:
    """PA against SA, a point for each classifier, in the colours of families: the letters that names begin with."""
    splits, note = extremes(every)
    figure = Plot(figsize=(6.4, 0.4 + 3.6 * len(splits)))
    panels = figure.subplots(len(splits), 1, squeeze=False)[:, 0]
    short = short_names([split.name for split, _ in splits])
    counted = Counter(family_of(result.classifier) for _, results in splits for result in results)
    colours = dict(zip((name for name, _ in counted.most_common(len(_FAMILIES))), _FAMILIES, strict=False))
    for axes, (split, results) in zip(panels, splits, strict=True):
        for family, colour in [*colours.items(), ("others", None)]:
            members = [r for r in results if colours.get(family_of(r.classifier)) == colour]
            points = [(r.total.standard_accuracy, r.total.perturbed_accuracy) for r in members]
            places = [(one.value, other.value) for one, other in points if one and other]
            if places:
                x, y = zip(*places, strict=True)
                axes.scatter(x, y, s=16, color=colour or "#a9b1b8", label=family)
        axes.axline((50, 50), slope=1, color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
        axes.set_title(short[split.name])
        axes.set_ylabel("PA, %")
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    panels[-1].set_xlabel(f"SA, %; on the dashed line PA is SA{note}")
    figure.tight_layout()
    return figure


def family_of(name: str) -> str:
    """The letters that a classifier's name begins with."""
    return found[0].lower() if (found := re.match(r"[^\W\d_]+", name)) else name


def _by_split(
    evaluation: Evaluation,
    figures: Callable[[Result], list[Estimate | None]],
    series: Sequence[Series],
    label: str,
    limit: float = 100,
) -> Plot:
    """The classifiers on each split in the order of its table; of many splits their own classifiers alone."""
    short = short_names([split.name for split in evaluation.splits])
    count = len(evaluation.splits)
    rows = list(zip(evaluation.splits, evaluation.matrix, evaluation.comparisons, strict=True))
    if count > _MOST_SPLITS:
        own = [(short[split.name], _own(row)) for split, row, _ in rows][:MOST_ROWS]
        named = [(f"{name}{_mark(result)}", figures(result)) for name, result in own]
        title = f"{len(own)} of {count} splits" if len(own) < count else f"{count} splits"
        first = "" if all(result.conditioned for _, result in own) else ", or the first one"
        panels = [Panel(f"{title}, each with its own classifier{first}", named)]
    else:
        panels = []
        for split, row, comparison in rows:
            shown = ranked(row, comparison)[: max(5, MOST_ROWS // count)]
            named = [(f"{result.classifier}{_mark(result)}", figures(result)) for result in shown]
            of_all = f", the first {len(shown)} of {len(row)} classifiers" if len(shown) < len(row) else ""
            panels.append(Panel(f"{short[split.name]}{of_all}", named))
    return dot_plot(panels, series, label, limit)


def _mark(result: Result) -> str:
    return f" {CONDITIONED}" if result.conditioned else ""


def _transfer(evaluation: Evaluation) -> Plot:
    """Splits down, classifiers across; FMR where there are originals, else PA, with its interval where it has room.

    Many classifiers on few splits go down; what is more than a few is sorted.
    """
    measure = _measure(evaluation)
    results = np.array(evaluation.matrix, dtype=object)
    values = np.array([[np.nan if (cell := _cell(r, measure)) is None else cell.value for r in row] for row in results])
    short = short_names([split.name for split in evaluation.splits])
    down, across = _order(values, 1), _order(values, 0)
    rows = [short[evaluation.splits[place].name] for place in down]
    columns = [evaluation.classifiers[place].name for place in across]
    results, values = results[np.ix_(down, across)], values[np.ix_(down, across)]
    axis_names = ["split made for", "tested classifier"]
    if classifiers_down(evaluation):
        rows, columns, results, values = columns, rows, results.T, values.T
        axis_names.reverse()
    wide, high = len(columns) <= _MOST_WIDE, len(rows) <= _MOST_WIDE
    figure = Plot(figsize=(2.6 + (1.35 if wide else 0.55) * len(columns), 1.6 + (0.75 if high else 0.36) * len(rows)))
    axes = figure.subplots()
    picture = axes.imshow(values, cmap=_HEAT, vmin=0, vmax=100, aspect="auto")
    for (i, j), result in np.ndenumerate(results):
        _write_cell(axes, i, j, _cell(result, measure), wide, high)
        if result.conditioned:
            axes.add_patch(Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, fill=False, edgecolor=INK, linewidth=1.8))
    axes.set_xticks(range(len(columns)), [_broken(name) if wide else shortened(name) for name in columns])
    axes.set_yticks(range(len(rows)), [shortened(name) for name in rows])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(axis_names[1], labelpad=8)
    axes.set_ylabel(axis_names[0], labelpad=8)
    axes.tick_params(length=0)
    axes.tick_params("x", labelsize=8, rotation=0 if wide else 90)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(picture, ax=axes, shrink=0.9, pad=0.03)
    bar.outline.set_visible(False)
    bar.set_label(f"{COMPARED[measure].name}, %")
    notes = ["framed: the classifier that the split was made for"] if any(r.conditioned for r in results.flat) else []
    if results.size < len(evaluation.results):
        notes.append(
            f"the {_MOST_CELLS} of highest mean, of {max(len(evaluation.splits), len(evaluation.classifiers))}"
        )
    axes.annotate(
        "; ".join(notes),
        (0, 0),
        xytext=(0, -8),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8,
        va="top",
    )
    return figure


def _cell(result: Result, measure: str) -> Estimate | None:
    estimate: Estimate | None = getattr(result.total, measure)
    return estimate


def _order(values: np.ndarray, axis: int) -> np.ndarray:
    """The places along the other axis: all as they are where they are few, else by a falling mean."""
    means = np.nan_to_num(values, nan=-1).mean(axis)
    places = np.arange(len(means)) if len(means) <= _MOST_WIDE else np.argsort(-means, kind="stable")
    return places[:_MOST_CELLS]


def _write_cell(axes: Axes, row: int, column: int, cell: Estimate | None, wide: bool, high: bool) -> None:
    if cell is None:
        axes.text(column, row, "n/a", ha="center", va="center", fontsize=10 if wide else 7)
        return
    red, green, blue, _ = _HEAT(cell.value / 100)
    colour = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.6 else INK
    interval = f"{cell.low:.0f} – {cell.high:.0f}" if wide and cell.low is not None and cell.high is not None else ""
    if high:
        axes.text(
            column, row - 0.1, f"{cell.value:.1f}", ha="center", va="center", color=colour, fontsize=12 if wide else 7
        )
        axes.text(column, row + 0.24, interval, ha="center", va="center", color=colour, fontsize=8)
    else:
        text = f"{cell.value:.1f}  ({interval})" if interval else f"{cell.value:.1f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8 if wide else 7)


def _iterations(every: list[EvaluatedSplit]) -> Plot:
    """How many valid rows took how many guided steps."""
    splits, note = extremes(every)
    figure = Plot(figsize=(6.4, 0.6 + 1.5 * len(splits)))
    panels = figure.subplots(len(splits), 1, squeeze=False, sharex=True)[:, 0]
    short = short_names([split.name for split in splits])
    for axes, split in zip(panels, splits, strict=True):
        counts = {int(steps): rows for steps, rows in (split.iterations or {}).items()}
        axes.bar(list(counts), list(counts.values()), width=0.9, color=_PA)
        mean = sum(steps * rows for steps, rows in counts.items()) / sum(counts.values())
        axes.axvline(mean, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_title(f"{short[split.name]}: {mean:.1f} steps on average")
        axes.set_ylabel("rows")
        axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.tick_params(length=0)
    panels[-1].set_xlabel(f"guided steps in the stored image{note}")
    figure.tight_layout()
    return figure


def _classes(evaluation: Evaluation) -> Plot:
    """SA, PA and the oracle's accuracy by class: on each split its own classifier, or else the first one."""
    splits, note = extremes(list(zip(evaluation.splits, map(_own, evaluation.matrix), strict=True)))
    short = short_names([split.name for split in evaluation.splits])
    most = max(10, min(_MOST_CLASSES, MOST_ROWS // len(splits)))
    panels = []
    for split, result in splits:
        chosen = _lowest(result.classes, most)
        more = f", the {len(chosen)} classes of lowest PA" if len(chosen) < len(result.classes) else ""
        rows = [
            (split.class_names[index], [of.oracle_accuracy, of.standard_accuracy, of.perturbed_accuracy])
            for index, of in ((index, result.classes[index]) for index in chosen)
        ]
        panels.append(Panel(f"{result.classifier} on {short[split.name]}{more}", rows))
    series = [
        Series("oracle on originals", _ORACLE, "D", 0.24),
        Series("SA", _SA),
        Series("PA", _PA, shift=-0.24),
    ]
    return dot_plot(panels, series, f"accuracy of each class, %{note}")


def _lowest(classes: Sequence[Summary], most: int) -> list[int]:
    """The classes to show, in their own order."""
    there = [index for index, summary in enumerate(classes) if summary.rows]
    pa = {index: classes[index].perturbed_accuracy for index in there}
    return sorted(sorted(there, key=lambda index: e.value if (e := pa[index]) else 200.0)[:most])


def _broken(name: str) -> str:
    """A long name on two lines, each cut where it would run into the next name."""
    lines = [name]
    for mark in ("/", ".", "_", "-", " ") if len(name) > _LONGEST_LINE else ():
        if mark in name[4:-3]:
            end = name.index(mark, 4) + 1
            lines = [name[:end], name[end:]]
            break
    return "\n".join(line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 1]}…" for line in lines)
