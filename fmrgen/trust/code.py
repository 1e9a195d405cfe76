"""Digests of the code that a job runs besides fmrgen's, so that a change of it is noticed."""

from pydantic import BaseModel

from fmrgen.config import InMemory, sections_in
from fmrgen.files import sha256_of
from fmrgen.trust.source_code import own_files


def code_sha256(recipe: BaseModel) -> dict[str, str]:
    """Return the sha256 of each file of source code that the components of a recipe come from, by module.

    These are the modules that a recipe names, once it is built, those of objects that were handed over, and those of
    a user's own that these import. Modules whose source code can't be found are left out.
    """
    digests: dict[str, str] = {}
    for _, config in sections_in(recipe):
        if isinstance(config, InMemory):
            digests |= config.code
        for reference in (config.kind, *config.code_it_runs()):
            module, colon, _ = reference.partition(":")
            if colon and module not in digests and module.replace(".", "").isidentifier():
                digests |= {name: sha256_of(path) for name, path in own_files(module).items()}
    return dict(sorted(digests.items()))


def runs_code_of_others(config: BaseModel) -> bool:
    """Return whether a section stands for an object, or runs code, that does not come with fmrgen."""
    parts = [part for _, part in sections_in(config)]
    return any(":" in part.kind or isinstance(part, InMemory) or part.code_it_runs() for part in parts)


def changed_code(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return the modules whose code has changed."""
    return [module for module, digest in before.items() if now.get(module, digest) != digest]
