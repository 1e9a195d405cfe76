"""The figures of one split, as the end of a job shows them: the four main ones and what FMR depends on, or all."""

from fmrgen.metrics.cautions import tightness
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import BY_FIELD, MAIN_METRICS, METRICS, TOO_FEW, Metric, Summary
from fmrgen.report.report import Table


def summary_table(summary: Summary, *, every: bool = False) -> Table:
    """Return the main figures of a split's own classifier with 95 % intervals; with `every` all metrics that it has."""
    rows = [
        *main_lines(summary),  # and below them what FMR may depend on
        ["FMR is", tightness(summary).partition(":")[0], ""],
        ["FMR if all invalid rows were wrong, or right", _ends(summary), ""],
        _line(summary, BY_FIELD["guided_less_random"], "n/a, no row has a control"),
        ["steps of valid rows", _steps(summary), _interval(summary.mean_iterations)],
    ]
    if every:
        shown = [metric for metric in METRICS if summary[metric] is not None or metric.compared]
        rows = [["rows", str(summary.rows), ""], *(_line(summary, metric) for metric in shown)]
    return Table(["", "", "95 % interval"], rows)


def main_lines(summary: Summary) -> list[list[str]]:
    """Return VR, SA, PA and FMR, each with its interval."""
    return [
        ["valid rows (VR)", f"{summary.valid_rows} of {summary.rows}", _interval(summary.validation_rate)],
        *(_line(summary, metric) for metric in MAIN_METRICS),
    ]


def _line(summary: Summary, metric: Metric, missing: str = "n/a") -> list[str]:
    """Return the row of a metric; `missing` stands in place of a figure that the split does not have."""
    estimate = summary[metric]
    if estimate is None:
        return [metric.title, missing, ""]
    interval = TOO_FEW if summary.has_too_few_rows(metric) else _interval(estimate)
    return [metric.title, f"{estimate.value:z.2f}{metric.unit}", interval]


def _interval(estimate: Estimate | None) -> str:
    """Return `11.1 – 15.3`, or nothing if there is no interval."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:z.1f} – {estimate.high:z.1f}"


def _ends(summary: Summary) -> str:
    """Return FMR if all invalid rows were wrong, and if all were right."""
    low, high = summary.lowest_fmr, summary.highest_fmr
    if low is None or high is None:
        return "n/a"
    return f"{low.value:.1f} %, or {high.value:.1f} %"


def _steps(summary: Summary) -> str:
    """Return the mean number of steps, and the shares of rows that ended for another reason than the oracle's."""
    if summary.mean_iterations is None:
        return "n/a"
    text = f"{summary.mean_iterations.value:.2f}"
    for reason, share in {"by budget": summary.by_budget, "stuck": summary.stuck}.items():
        if share is not None and share.value:
            text += f", {reason} {share.value:.1f} %"
    return text
