"""Objects by import path, `package.module:Name`, also from the folder that a command is called in."""

import importlib
import os
import sys
from typing import Any

from fmrgen.errors import UserError


def import_object(path: str) -> Any:
    """The object at `package.module:Name`. Raises UserError where there is none."""
    module_name, _, name = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a console script does not see the folder that it is called from
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, TypeError, ValueError) as error:
        raise UserError(f"{path} can't be imported: {error}") from None
    except AttributeError:
        raise UserError(f"{path}: the module has no {name}") from None
