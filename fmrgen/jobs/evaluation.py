"""What `evaluate` returns: the figures, as tables for a terminal, a notebook and pandas, and what they were made of."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fmrgen.errors import UserError, unknown_message
from fmrgen.evaluation.results import EvaluationData
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import METRICS, Summary

if TYPE_CHECKING:
    from pandas import DataFrame

    from fmrgen.report.plot import Plot

_IN_SHORT = ("fmr", "standard_accuracy", "perturbed_accuracy", "validation_rate")


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation(EvaluationData):
    """The figures with what they were made of, as tables, frames and pictures."""

    def to_frame(self) -> "DataFrame":
        """The figures as pandas has them: a row for each split and classifier.

        Returns:
            Columns `split`, `classifier`, `own` (whether the split was made for it), `rows`, `valid_rows`, and for each
            figure three: its value, `…_low` and `…_high`, the ends of its 95 % interval. Rates are in percent; a figure
            that is not known is NaN.
        """
        from pandas import DataFrame

        return DataFrame(
            [
                {"split": r.split, "classifier": r.classifier, "own": r.conditioned, **_figures(r.total)}
                for r in self.results
            ]
        )

    def per_class(self) -> "DataFrame":
        """`to_frame`, with a row for each split, classifier and class, whose name is in the column `class`."""
        from pandas import DataFrame

        names = {split.name: split.class_names for split in self.splits}
        return DataFrame(
            [
                {
                    "split": r.split,
                    "classifier": r.classifier,
                    "own": r.conditioned,
                    "class": name,
                    **_figures(summary),
                }
                for r in self.results
                for name, summary in zip(names[r.split], r.classes, strict=True)
            ]
        )

    def per_step(self) -> "DataFrame":
        """What a smaller budget would have given, for each split's own classifier.

        Returns:
            Columns `split`, `budget`, and `perturbed_accuracy` and `fmr` with their intervals; no rows for splits that
            keep no steps.
        """
        from pandas import DataFrame

        wanted = ("perturbed_accuracy", "fmr")
        rows = [
            {"split": split.name, "budget": at.budget, **_ends({name: getattr(at, name) for name in wanted})}
            for split in self.splits
            for at in (split.steps.budgets if split.steps else ())
        ]
        return DataFrame(rows, columns=["split", "budget", *_ends(dict.fromkeys(wanted))])

    def figure(self, name: str) -> "Plot":
        """One of the report's plots, as a figure of matplotlib to go on with.

        Args:
            name: `fmr`, `accuracy`, `families`, `transfer`, `iterations`, `classes`, `models`, and of splits that
                keep their steps `budgets`, `thresholds`, `failures` and `classes-by-budget`.

        Returns:
            The figure; `save("fmr.pdf")` writes it, its fonts embedded.

        Raises:
            UserError: there is no plot of that name, or these figures do not allow it.
        """
        from fmrgen.report.plots import NEEDS, all_plots

        plots = all_plots(self)
        if name not in plots and name in NEEDS:
            raise UserError(f"figure {name}: needs {NEEDS[name]}; choose from {', '.join(plots)}")
        if name not in plots:
            raise UserError(unknown_message(f"figure {name}", name, plots))
        return plots[name]()

    def __repr__(self) -> str:
        return f"{self._in_short().to_string(index=False)}\n{self._reading()}"

    def _repr_html_(self) -> str:
        return f"{self._in_short().to_html(index=False, border=0)}<p>{self._reading()}</p>"

    def _reading(self) -> str:
        marked = any(result.conditioned for result in self.results)
        return "percent, with 95 % intervals" + ("; ◆ the classifier that the split was made for" if marked else "")

    def _in_short(self) -> "DataFrame":
        from pandas import DataFrame

        known = [
            metric
            for field in _IN_SHORT
            for metric in METRICS
            if metric.field == field and any(result.total[metric] for result in self.results)
        ]
        return DataFrame(
            [
                {
                    "split": result.split,
                    "classifier": result.classifier + (" ◆" if result.conditioned else ""),
                    **{metric.name: result.total.text_of(metric) for metric in known},
                }
                for result in self.results
            ]
        )


def _figures(summary: Summary) -> dict[str, Any]:
    figures = {metric.field: summary[metric] for metric in METRICS}
    return {"rows": summary.rows, "valid_rows": summary.valid_rows, **_ends(figures)}


def _ends(estimates: dict[str, Estimate | None]) -> dict[str, float]:
    """Each estimate under its name, and the ends of its interval beside it."""
    nan = float("nan")
    found = {}
    for name, estimate in estimates.items():
        found[name] = nan if estimate is None else estimate.value
        for end in ("low", "high"):
            value = None if estimate is None else getattr(estimate, end)
            found[f"{name}_{end}"] = nan if value is None else value
    return found
