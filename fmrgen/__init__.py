"""Model-conditioned perturbed test sets as Hugging Face datasets, and Foundation Model-oriented Robustness."""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from fmrgen.evaluation.maite import MaiteDataset as MaiteDataset
    from fmrgen.evaluation.maite import MaiteModel as MaiteModel
    from fmrgen.evaluation.maite import classifier_of_maite as classifier_of_maite
    from fmrgen.failures.attributes import Attribute as Attribute
    from fmrgen.failures.explain import Explanation as Explanation
    from fmrgen.failures.explain import explain as explain
    from fmrgen.generators.base import GeneratorConfig as GeneratorConfig
    from fmrgen.jobs.batch import PerturbedBatch as PerturbedBatch
    from fmrgen.jobs.batch import perturb_batch as perturb_batch
    from fmrgen.jobs.evaluate import AnySplit as AnySplit
    from fmrgen.jobs.evaluate import evaluate as evaluate
    from fmrgen.jobs.evaluate import transfer as transfer
    from fmrgen.jobs.export import export as export
    from fmrgen.jobs.from_objects import generate as generate
    from fmrgen.jobs.inspect import inspect as inspect
    from fmrgen.jobs.merge import merge as merge
    from fmrgen.jobs.sparsify import SparseMask as SparseMask
    from fmrgen.jobs.sparsify import sparsify as sparsify
    from fmrgen.jobs.verify import Verification as Verification
    from fmrgen.jobs.verify import verify as verify
    from fmrgen.jobs.verify_files import FilesVerification as FilesVerification
    from fmrgen.jobs.verify_files import verify_files as verify_files
    from fmrgen.judging.judge import Judged as Judged
    from fmrgen.judging.judge import judge as judge
    from fmrgen.labels import Labels as Labels
    from fmrgen.metrics.intervals import Estimate as Estimate
    from fmrgen.metrics.sequential_test import Gate as Gate
    from fmrgen.metrics.summary import Summary as Summary
    from fmrgen.metrics.summary import summarise as summarise
    from fmrgen.oracles.base import OracleConfig as OracleConfig
    from fmrgen.publish.push import Pushed as Pushed
    from fmrgen.publish.push import push as push
    from fmrgen.recipe.job import Recipe as Recipe
    from fmrgen.recipe.job import load_recipe as load_recipe
    from fmrgen.recipe.objects import AnyClassifier as AnyClassifier
    from fmrgen.recipe.objects import AnyGenerator as AnyGenerator
    from fmrgen.recipe.objects import AnyOracle as AnyOracle
    from fmrgen.recipe.objects import load_classifier as load_classifier
    from fmrgen.recipe.objects import load_oracle as load_oracle
    from fmrgen.records import Example as Example
    from fmrgen.records import Perturbed as Perturbed
    from fmrgen.records import StopReason as StopReason
    from fmrgen.report.plot import Plot as Plot
    from fmrgen.report.plots import figure as figure
    from fmrgen.report.show import show as show
    from fmrgen.report.write import write_report as write_report
    from fmrgen.results.evaluation import Evaluation as Evaluation
    from fmrgen.results.evaluation import read_figures as read_figures
    from fmrgen.sources.base import RawExample as RawExample
    from fmrgen.sources.base import Source as Source
    from fmrgen.sources.base import SourceConfig as SourceConfig
    from fmrgen.storage.generated import GeneratedSplit as GeneratedSplit
    from fmrgen.storage.open import OpenedSplit as OpenedSplit
    from fmrgen.storage.open import open_split as open_split
    from fmrgen.studies.compare import compare as compare
    from fmrgen.studies.diff import Diff as Diff
    from fmrgen.studies.diff import diff as diff
    from fmrgen.studies.gate import gate as gate
    from fmrgen.studies.gate import gate_on_own_splits as gate_on_own_splits
    from fmrgen.studies.orders import Agreement as Agreement
    from fmrgen.studies.orders import agreement as agreement
    from fmrgen.studies.sweep import sweep as sweep
    from fmrgen.training.loop import train as train
    from fmrgen.training.recipe import TrainRecipe as TrainRecipe
    from fmrgen.training.recipe import load_train_recipe as load_train_recipe
    from fmrgen.weights.checkpoint import freeze as freeze

    __version__: str

# Libraries import tqdm, which then tells every notebook without ipywidgets; its bars are of text there, that is all.
warnings.filterwarnings("ignore", message="IProgress not found")

