"""The code that a job runs besides fmrgen's: the files of it, as far as they are a user's own, and their digests."""

import hashlib
import site
import sys
import sysconfig
from functools import cache
from importlib.metadata import distribution, packages_distributions
from importlib.util import find_spec
from modulefinder import ModuleFinder
from pathlib import Path

from pydantic import BaseModel

from fmrgen.config import InMemory, sections_in
from fmrgen.files import sha256_of


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


def own_files(module: str) -> dict[str, Path]:
    """Return the files of a module and of all modules that it imports, directly or not, by module.

    Installed packages and fmrgen itself are left out. A module without a file, such as a notebook's, has none.
    """
    files = _imported_by(module)
    path = _file_of(module)
    if path is not None:
        files[module] = path
    return files


@cache
def own_code_sha256() -> str:
    """Return the sha256 of fmrgen's own code, which in a checkout changes without the version."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)} {sha256_of(file)} ".encode())
    return digest.hexdigest()


def is_own(module: str) -> bool:
    """Return whether a loaded module is a user's own, and not an installed package's, Python's or fmrgen's."""
    if module.partition(".")[0] == "fmrgen":
        return False
    loaded = sys.modules.get(module)
    if module == "__main__" or loaded is None:
        return True
    path = getattr(loaded, "__file__", None)
    if path is None:  # a package without a file of its own; what Python has built in
        return module.partition(".")[0] not in sys.builtin_module_names and hasattr(loaded, "__path__")
    if any(folder in Path(path).parents for folder in _installed()):
        return False
    return not _has_wheel(module.partition(".")[0])


@cache
def _has_wheel(name: str) -> bool:
    """Return whether a top-level module was installed elsewhere, such as on a PYTHONPATH, and not as editable."""
    for project in packages_distributions().get(name, []):
        read = distribution(project).read_text
        if read("RECORD") is not None and '"editable": true' not in (read("direct_url.json") or ""):
            return True
    return False


@cache
def _installed() -> frozenset[Path]:
    paths = [*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()]
    folders = {Path(path) for path in paths}
    folders.add(Path(sysconfig.get_path("stdlib")) / "lib-dynload")
    return frozenset(folders - {Path(sys.prefix), Path(sys.base_prefix)})


def _imported_by(module: str) -> dict[str, Path]:
    """Return the files of the modules that one imports, directly or not, without those that are installed."""
    folders = [path for path in sys.path if Path(path or ".").is_dir() and Path(path) not in _installed()]
    finder = ModuleFinder(folders, excludes=["fmrgen"])
    try:
        finder.import_hook(module)
    except Exception:  # it is installed itself, or its syntax can't be parsed
        return {}
    files = {name: vars(entry)["__file__"] for name, entry in finder.modules.items()}
    return {name: Path(path) for name, path in files.items() if path is not None}


def _file_of(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # also for __main__
        return None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    return path if path.is_file() else None
