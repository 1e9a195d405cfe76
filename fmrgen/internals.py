"""Which apps there are: folders of `fmrgen/apps`, each of which can be deleted."""

import pkgutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

_FOLDER = Path(__file__).parent / "apps"


def apps() -> list[ModuleType]:
    """Return the packages of the apps that are installed, by name.

    Each may have `RECIPES`, what its recipes' names begin with and which public name loads them; its module `commands`
    has `COMMANDS`.
    """
    return [import_module(f"fmrgen.apps.{app.name}") for app in pkgutil.iter_modules([str(_FOLDER)])]