# Each public name and the module that has it, which is imported when the name is first used: torch takes seconds, and
# `fmrgen --help` must not wait for it.
_MODULES = {
    "Agreement": "fmrgen.studies.orders",
    "AnyClassifier": "fmrgen.recipe.objects",
    "AnyGenerator": "fmrgen.recipe.objects",
    "AnyOracle": "fmrgen.recipe.objects",
    "AnySplit": "fmrgen.jobs.evaluate",
    "Attribute": "fmrgen.failures.attributes",
    "Classifier": "fmrgen.classifiers.base",
    "ClassifierConfig": "fmrgen.config",
    "ComponentConfig": "fmrgen.config",
    "Diff": "fmrgen.studies.diff",
    "Estimate": "fmrgen.metrics.intervals",
    "Evaluation": "fmrgen.jobs.evaluation",
    "Example": "fmrgen.records",
    "Explanation": "fmrgen.failures.explain",
    "FilesVerification": "fmrgen.jobs.verify_files",
    "Gate": "fmrgen.metrics.sequential_test",
    "GeneratedSplit": "fmrgen.storage.generated",
    "Generator": "fmrgen.engine.interfaces",
    "GeneratorConfig": "fmrgen.generators.base",
    "Judgement": "fmrgen.engine.interfaces",
    "Judged": "fmrgen.judging.judge",
    "Labels": "fmrgen.labels",
    "Latents": "fmrgen.engine.interfaces",
    "MaiteDataset": "fmrgen.evaluation.maite",
    "MaiteModel": "fmrgen.evaluation.maite",
    "OpenedSplit": "fmrgen.storage.open",
    "Oracle": "fmrgen.engine.interfaces",
    "OracleConfig": "fmrgen.oracles.base",
    "Originals": "fmrgen.engine.interfaces",
    "PerturbOptions": "fmrgen.engine.options",
    "Perturbed": "fmrgen.records",
    "PerturbedBatch": "fmrgen.jobs.batch",
    "Plot": "fmrgen.report.plot",
    "Pushed": "fmrgen.publish.push",
    "RawExample": "fmrgen.sources.base",
    "Recipe": "fmrgen.recipe.job",
    "Source": "fmrgen.sources.base",
    "SourceConfig": "fmrgen.sources.base",
    "SparseMask": "fmrgen.jobs.sparsify",
    "StopReason": "fmrgen.records",
    "Summary": "fmrgen.metrics.summary",
    "TrainRecipe": "fmrgen.training.recipe",
    "UserError": "fmrgen.errors",
    "Verification": "fmrgen.jobs.verify",
    "agreement": "fmrgen.studies.orders",
    "classifier_of_maite": "fmrgen.evaluation.maite",
    "compare": "fmrgen.studies.compare",
    "diff": "fmrgen.studies.diff",
    "evaluate": "fmrgen.jobs.evaluate",
    "explain": "fmrgen.failures.explain",
    "export": "fmrgen.jobs.export",
    "figure": "fmrgen.report.plots",
    "freeze": "fmrgen.weights.checkpoint",
    "gate": "fmrgen.studies.gate",
    "gate_on_own_splits": "fmrgen.studies.gate",
    "generate": "fmrgen.jobs.from_objects",
    "inspect": "fmrgen.jobs.inspect",
    "judge": "fmrgen.judging.judge",
    "load_classifier": "fmrgen.recipe.objects",
    "load_oracle": "fmrgen.recipe.objects",
    "load_recipe": "fmrgen.recipe.job",
    "load_train_recipe": "fmrgen.training.recipe",
    "merge": "fmrgen.jobs.merge",
    "open_split": "fmrgen.storage.open",
    "perturb": "fmrgen.engine.perturb",
    "perturb_batch": "fmrgen.jobs.batch",
    "push": "fmrgen.publish.push",
    "read_figures": "fmrgen.results.evaluation",
    "show": "fmrgen.report.show",
    "sparsify": "fmrgen.jobs.sparsify",
    "summarise": "fmrgen.metrics.summary",
    "train": "fmrgen.training.loop",
    "sweep": "fmrgen.studies.sweep",
    "transfer": "fmrgen.jobs.evaluate",
    "verify": "fmrgen.jobs.verify",
    "verify_files": "fmrgen.jobs.verify_files",
    "write_report": "fmrgen.report.write",
}

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
