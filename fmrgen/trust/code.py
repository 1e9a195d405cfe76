"""Which code a job runs, a user's own and fmrgen's: digested, so that a change of it is reported."""

import hashlib
import sys
import sysconfig
from importlib.util import find_spec
from modulefinder import ModuleFinder
from pathlib import Path

from pydantic import BaseModel

from fmrgen.config import InMemory
from fmrgen.files import sha256_of
from fmrgen.trust.recipes import components_in


def code_sha256(recipe: BaseModel) -> dict[str, str]:
    """The sha256 of the file of each module that the components of a recipe name, once it is built, and of each that
    these import and that is not installed, by the name of the module; and of the class of each object that was handed
    over. What has no source code to be found is left out.
    """
    found: dict[str, str] = {}
    for config in components_in(recipe):
        if isinstance(config, InMemory) and (digest := config.code_sha256()) is not None:
            found[config.target] = digest
        references = [reference.partition(":") for reference in (config.kind, *config.code_it_runs())]
        for module in {module for module, colon, _ in references if colon} - found.keys():
            if module.replace(".", "").isidentifier():
                files = {module: _file_of(module), **_imported_by(module)}
                found |= {name: sha256_of(file) for name, file in files.items() if file is not None}
    return dict(sorted(found.items()))


def runs_code_of_others(config: BaseModel) -> bool:
    """Whether a section stands for an object, or runs code, that does not come with fmrgen."""
    return any(":" in one.kind or isinstance(one, InMemory) or one.code_it_runs() for one in components_in(config))


def own_code_sha256() -> str:
    """The sha256 of fmrgen's own code, which in a checkout changes without the version."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)} {sha256_of(file)} ".encode())
    return digest.hexdigest()


def changed_code(before: dict[str, str], now: dict[str, str]) -> str | None:
    """A line on modules whose code is not what it was; None where all is."""
    changed = [module for module, digest in before.items() if now.get(module, digest) != digest]
    if not changed:
        return None
    return f"the code of {', '.join(changed)} has changed since the split was begun, and may do something else now"


def _imported_by(module: str) -> dict[str, Path]:
    """The files of the modules that one imports, and they in turn, by their names, but for those that are installed."""
    installed = {Path(path) for path in sysconfig.get_paths().values()}
    installed |= {Path(sysconfig.get_path("stdlib")) / "lib-dynload"}
    own = [path for path in sys.path if Path(path or ".").is_dir() and Path(path) not in installed]
    finder = ModuleFinder(own, excludes=["fmrgen"])
    try:
        finder.import_hook(module)
    except Exception:  # installed itself, or of no syntax that can be read
        return {}
    files: dict[str, str | None] = {name: vars(found)["__file__"] for name, found in finder.modules.items()}
    return {name: Path(file) for name, file in files.items() if file is not None}


def _file_of(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # of __main__, too
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None and Path(spec.origin).is_file() else None
