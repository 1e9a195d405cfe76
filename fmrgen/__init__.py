"""Model-conditioned perturbed test sets as Hugging Face datasets, and Foundation Model-oriented Robustness."""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from fmrgen.internals import apps

if TYPE_CHECKING:
    from fmrgen.apps.explain.attributes import Attribute as Attribute
    from fmrgen.apps.explain.explain import explain as explain
    from fmrgen.apps.explain.random_change import RandomChange as RandomChange
    from fmrgen.apps.judging.judge import judge as judge
    from fmrgen.apps.pilot.init import init as init
    from fmrgen.apps.pilot.sparsify import sparsify as sparsify
    from fmrgen.apps.release.diff import diff as diff
    from fmrgen.apps.release.diff import diff_classifiers as diff_classifiers
    from fmrgen.apps.training.loop import train as train
    from fmrgen.apps.training.recipe import load_train_recipe as load_train_recipe
    from fmrgen.classifiers.base import Classifier as Classifier
    from fmrgen.config import ClassifierConfig as ClassifierConfig
    from fmrgen.config import ComponentConfig as ComponentConfig
    from fmrgen.engine.interfaces import Generator as Generator
    from fmrgen.engine.interfaces import Judgement as Judgement
    from fmrgen.engine.interfaces import Latents as Latents
    from fmrgen.engine.interfaces import Oracle as Oracle
    from fmrgen.engine.interfaces import Originals as Originals
    from fmrgen.engine.options import PerturbOptions as PerturbOptions
    from fmrgen.engine.perturb import perturb as perturb
    from fmrgen.errors import UserError as UserError
    from fmrgen.generators.base import GeneratorConfig as GeneratorConfig
    from fmrgen.jobs.batch import perturb_batch as perturb_batch
    from fmrgen.jobs.compare import compare as compare
    from fmrgen.jobs.evaluate import evaluate as evaluate
    from fmrgen.jobs.from_objects import generate as generate
    from fmrgen.jobs.show import show as show
    from fmrgen.jobs.verify import verify as verify
    from fmrgen.labels import Labels as Labels
    from fmrgen.metrics.summary import summarise as summarise
    from fmrgen.oracles.base import OracleConfig as OracleConfig
    from fmrgen.publish.push import push as push
    from fmrgen.recipe.job import Recipe as Recipe
    from fmrgen.recipe.job import load_recipe as load_recipe
    from fmrgen.recipe.objects import load_classifier as load_classifier
    from fmrgen.records import Example as Example
    from fmrgen.report.plots import figure as figure
    from fmrgen.report.write import write_report as write_report
    from fmrgen.results.evaluation import read_figures as read_figures
    from fmrgen.sources.base import RawExample as RawExample
    from fmrgen.sources.base import Source as Source
    from fmrgen.sources.base import SourceConfig as SourceConfig
    from fmrgen.split.open import open_split as open_split
    from fmrgen.weights.checkpoint import freeze as freeze

    __version__: str

# Libraries import tqdm, which then tells every notebook without ipywidgets; its bars are of text there, that is all.
warnings.filterwarnings("ignore", message="IProgress not found")

# Each public name and the module that has it, which is imported when the name is first used: torch takes seconds, and
# `fmrgen --help` must not wait for it.
_MODULES = {
    "Classifier": "fmrgen.classifiers.base",
    "ClassifierConfig": "fmrgen.config",
    "ComponentConfig": "fmrgen.config",
    "Example": "fmrgen.records",
    "Generator": "fmrgen.engine.interfaces",
    "GeneratorConfig": "fmrgen.generators.base",
    "Judgement": "fmrgen.engine.interfaces",
    "Labels": "fmrgen.labels",
    "Latents": "fmrgen.engine.interfaces",
    "Oracle": "fmrgen.engine.interfaces",
    "OracleConfig": "fmrgen.oracles.base",
    "Originals": "fmrgen.engine.interfaces",
    "PerturbOptions": "fmrgen.engine.options",
    "RawExample": "fmrgen.sources.base",
    "Recipe": "fmrgen.recipe.job",
    "Source": "fmrgen.sources.base",
    "SourceConfig": "fmrgen.sources.base",
    "UserError": "fmrgen.errors",
    "compare": "fmrgen.jobs.compare",
    "evaluate": "fmrgen.jobs.evaluate",
    "figure": "fmrgen.report.plots",
    "freeze": "fmrgen.weights.checkpoint",
    "generate": "fmrgen.jobs.from_objects",
    "load_classifier": "fmrgen.recipe.objects",
    "load_recipe": "fmrgen.recipe.job",
    "open_split": "fmrgen.split.open",
    "perturb": "fmrgen.engine.perturb",
    "perturb_batch": "fmrgen.jobs.batch",
    "push": "fmrgen.publish.push",
    "read_figures": "fmrgen.results.evaluation",
    "show": "fmrgen.jobs.show",
    "summarise": "fmrgen.metrics.summary",
    "verify": "fmrgen.jobs.verify",
    "write_report": "fmrgen.report.write",
}

for _app in apps():
    _MODULES |= _app.NAMES

__all__ = ["__version__", *_MODULES]


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
