"""Model-conditioned perturbed test sets as Hugging Face datasets, and Foundation Model-oriented Robustness."""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from fmrgen.internals import apps

if TYPE_CHECKING:
    from fmrgen.apps.explain.attributes import Attribute as Attribute
    from fmrgen.apps.explain.explain import Explanation as Explanation
    from fmrgen.apps.explain.explain import explain as explain
    from fmrgen.apps.explain.random_change import RandomChange as RandomChange
    from fmrgen.apps.judging.judge import Judged as Judged
    from fmrgen.apps.judging.judge import judge as judge
    from fmrgen.apps.pilot.init import init as init
    from fmrgen.apps.pilot.sparsify import SparseMask as SparseMask
    from fmrgen.apps.pilot.sparsify import sparsify as sparsify
    from fmrgen.apps.release.diff import diff as diff
    from fmrgen.apps.release.outcome import Diff as Diff
    from fmrgen.apps.training.loop import train as train
    from fmrgen.apps.training.recipe import TrainRecipe as TrainRecipe
    from fmrgen.apps.training.recipe import load_train_recipe as load_train_recipe
    from fmrgen.classifiers.base import Classifier as Classifier
    from fmrgen.config import ClassifierConfig as ClassifierConfig
    from fmrgen.config import ComponentConfig as ComponentConfig
    from fmrgen.engine.interfaces import Generator as Generator
    from fmrgen.engine.interfaces import Judgement as Judgement
    from fmrgen.engine.interfaces import Latents as Latents
    from fmrgen.engine.interfaces import Oracle as Oracle
    from fmrgen.engine.interfaces import Originals as Originals
    from fmrgen.engine.options import AttackOptions as AttackOptions
    from fmrgen.engine.options import PerturbOptions as PerturbOptions
    from fmrgen.engine.perturb import perturb as perturb
    from fmrgen.errors import UserError as UserError
    from fmrgen.generators.base import GeneratorConfig as GeneratorConfig
    from fmrgen.jobs.batch import perturb_batch as perturb_batch
    from fmrgen.jobs.compare import compare as compare
    from fmrgen.jobs.evaluate import evaluate as evaluate
    from fmrgen.jobs.from_objects import generate as generate
    from fmrgen.jobs.show import show as show
    from fmrgen.jobs.verify import Verification as Verification
    from fmrgen.jobs.verify import verify as verify
    from fmrgen.labels import Labels as Labels
    from fmrgen.metrics.intervals import Estimate as Estimate
    from fmrgen.metrics.intervals import paired_difference as paired_difference
    from fmrgen.metrics.intervals import proportion as proportion
    from fmrgen.metrics.summary import Summary as Summary
    from fmrgen.metrics.summary import summarise as summarise
    from fmrgen.oracles.base import OracleConfig as OracleConfig
    from fmrgen.publish.push import push as push
    from fmrgen.recipe.build import Components as Components
    from fmrgen.recipe.job import Recipe as Recipe
    from fmrgen.recipe.job import load_recipe as load_recipe
    from fmrgen.recipe.objects import load_classifier as load_classifier
    from fmrgen.recipe.objects import load_oracle as load_oracle
    from fmrgen.records import AttackRecord as AttackRecord
    from fmrgen.records import Example as Example
    from fmrgen.records import Perturbed as Perturbed
    from fmrgen.records import StopReason as StopReason
    from fmrgen.report.plots import figure as figure
    from fmrgen.report.report import Report as Report
    from fmrgen.report.write import write_report as write_report
    from fmrgen.results.evaluation import Evaluation as Evaluation
    from fmrgen.results.evaluation import Result as Result
    from fmrgen.results.evaluation import read_figures as read_figures
    from fmrgen.sources.base import RawExample as RawExample
    from fmrgen.sources.base import Source as Source
    from fmrgen.sources.base import SourceConfig as SourceConfig
    from fmrgen.split.generated import GeneratedSplit as GeneratedSplit
    from fmrgen.split.open import open_split as open_split
    from fmrgen.split.rows import Split as Split
    from fmrgen.weights.checkpoint import freeze as freeze

    __version__: str

# Libraries import tqdm, which then tells every notebook without ipywidgets; its bars are of text there, that is all.
warnings.filterwarnings("ignore", message="IProgress not found")

# Each public name and the module that has it, which is imported when the name is first used: torch takes seconds, and
# `fmrgen --help` must not wait for it.
_MODULES = {
    "AttackOptions": "fmrgen.engine.options",
    "AttackRecord": "fmrgen.records",
    "Classifier": "fmrgen.classifiers.base",
    "ClassifierConfig": "fmrgen.config",
    "ComponentConfig": "fmrgen.config",
    "Components": "fmrgen.recipe.build",
    "Estimate": "fmrgen.metrics.intervals",
    "Evaluation": "fmrgen.results.evaluation",
    "Example": "fmrgen.records",
    "GeneratedSplit": "fmrgen.split.generated",
    "Generator": "fmrgen.engine.interfaces",
    "GeneratorConfig": "fmrgen.generators.base",
    "Judgement": "fmrgen.engine.interfaces",
    "Labels": "fmrgen.labels",
    "Latents": "fmrgen.engine.interfaces",
    "Oracle": "fmrgen.engine.interfaces",
    "OracleConfig": "fmrgen.oracles.base",
    "Originals": "fmrgen.engine.interfaces",
    "PerturbOptions": "fmrgen.engine.options",
    "Perturbed": "fmrgen.records",
    "RawExample": "fmrgen.sources.base",
    "Recipe": "fmrgen.recipe.job",
    "Report": "fmrgen.report.report",
    "Result": "fmrgen.results.evaluation",
    "Source": "fmrgen.sources.base",
    "SourceConfig": "fmrgen.sources.base",
    "Split": "fmrgen.split.rows",
    "StopReason": "fmrgen.records",
    "Summary": "fmrgen.metrics.summary",
    "UserError": "fmrgen.errors",
    "Verification": "fmrgen.jobs.verify",
    "compare": "fmrgen.jobs.compare",
    "evaluate": "fmrgen.jobs.evaluate",
    "figure": "fmrgen.report.plots",
    "freeze": "fmrgen.weights.checkpoint",
    "generate": "fmrgen.jobs.from_objects",
    "load_classifier": "fmrgen.recipe.objects",
    "load_oracle": "fmrgen.recipe.objects",
    "load_recipe": "fmrgen.recipe.job",
    "open_split": "fmrgen.split.open",
    "paired_difference": "fmrgen.metrics.intervals",
    "perturb": "fmrgen.engine.perturb",
    "perturb_batch": "fmrgen.jobs.batch",
    "proportion": "fmrgen.metrics.intervals",
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
