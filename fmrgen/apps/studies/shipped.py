"""The shipped studies, by their names."""

import math
from typing import NamedTuple

from fmrgen.recipe.files import read_recipe, shipped_recipes

SHIPPED = ("paper/",)  # how the names of studies begin


class StudyTitle(NamedTuple):
    """A study's title, and about how many minutes it takes at small scale; None if it has no small scale."""

    title: str
    minutes: int | None


def describe_studies() -> dict[str, StudyTitle]:
    """Return every shipped study by its name, in the order of the paper's tables, our own last."""
    names = [name for name in shipped_recipes() if name.startswith(SHIPPED)]
    studies = {}
    for name in sorted(names, key=_table_number):
        tree = read_recipe(name)
        studies[name] = StudyTitle(tree["title"], tree.get("small", {}).get("minutes"))
    return studies


def _table_number(study: str) -> float:
    """Return the number of the paper's table that a study is about; infinity for our own."""
    if not study.startswith("paper/"):
        return math.inf
    return int(study.rpartition("-")[2])
