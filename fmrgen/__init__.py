"""Model-conditioned perturbed test sets as Hugging Face datasets, and Foundation Model-oriented Robustness."""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmrgen.classifiers.base import Classifier
    from fmrgen.errors import UserError
    from fmrgen.evaluate import evaluate, transfer
    from fmrgen.evaluation.figures import read_figures
    from fmrgen.evaluation.results import Evaluation
    from fmrgen.export import export
    from fmrgen.generate import generate
    from fmrgen.generators.base import Generator, GeneratorConfig, Latents
    from fmrgen.merge import merge
    from fmrgen.oracles.base import Judgement, Oracle
    from fmrgen.perturb import perturb
    from fmrgen.publish import Pushed, push
    from fmrgen.recipe import Recipe, load_recipe
    from fmrgen.report.show import show
    from fmrgen.report.write import write_report
    from fmrgen.rows import Example, Perturbed
    from fmrgen.sections import ClassifierConfig, ComponentConfig
    from fmrgen.sources.base import RawExample, Source, SourceConfig
    from fmrgen.verify import verify
    from fmrgen.verify_files import verify_files

__all__ = [
    "Classifier",
    "ClassifierConfig",
    "ComponentConfig",
    "Evaluation",
    "Example",
    "Generator",
    "GeneratorConfig",
    "Judgement",
    "Latents",
    "Oracle",
    "Perturbed",
    "Pushed",
    "RawExample",
    "Recipe",
    "Source",
    "SourceConfig",
    "UserError",
    "evaluate",
    "export",
    "generate",
    "load_recipe",
    "merge",
    "perturb",
    "push",
    "read_figures",
    "show",
    "transfer",
    "verify",
    "verify_files",
    "write_report",
]

_HOME = {
    "Classifier": "fmrgen.classifiers.base",
    "ClassifierConfig": "fmrgen.sections",
    "ComponentConfig": "fmrgen.sections",
    "Evaluation": "fmrgen.evaluation.results",
    "Example": "fmrgen.rows",
    "Generator": "fmrgen.generators.base",
    "GeneratorConfig": "fmrgen.generators.base",
    "Judgement": "fmrgen.oracles.base",
    "Latents": "fmrgen.generators.base",
    "Oracle": "fmrgen.oracles.base",
    "Perturbed": "fmrgen.rows",
    "Pushed": "fmrgen.publish",
    "RawExample": "fmrgen.sources.base",
    "Recipe": "fmrgen.recipe",
    "Source": "fmrgen.sources.base",
    "SourceConfig": "fmrgen.sources.base",
    "UserError": "fmrgen.errors",
    "evaluate": "fmrgen.evaluate",
    "export": "fmrgen.export",
    "generate": "fmrgen.generate",
    "load_recipe": "fmrgen.recipe",
    "merge": "fmrgen.merge",
    "perturb": "fmrgen.perturb",
    "push": "fmrgen.publish",
    "read_figures": "fmrgen.evaluation.figures",
    "show": "fmrgen.report.show",
    "transfer": "fmrgen.evaluate",
    "verify": "fmrgen.verify",
    "verify_files": "fmrgen.verify_files",
    "write_report": "fmrgen.report.write",
}


class _PublicApi(ModuleType):
    """Imports each name when it is first used: torch takes seconds, and `fmrgen --help` must not wait for it.

    Some functions share their module's name. Importing a submodule sets it as an attribute here; the function is set
    in its stead, so that `fmrgen.perturb` is the same thing whatever was imported before.
    """

    def __getattr__(self, name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'fmrgen' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOME[name]), name)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in _HOME:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _PublicApi
