"""Objects by import path, `package.module:Name`, also from the folder that a command is called in."""

import importlib
import importlib.util
import os
import sys
from typing import Any

from fmrgen.errors import UserError


def import_object(path: str) -> Any:
    """The object at `package.module:Name`. Raises UserError where there is none."""
    module_name, _, name = path.partition(":")
    try:
        # A console script does not see the folder that it is called from. Only what is nowhere else is sought there:
        # from then on libraries find in it what they can do without.
        if importlib.util.find_spec(module_name.partition(".")[0]) is None and os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, TypeError, ValueError) as error:
        raise UserError(f"{path} can't be imported: {error}") from None
    except AttributeError:
        raise UserError(f"{path}: the module has no {name}") from None
