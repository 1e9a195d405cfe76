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
    from fmrgen.apps.release.diff import Diff as Diff
    from fmrgen.apps.release.diff import diff as diff
    from fmrgen.apps.release.flips import Flips as Flips
    from fmrgen.apps.studies.sweep import sweep as sweep
    from fmrgen.apps.training.loop import train as train
    from fmrgen.apps.training.recipe import TrainRecipe as TrainRecipe
    from fmrgen.apps.training.recipe import load_train_recipe as load_train_recipe
    from fmrgen.classifiers.base import Classifier as Classifier
    from fmrgen.config import ClassifierConfig as ClassifierConfig
    from fmrgen.config import ComponentConfig as ComponentConfig
    from fmrgen.engine.images import on_byte_grid as on_byte_grid
    from fmrgen.engine.images import to_batch as to_batch
    from fmrgen.engine.images import to_bytes as to_bytes
    from fmrgen.engine.interfaces import Generator as Generator
    from fmrgen.engine.interfaces import Judgement as Judgement
    from fmrgen.engine.interfaces import Latents as Latents
    from fmrgen.engine.interfaces import Oracle as Oracle
    from fmrgen.engine.interfaces import Originals as Originals
    from fmrgen.engine.models import row_seed as row_seed
    from fmrgen.engine.options import AttackOptions as AttackOptions
    from fmrgen.engine.options import PerturbOptions as PerturbOptions
    from fmrgen.engine.perturb import perturb as perturb
    from fmrgen.errors import UserError as UserError
    from fmrgen.generators.base import GeneratorConfig as GeneratorConfig
    from fmrgen.jobs.batch import PerturbedBatch as PerturbedBatch
    from fmrgen.jobs.batch import perturb_batch as perturb_batch
    from fmrgen.jobs.compare import JobProgress as JobProgress
    from fmrgen.jobs.compare import compare as compare
    from fmrgen.jobs.evaluate import AnySplit as AnySplit
    from fmrgen.jobs.evaluate import evaluate as evaluate
    from fmrgen.jobs.from_objects import generate as generate
    from fmrgen.jobs.merge import merge as merge
    from fmrgen.jobs.show import show as show
    from fmrgen.jobs.verify import Verification as Verification
    from fmrgen.jobs.verify import verify as verify
    from fmrgen.jobs.verify_files import FilesVerification as FilesVerification
    from fmrgen.jobs.verify_files import verify_files as verify_files
    from fmrgen.labels import Labels as Labels
    from fmrgen.metrics.intervals import Estimate as Estimate
    from fmrgen.metrics.intervals import format_estimate as format_estimate
    from fmrgen.metrics.intervals import paired_difference as paired_difference
    from fmrgen.metrics.intervals import proportion as proportion
    from fmrgen.metrics.summary import Summary as Summary
    from fmrgen.metrics.summary import summarise as summarise
    from fmrgen.oracles.base import OracleConfig as OracleConfig
    from fmrgen.progress.tqdm_bars import OnRows as OnRows
    from fmrgen.publish.push import Pushed as Pushed
    from fmrgen.publish.push import push as push
    from fmrgen.recipe.build import Components as Components
    from fmrgen.recipe.job import Recipe as Recipe
    from fmrgen.recipe.job import load_recipe as load_recipe
    from fmrgen.recipe.objects import AnyClassifier as AnyClassifier
    from fmrgen.recipe.objects import AnyGenerator as AnyGenerator
    from fmrgen.recipe.objects import AnyOracle as AnyOracle
    from fmrgen.recipe.objects import load_classifier as load_classifier
    from fmrgen.recipe.objects import load_oracle as load_oracle
    from fmrgen.records import AttackRecord as AttackRecord
    from fmrgen.records import Example as Example
    from fmrgen.records import Perturbed as Perturbed
    from fmrgen.records import StopReason as StopReason
    from fmrgen.report.plot import Plot as Plot
    from fmrgen.report.plots import figure as figure
    from fmrgen.report.report import Badge as Badge
    from fmrgen.report.report import Check as Check
    from fmrgen.report.report import KeyFigure as KeyFigure
    from fmrgen.report.report import Picture as Picture
    from fmrgen.report.report import Report as Report
    from fmrgen.report.report import Section as Section
    from fmrgen.report.report import Table as Table
    from fmrgen.report.write import write_report as write_report
    from fmrgen.results.evaluation import Evaluation as Evaluation
    from fmrgen.results.evaluation import Result as Result
    from fmrgen.results.evaluation import read_figures as read_figures
    from fmrgen.results.orders import Agreement as Agreement
    from fmrgen.results.orders import agreement as agreement
    from fmrgen.sources.base import LoadedExample as LoadedExample
    from fmrgen.sources.base import RawExample as RawExample
    from fmrgen.sources.base import Source as Source
    from fmrgen.sources.base import SourceConfig as SourceConfig
    from fmrgen.split.generated import GeneratedSplit as GeneratedSplit
    from fmrgen.split.open import open_split as open_split
    from fmrgen.split.rows import OpenedSplit as OpenedSplit
    from fmrgen.split.rows import Split as Split
    from fmrgen.storage.paths import SplitPaths as SplitPaths
    from fmrgen.storage.provenance import Provenance as Provenance
    from fmrgen.weights.checkpoint import freeze as freeze

    __version__: str

