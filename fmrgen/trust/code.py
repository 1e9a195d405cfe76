"""Which code of a user's own a recipe runs: digested, so that a change of it is told."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel

from fmrgen.in_memory import InMemory
from fmrgen.trust.recipes import components_in


def code_sha256(recipe: BaseModel) -> dict[str, str]:
    """The sha256 of the file of each module that the components of a recipe name, once it is built, by the name of the
    module, and of the class of each object that was handed over; what has no source code to be found is left out."""
    found = {}
    for config in components_in(recipe):
        if isinstance(config, InMemory) and (digest := config.code_sha256()) is not None:
            found[config.target] = digest
        for reference in [config.kind, *config.code_it_runs()]:
            module, colon, _ = reference.partition(":")
            if colon and module.replace(".", "").isidentifier() and (file := _file_of(module)) is not None:
                found[module] = hashlib.sha256(file.read_bytes()).hexdigest()
    return dict(sorted(found.items()))


def changed_code(before: dict[str, str], now: dict[str, str]) -> str | None:
    """A line on modules whose code is not what it was; None where all is."""
    changed = [module for module, digest in before.items() if now.get(module, digest) != digest]
    if not changed:
        return None
    return f"the code of {', '.join(changed)} has changed since the split was begun, and may do something else now"


def _file_of(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # of __main__, too
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None and Path(spec.origin).is_file() else None
