"""Which apps there are: folders of `fmrgen/apps`, each of which can be deleted."""

import pkgutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

_FOLDER = Path(__file__).parent / "apps"


def apps() -> list[ModuleType]:
    """Return the packages of the apps that are installed, by name.

    Each has `NAMES`, the public names that it adds to `fmrgen` and their modules; it may have `RECIPES`, what its
    recipes' names begin with and which of its names loads them, and `RECIPE_OF_IMAGES`, the import path of what
    chooses a recipe for labelled images, and `REPORTS`, see `report_readers`; its module `commands` has `COMMANDS`.
    """
    return [import_module(f"fmrgen.apps.{app.name}") for app in pkgutil.iter_modules([str(_FOLDER)])]


def report_readers() -> dict[str, tuple[str, Callable[[Path], Any]]]:
    """Return what reads the reports of apps from their JSON files.

    By the beginning of a file's `schema`: the part of a dossier that the report belongs to, `changes` or `failures`,
    and a function from its path to the `Report`.
    """
    readers = {}
    for app in apps():
        for schema, (part, place) in getattr(app, "REPORTS", {}).items():
            module, _, name = place.partition(":")
            readers[schema] = (part, getattr(import_module(module), name))
    return readers
