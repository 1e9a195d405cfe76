"""The public names of fmrgen and their modules, for type checkers and for `__init__.py`."""

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
