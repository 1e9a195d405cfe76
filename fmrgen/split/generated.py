"""A split that was just made: its reference, and its figures."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from fmrgen.metrics.summary import BY_FIELD, Summary
from fmrgen.split.reference import parse_reference

if TYPE_CHECKING:
    from datasets import Dataset

_SHOWN = (
    *("standard_accuracy", "perturbed_accuracy", "validation_rate", "fmr"),
    *("lowest_fmr", "highest_fmr", "mean_iterations"),
)


class GeneratedSplit(str):
    """The reference `FOLDER:CONFIG/SPLIT` of a split, for everything that takes one, with its figures.

    Attributes:
        summary: SA, PA, VR, FMR and the like, in percent, with 95 % intervals.
    """

    summary: Summary

    @classmethod
    def of(cls, folder: str | Path, config: str, split: str, summary: Summary) -> "GeneratedSplit":
        """Return the split `config`/`split` in a dataset folder."""
        made = cls(f"{folder}:{config}/{split}")
        made.summary = summary
        return made

    def load(self) -> "Dataset":
        """Its rows, by `datasets.load_dataset`."""
        from datasets import load_dataset

        folder, _, config, split = parse_reference(self)
        return load_dataset(folder, config, split=split)

    def __str__(self) -> str:
        """Its figures, for `print`."""
        figures = self._figures()
        width = max([len(name) for name, _ in figures], default=0)
        lines = [f"  {name:<{width}}  {figure}" for name, figure in figures]
        return "\n".join([self._counts(), *lines])

    __repr__ = __str__

    def __format__(self, format_spec: str) -> str:
        """Return the reference alone, so that `f"fmrgen verify {split}"` is a command."""
        return format(str.__str__(self), format_spec)

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{name}</td><td>{figure}</td></tr>" for name, figure in self._figures())
        return f"<p>{escape(self._counts())}</p><table>{rows}</table>"

    def _counts(self) -> str:
        return f"{self}: {self.summary.rows} rows, {self.summary.valid_rows} valid"

    def _figures(self) -> list[tuple[str, str]]:
        figures = []
        for metric in map(BY_FIELD.__getitem__, _SHOWN):
            if self.summary[metric] is not None:
                value, _, interval = self.summary.text_of(metric).partition(" ")
                figures.append((metric.name, f"{value}{metric.unit} {interval}".rstrip()))
        return figures
