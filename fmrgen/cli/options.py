"""Arguments and options that several commands have."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from fmrgen.distributed.launcher import OPTION

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or a shipped recipe's name.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Changes to the recipe, values in YAML.")
]
ClassifierOption = Annotated[
    list[str],
    typer.Option(
        "--classifier",
        "-c",
        metavar="[NAME=]C",
        help="timm:NAME, hf:REPO, asset:NAME, module:Name, a trained folder, a recipe or {kind: …}; repeatable.",
    ),
]
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", min=1, max=65_536, help="Images that a classifier gets at once.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", help="Only the first so many examples.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.")]
PublicOption = Annotated[
    bool, typer.Option("--public", help="Let everyone see the repo: only if the images may be published.")
]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Replace a split of the same name that is on the Hub with other files.")
]


def _start_processes(processes: int | None) -> None:
    """Where several processes are asked for, starts the command again in so many."""
    if processes is not None and processes > 1:
        from fmrgen.distributed.launcher import start_again

        start_again(processes, sys.argv[1:])


ProcessesOption = Annotated[
    int | None,
    typer.Option(
        OPTION,
        min=1,
        callback=_start_processes,
        help="Run on so many processes of this machine, one for each GPU.",
    ),
]


def limited(limit: int | None, overrides: Sequence[str] | None) -> list[str]:
    """The changes to a recipe, the limit first."""
    return [*([] if limit is None else [f"source.limit={limit}"]), *(overrides or [])]
