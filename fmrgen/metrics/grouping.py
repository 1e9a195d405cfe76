"""Rows put into groups: by the values of a column, or by the bounds between which its numbers lie."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from fmrgen.errors import UserError

_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Grouping:
    """A column and its bounds; without bounds each value is a group."""

    column: str
    bounds: tuple[float, ...] = ()  # rising; a bound belongs to the group above it

    @classmethod
    def of_short_form(cls, text: str) -> "Grouping":
        """Return the grouping `COLUMN` or `COLUMN:BOUND,…`. Raises UserError if bounds do not rise."""
        column, colon, numbers = text.rpartition(":")
        try:
            bounds = tuple(float(number) for number in numbers.split(","))
        except ValueError:
            return cls(text)  # a colon may be part of a name
        if not colon:
            return cls(text)
        if not np.isfinite(bounds).all() or list(bounds) != sorted(set(bounds)):
            raise UserError(f"by: the bounds of {text} must be numbers that rise, as in {column}:30,60")
        return cls(column, bounds)

    def names(self, values: Sequence[Any]) -> np.ndarray:
        """Return the name of each value's group, strings [N]. Raises UserError if a value with bounds is no number."""
        return np.array([self._name(value) for value in values], dtype=object)

    def _name(self, value: Any) -> str:
        if value is None or value != value:  # NaN
            return _UNKNOWN
        if not self.bounds:
            return str(value)
        try:
            return self._ranges[bisect_right(self.bounds, float(value))]
        except (TypeError, ValueError):
            raise UserError(
                f"by: the column {self.column} holds {value!r}, which has no bounds; group it by its values"
            ) from None

    def groups(self, values: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return the rows of each group, bool [N] by its name: by their numbers, or in the order of their names."""
        names = self.names(values)
        order = sorted(set(names.tolist()))
        if self.bounds:
            order = [name for name in [*self._ranges, _UNKNOWN] if name in order]
        return {name: names == name for name in order}

    @cached_property
    def _ranges(self) -> list[str]:
        """The names of the groups between bounds, from the lowest."""
        bounds = [f"{bound:g}" for bound in self.bounds]
        between = [f"{low} to {high}" for low, high in pairwise(bounds)]
        return [f"below {bounds[0]}", *between, f"{bounds[-1]} and more"]
