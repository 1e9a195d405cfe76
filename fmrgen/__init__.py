"""Model-conditioned perturbed test sets as Hugging Face datasets, and Foundation Model-oriented Robustness."""

import importlib
import re
import warnings
from pathlib import Path
from typing import Any

# Libraries import tqdm, which then tells every notebook without ipywidgets; its bars are of text there, that is all.
warnings.filterwarnings("ignore", message="IProgress not found")

# Each public name and the module that has it, which is imported when the name is first used: torch takes seconds, and
# `fmrgen --help` must not wait for it. An app whose folder was deleted is still in the list.
_FOLDER = Path(__file__).parent
_LINE = re.compile(r"^from (fmrgen\.(apps\.\w+)?\S+) import (\w+)", re.MULTILINE)
_NAMES = _LINE.findall((_FOLDER / "__init__.pyi").read_text(encoding="utf-8"))
_MODULES = {name: module for module, app, name in _NAMES if (_FOLDER / app.replace(".", "/")).is_dir()}
__all__ = sorted(["__version__", *_MODULES])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("fmrgen")
    if name not in _MODULES:
        raise AttributeError(f"module 'fmrgen' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
