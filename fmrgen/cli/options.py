"""Types of the parameters that several commands share, with the help of their options."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from fmrgen.distributed.launcher import OPTION
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError, write_line
from fmrgen.recipe.classifier_forms import WRITTEN

if TYPE_CHECKING:
    from fmrgen.recipe import job
    from fmrgen.report.plot import PlotFormat


def recipe_names(context: object) -> list[str]:
    """Return the names of the shipped recipes, for the shell, which keeps those that begin as the typed word does."""
    from fmrgen.recipe.job import describe_recipes

    return list(describe_recipes())


def whole_number(least: int, most: int | None = None) -> Parameter:
    """Return the form of an integer from `least` to `most`; cyclopts itself would round 2.5."""
    validator = Number(gte=least, lte=most)
    return Parameter(metavar="N", converter=lambda kind, tokens: int(tokens[0].value), validator=validator)


OWN_RECIPE = "fmrgen.yaml"  # of the folder where a command runs, as `fmrgen init` writes it
OWN_OUTPUT = "out"  # the dataset folder of `fmrgen generate`
_CHANGE = re.compile(r"\w+(\.\w+)+=.*", re.DOTALL)  # to a recipe

_SHARED = Group("Options of several commands", sort_key=9)  # below a command's own

# Values of options: each command says what its own are for.
Count = Annotated[int, whole_number(1)]
File = Annotated[Path, Parameter(metavar="FILE")]
By = Annotated[Sequence[str], Parameter(metavar="COLUMN[:BOUND,…]")]
Output = Annotated[Path, Parameter(alias="-o", metavar="DIR")]

Recipe = Annotated[str, Parameter(completer=recipe_names, help="A recipe file, or the name of a shipped recipe.")]
OwnRecipe = Annotated[
    str | None,
    Parameter(
        completer=recipe_names,
        help="A recipe file, or the name of a shipped recipe; by default fmrgen.yaml in this folder.",
        show_default=False,
    ),
]
Overrides = Annotated[str, Parameter(name="section.key=value", help="Changes to the recipe; values are YAML.")]
Split = Annotated[str, Parameter(help="PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]")]
OwnSplit = Annotated[
    str | None,
    Parameter(
        help=f"PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]; by default that of {OWN_RECIPE} in this folder.",
        show_default=False,
    ),
]
Classifiers = Annotated[
    Sequence[str],
    Parameter(
        name=("--classifier", "-c"),
        metavar="[NAME=]C",
        help=f"{WRITTEN}; or a pattern, 'timm:resnet*' or 'trained/*'. Repeat for more.",
    ),
]
Limit = Annotated[
    Count, Parameter(help="Use N examples: the first N, or N spread over the source if the first lack classes.")
]
BatchSize = Annotated[
    int, whole_number(1, 65_536), Parameter(group=_SHARED, help="Images per forward pass, at most 65,536.")
]
Network = Annotated[
    str | None, Parameter(name="--as", metavar="MODULE:NAME", help="The network class of weight files such as last.pt.")
]
Plots = Annotated[
    str, Parameter(group=_SHARED, metavar="FORMAT,FORMAT", help="Also write the plots as files: png, pdf, svg.")
]
Processes = Annotated[
    Count,
    Parameter(group=_SHARED, name=OPTION, help="Run N processes on this machine, one per GPU.", show_default=False),
]
LogFile = Annotated[File, Parameter(group=_SHARED, help="Append progress to this file, as JSON lines.")]
Trackers = Annotated[
    Sequence[str],
    Parameter(
        group=_SHARED,
        name="--log-with",
        metavar="TRACKER",
        help="trackio, wandb, tensorboard, mlflow or another one of accelerate's. Repeat for more.",
    ),
]
Trust = Annotated[
    bool,
    Parameter(group=_SHARED, help="Run the code, and read the files and addresses, that the split's recipe names."),
]
Public = Annotated[bool, Parameter(help="Make the repo public. Use it only if you may publish the images.")]
Replace = Annotated[bool, Parameter(help="Replace a split of the same name on the Hub.")]
All = Annotated[bool, Parameter(group=_SHARED, name="--all", help="Print all metrics and tables.")]
Json = Annotated[bool, Parameter(group=_SHARED, name="--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, Parameter(group=_SHARED, alias="-q", help="Print no progress and no table.")]


def plot_formats(names: str) -> "list[PlotFormat]":
    """Return the formats of `--plots`. Raises UserError for an unknown one."""
    if not names:  # matplotlib can wait
        return []
    from fmrgen.report.plot import FORMATS

    formats = [name.strip() for name in names.split(",") if name.strip()]
    for unknown in set(formats).difference(FORMATS):
        raise UserError(f"plots are {', '.join(FORMATS)}, not {unknown}")
    return [name for name in FORMATS if name in formats]


def own_recipe(recipe: str | None, overrides: Sequence[str]) -> tuple[str, list[str]]:
    """Return the recipe that a command is about, and the changes to it: with no name, `fmrgen.yaml` of this folder.

    Raises UserError if there is neither.
    """
    changes = list(overrides)
    if recipe is not None and _CHANGE.fullmatch(recipe) and not Path(recipe).is_file():
        changes = [recipe, *changes]
        recipe = None
    if recipe is None and not Path(OWN_RECIPE).is_file():
        raise UserError(
            f"name a recipe, which `fmrgen recipes` lists; there is no {OWN_RECIPE} in this folder, which "
            "`fmrgen init PHOTOS` writes for your own images"
        )
    if recipe is None and is_first_process():
        write_line(f"by {OWN_RECIPE} of this folder")
    return recipe or OWN_RECIPE, changes


def is_own(split: str) -> bool:
    """Return whether a split in a folder demands no code and no place but those of `fmrgen.yaml` in this folder."""
    if not Path(OWN_RECIPE).is_file() or not Path(split.partition(":")[0]).is_dir():
        return False
    from fmrgen.recipe.job import Recipe
    from fmrgen.split.reference import locate
    from fmrgen.trust.recipes import demands_of, untrusted_demands

    provenance = locate(split).provenance
    if provenance is None:
        return False
    try:
        own = demands_of(load_recipe(OWN_RECIPE, ()))
    except UserError:
        return False
    of_split = untrusted_demands(Recipe, provenance.recipe.tree, split)
    return {*of_split.code} <= {*own.code} and {*of_split.places} <= {*own.places}


def own_split() -> str:
    """Return the split that `fmrgen generate` makes of `fmrgen.yaml` in this folder. Raises UserError without it."""
    if not Path(OWN_RECIPE).is_file():
        raise UserError(f"name a split, as out:mnist/lenet; there is no {OWN_RECIPE} in this folder")
    from fmrgen.storage.paths import splits_in

    output = load_recipe(OWN_RECIPE, ()).output
    name = f"{output.config}/{output.split}"
    split = f"{OWN_OUTPUT}:{name}"
    if name not in [paths.name for paths in splits_in(Path(OWN_OUTPUT))]:
        raise UserError(f"{split}: is the split of {OWN_RECIPE}, and does not exist yet; run `fmrgen generate`")
    return split


def load_recipe(recipe: str, overrides: Sequence[str], limit: int | None = None) -> "job.Recipe":
    """Return a recipe, of a file or a name, with its changes, in which nothing is wrong that can be seen without torch.

    `limit` is the number of examples, whatever recipe and changes say. Raises UserError if a file, a key or a value is
    wrong, or something that the recipe names is not there.
    """
    from fmrgen.config import check_places
    from fmrgen.recipe import job

    limits = [] if limit is None else [f"source.limit={limit}"]
    loaded = job.load_recipe(recipe, [*overrides, *limits])
    check_places(loaded)
    return loaded
