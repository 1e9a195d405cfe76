"""A split for each combination of values: how figures depend on the choices in a recipe."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from fmrgen.errors import UserError
from fmrgen.files import parse_yaml
from fmrgen.jobs.compare import JobProgress, make_splits
from fmrgen.metrics.summary import Summary
from fmrgen.recipe.job import Recipe, load_recipe

_MOST_POINTS = 1000
_NOT_IN_NAMES = re.compile(r"[/\\:\s]")  # of folders


@dataclass(frozen=True)
class SweepResult:
    """The split of one combination of values in a sweep: these by their keys, its folder's name, its figures."""

    values: Mapping[str, Any]
    name: str
    summary: Summary


@dataclass(frozen=True)
class SweepPoint:
    """One combination: the values by their keys, the name of its folder, and its recipe."""

    values: Mapping[str, Any]
    name: str
    recipe: Recipe


def parse_grid(recipe: str | Path, overrides: Sequence[str]) -> list[SweepPoint]:
    """Return the combinations of `section.key=value,value,…`, all with all, in the order they are given.

    Args:
        recipe: a file or a shipped name.
        overrides: each a key with its values in YAML; one with a single value is a plain change.

    Returns:
        A point for each combination, its recipe checked.

    Raises:
        UserError: nothing varies, too much does, or a recipe is invalid.
    """
    fixed: list[str] = []
    varied: dict[str, list[Any]] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        values = parse_yaml(f"[{text}]", override) if equals else []
        if len(values) > 1:
            varied[key] = values
        else:
            fixed.append(override)
    if not varied:
        raise UserError("a sweep needs a key with several values, for example perturb.step_size=0.003,0.01,0.03")
    combinations = list(product(*varied.values()))
    if len(combinations) > _MOST_POINTS:
        raise UserError(f"{len(combinations)} combinations are too many; give fewer values")
    points = []
    for combination in combinations:
        values = dict(zip(varied, combination, strict=True))
        parts, changes = [], [*fixed]
        for key, value in values.items():
            parts.append(f"{key.rpartition('.')[2]}={value}")
            changes.append(f"{key}={_as_yaml(value)}")
        points.append(SweepPoint(values, _NOT_IN_NAMES.sub("_", ",".join(parts)), load_recipe(recipe, changes)))
    if len({point.name for point in points}) < len(points):
        raise UserError("two combinations have the same values; leave one out")
    return points


def _as_yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def sweep(
    points: Sequence[SweepPoint],
    output: str | Path,
    *,
    job_progress: JobProgress | None = None,
    on_note: Callable[[str], None] = lambda line: None,
) -> list[SweepResult]:
    """Make the split of each point in a folder of its own, or resume it.

    Runs on every process of a launch, as `generate` does.

    Args:
        points: the grid from `parse_grid`.
        output: the folder for the points' folders.
        job_progress: returns a progress callback for the recipe of a point.
        on_note: called with each note, one line.

    Returns:
        The figures of each point, in their order.

    Raises:
        UserError: what `generate` raises.
    """
    results = []
    for point in points:
        folder = Path(output) / point.name
        (summary,) = make_splits([point.recipe], folder, job_progress=job_progress, on_note=on_note)
        results.append(SweepResult(point.values, point.name, summary))
    return results
