"""The figures of one split, as the end of a job shows them: the main ones, or every metric."""

from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import METRICS, TOO_FEW, Metric, Summary
from fmrgen.report.tables import Table, format_interval

_BY_FIELD = {metric.field: metric for metric in METRICS}


def summary_table(summary: Summary, *, every: bool = False) -> Table:
    """What a reader needs of a split's own classifier, with 95 % intervals; with `every` all metrics that it has."""
    if every:
        known = [metric for metric in METRICS if summary[metric] is not None or metric.compared]
        rows = [["rows", str(summary.rows), ""], *(_line(summary, metric) for metric in known)]
    else:
        rows = _main_lines(summary)
    return Table(["", "", "95 % interval"], rows)


def _main_lines(summary: Summary) -> list[list[str]]:
    """Those that any other figure is a way of looking at."""
    fields = ("standard_accuracy", "perturbed_accuracy", "fmr")
    accuracies = [_line(summary, _BY_FIELD[field]) for field in fields]
    valid = f"{summary.valid_rows} of {summary.rows}"
    return [
        ["valid rows (VR)", valid, _interval(summary.validation_rate)],
        *accuracies,
        ["FMR if all invalid rows were wrong, or right", _ends(summary), ""],
        _line(summary, _BY_FIELD["reconstruction_accuracy"]),
        _line(summary, _BY_FIELD["guided_less_random"]),
        _line(summary, _BY_FIELD["first_steps_up"]),
        ["steps of valid rows", _steps(summary), _interval(summary.mean_iterations)],
    ]


def _line(summary: Summary, metric: Metric) -> list[str]:
    estimate = summary[metric]
    value = "n/a" if estimate is None else f"{estimate.value:z.2f}{metric.unit}"
    interval = TOO_FEW if summary.has_too_few_rows(metric) else _interval(estimate)
    return [metric.title, value, interval]


def _interval(estimate: Estimate | None) -> str:
    return "" if estimate is None else format_interval(estimate)


def _ends(summary: Summary) -> str:
    """FMR between the worst and the best that invalid rows could have been."""
    low, high = summary.lowest_fmr, summary.highest_fmr
    return "n/a" if low is None or high is None else f"{low.value:.1f} %, or {high.value:.1f} %"


def _steps(summary: Summary) -> str:
    """How many, and which rows it was not the oracle that ended."""
    if summary.mean_iterations is None:
        return "n/a"
    others = [
        f"{what} {estimate.value:.1f} %"
        for what, estimate in (("by budget", summary.by_budget), ("stuck", summary.stuck))
        if estimate is not None and estimate.value
    ]
    return f"{summary.mean_iterations.value:.2f}" + (f", {', '.join(others)}" if others else "")