# Libraries import tqdm, which then tells every notebook without ipywidgets; its bars are of text there, that is all.
warnings.filterwarnings("ignore", message="IProgress not found")

# Each public name and the module that has it, which is imported when the name is first used: torch takes seconds, and
# `fmrgen --help` must not wait for it.
_MODULES = {
    "Agreement": "fmrgen.results.orders",
    "AnyClassifier": "fmrgen.recipe.objects",
    "AnyGenerator": "fmrgen.recipe.objects",
    "AnyOracle": "fmrgen.recipe.objects",
    "AnySplit": "fmrgen.jobs.evaluate",
    "AttackOptions": "fmrgen.engine.options",
    "AttackRecord": "fmrgen.records",
    "Badge": "fmrgen.report.report",
    "Check": "fmrgen.report.report",
    "Classifier": "fmrgen.classifiers.base",
    "ClassifierConfig": "fmrgen.config",
    "ComponentConfig": "fmrgen.config",
    "Components": "fmrgen.recipe.build",
    "Estimate": "fmrgen.metrics.intervals",
    "Evaluation": "fmrgen.results.evaluation",
    "Example": "fmrgen.records",
    "FilesVerification": "fmrgen.jobs.verify_files",
    "GeneratedSplit": "fmrgen.split.generated",
    "Generator": "fmrgen.engine.interfaces",
    "GeneratorConfig": "fmrgen.generators.base",
    "JobProgress": "fmrgen.jobs.compare",
    "Judgement": "fmrgen.engine.interfaces",
    "KeyFigure": "fmrgen.report.report",
    "Labels": "fmrgen.labels",
    "Latents": "fmrgen.engine.interfaces",
    "LoadedExample": "fmrgen.sources.base",
    "OnRows": "fmrgen.progress.tqdm_bars",
    "OpenedSplit": "fmrgen.split.rows",
    "Oracle": "fmrgen.engine.interfaces",
    "OracleConfig": "fmrgen.oracles.base",
    "Originals": "fmrgen.engine.interfaces",
    "PerturbOptions": "fmrgen.engine.options",
    "Perturbed": "fmrgen.records",
    "PerturbedBatch": "fmrgen.jobs.batch",
    "Picture": "fmrgen.report.report",
    "Plot": "fmrgen.report.plot",
    "Provenance": "fmrgen.storage.provenance",
    "Pushed": "fmrgen.publish.push",
    "RawExample": "fmrgen.sources.base",
    "Recipe": "fmrgen.recipe.job",
    "Report": "fmrgen.report.report",
    "Result": "fmrgen.results.evaluation",
    "Section": "fmrgen.report.report",
    "Source": "fmrgen.sources.base",
    "SourceConfig": "fmrgen.sources.base",
    "Split": "fmrgen.split.rows",
    "SplitPaths": "fmrgen.storage.paths",
    "StopReason": "fmrgen.records",
    "Summary": "fmrgen.metrics.summary",
    "Table": "fmrgen.report.report",
    "UserError": "fmrgen.errors",
    "Verification": "fmrgen.jobs.verify",
    "agreement": "fmrgen.results.orders",
    "compare": "fmrgen.jobs.compare",
    "evaluate": "fmrgen.jobs.evaluate",
    "figure": "fmrgen.report.plots",
    "format_estimate": "fmrgen.metrics.intervals",
    "freeze": "fmrgen.weights.checkpoint",
    "generate": "fmrgen.jobs.from_objects",
    "load_classifier": "fmrgen.recipe.objects",
    "load_oracle": "fmrgen.recipe.objects",
    "load_recipe": "fmrgen.recipe.job",
    "merge": "fmrgen.jobs.merge",
    "on_byte_grid": "fmrgen.engine.images",
    "open_split": "fmrgen.split.open",
    "paired_difference": "fmrgen.metrics.intervals",
    "perturb": "fmrgen.engine.perturb",
    "perturb_batch": "fmrgen.jobs.batch",
    "proportion": "fmrgen.metrics.intervals",
    "push": "fmrgen.publish.push",
    "read_figures": "fmrgen.results.evaluation",
    "row_seed": "fmrgen.engine.models",
    "show": "fmrgen.jobs.show",
    "summarise": "fmrgen.metrics.summary",
    "to_batch": "fmrgen.engine.images",
    "to_bytes": "fmrgen.engine.images",
    "verify": "fmrgen.jobs.verify",
    "verify_files": "fmrgen.jobs.verify_files",
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
