"""The splits of a sweep over values of a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fmrgen.metrics.summary import Summary


@dataclass(frozen=True)
class SweepResult:
    """The split of one combination of values in a sweep: these by their keys, its folder's name, its figures."""

    values: Mapping[str, Any]
    name: str
    summary: Summary
