"""Model-conditioned perturbed test sets as Hugging Face datasets, and Foundation Model-oriented Robustness."""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmrgen.classifiers.base import Classifier
    from fmrgen.config import ClassifierConfig, ComponentConfig
    from fmrgen.engine.perturb import perturb
    from fmrgen.errors import UserError
    from fmrgen.evaluation.evaluate import evaluate, transfer
    from fmrgen.evaluation.results import read_figures
    from fmrgen.evaluation.summarise import Evaluation
    from fmrgen.generators.base import Generator, GeneratorConfig, Latents
    from fmrgen.hub.push import Pushed, push
    from fmrgen.jobs.export import export
    from fmrgen.jobs.generate import generate
    from fmrgen.jobs.merge import merge
    from fmrgen.jobs.verify import verify
    from fmrgen.jobs.verify_files import verify_files
    from fmrgen.oracles.base import Judgement, Oracle
    from fmrgen.recipe import Recipe, load_recipe
    from fmrgen.records import Example, Perturbed
    from fmrgen.report.show import show
    from fmrgen.report.write import write_report
    from fmrgen.sources.base import RawExample, Source, SourceConfig

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
    "ClassifierConfig": "fmrgen.config",
    "ComponentConfig": "fmrgen.config",
    "Evaluation": "fmrgen.evaluation.summarise",
    "Example": "fmrgen.records",
    "Generator": "fmrgen.generators.base",
    "GeneratorConfig": "fmrgen.generators.base",
    "Judgement": "fmrgen.oracles.base",
    "Latents": "fmrgen.generators.base",
    "Oracle": "fmrgen.oracles.base",
    "Perturbed": "fmrgen.records",
    "Pushed": "fmrgen.hub.push",
    "RawExample": "fmrgen.sources.base",
    "Recipe": "fmrgen.recipe",
    "Source": "fmrgen.sources.base",
    "SourceConfig": "fmrgen.sources.base",
    "UserError": "fmrgen.errors",
    "evaluate": "fmrgen.evaluation.evaluate",
    "export": "fmrgen.jobs.export",
    "generate": "fmrgen.jobs.generate",
    "load_recipe": "fmrgen.recipe",
    "merge": "fmrgen.jobs.merge",
    "perturb": "fmrgen.engine.perturb",
    "push": "fmrgen.hub.push",
    "read_figures": "fmrgen.evaluation.results",
    "show": "fmrgen.report.show",
    "transfer": "fmrgen.evaluation.evaluate",
    "verify": "fmrgen.jobs.verify",
    "verify_files": "fmrgen.jobs.verify_files",
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
