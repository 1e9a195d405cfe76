"""Arguments and options that several commands have."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from fmrgen.distributed.launcher import OPTION
from fmrgen.recipe.classifier_forms import WRITTEN

if TYPE_CHECKING:
    from fmrgen.report.plot import PlotFormat


def recipe_names(begun: str) -> list[str]:
    """Return the shipped recipes whose names begin so, for the shell."""
    from fmrgen.recipe.job import describe_recipes

    return [name for name in describe_recipes() if name.startswith(begun)]


class PlainHelp(TyperCommand):
    """A command whose help does not tell Python's types of its arguments."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            records = [param.get_help_record(ctx) for param in self.get_params(ctx) if param.param_type_name == kind]
            rows = [(re.sub(r" <[^<>]*>$", "", name), text) for name, text in filter(None, records)]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class GroupedHelp(TyperGroup):
    """Commands whose help lists them in groups, by their `rich_help_panel`, in the order in which they were added."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        width = max(map(len, self.commands))
        for name, command in self.commands.items():
            summary = command.get_short_help_str(formatter.width - width - 6)
            groups.setdefault(command.rich_help_panel, []).append((name.ljust(width), summary))  # type: ignore[attr-defined]
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)


RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", autocompletion=recipe_names, help="A recipe file, or the name of a shipped recipe."
    ),
]
SplitArgument = Annotated[str, typer.Argument(metavar="SPLIT", help="PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]")]
TrustOption = Annotated[
    bool,
    typer.Option("--trust", help="Run the code, and read the files and addresses, that the split's recipe names."),
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write to.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="section.key=value", help="Changes to the recipe; values are YAML.")
]
CLASSIFIER = typer.Option(
    "--classifier",
    "-c",
    metavar="[NAME=]C",
    help=f"{WRITTEN}; or a pattern, 'timm:resnet*' or 'trained/*'. Repeat for more.",
)
ClassifierOption = Annotated[list[str], CLASSIFIER]
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", metavar="N", min=1, max=65_536, help="Images per forward pass.")
]
PlotsOption = Annotated[
    str, typer.Option("--plots", metavar="FORMAT,FORMAT", help="Write the plots as pdf or svg too, besides PNG.")
]
LogFileOption = Annotated[
    Path | None, typer.Option("--log-file", metavar="FILE", help="Append progress to this file, as JSON lines.")
]
TrackersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--log-with",
        metavar="TRACKER",
        help="trackio, wandb, tensorboard, mlflow or another one of accelerate's. Repeat for more.",
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit",
        metavar="N",
        min=1,
        help="Use only N examples: the first N, or spread over all if those lack classes.",
    ),
]


def _draw_no_bars(quiet: bool) -> bool:
    if quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # before its libraries are imported
    return quiet


QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_draw_no_bars, help="Print no progress and no table.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON, for programs.")]
PublicOption = Annotated[
    bool, typer.Option("--public", help="Make the repo public. Use it only if you may publish the images.")
]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Replace a split of the same name on the Hub.")]


def _start_processes(processes: int | None) -> None:
    """Where several processes are asked for, starts the command again in so many."""
    if processes is not None and processes > 1:
        from fmrgen.distributed.launcher import start_again

        raise typer.Exit(start_again(processes, sys.argv[1:]))


ProcessesOption = Annotated[
    int | None,
    typer.Option(
        OPTION,
        metavar="N",
        min=1,
        callback=_start_processes,
        help="Run N processes on this machine, one per GPU.",
    ),
]


def plot_formats(names: str) -> "list[PlotFormat]":
    """Return the formats of `--plots`. Raises UserError for an unknown one."""
    from fmrgen.report.plot import all_formats

    return all_formats([name.strip() for name in names.split(",") if name.strip()])


def limited(limit: int | None, overrides: Sequence[str] | None) -> list[str]:
    """Return the changes to a recipe, the limit first."""
    changes = [] if limit is None else [f"source.limit={limit}"]
    return changes + list(overrides or [])
