"""The commands that are of no split."""

from fnmatch import fnmatch
from typing import Annotated, Literal

import typer

from fmrgen.cli.options import JsonOption
from fmrgen.errors import UserError


def store(
    action: Annotated[Literal["ls", "rm"], typer.Argument(metavar="ls|rm", help="List what is kept, or remove it.")],
    patterns: Annotated[
        list[str] | None,
        typer.Argument(metavar="CLASSIFIER...", help="Only of classifiers of these names; lenet* is a pattern."),
    ] = None,
    folder: Annotated[
        str | None, typer.Option("--store", metavar="DIR", help="The folder, or bucket, of `evaluate --store`.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List or remove the answers that evaluate keeps."""
    from fmrgen.cli import display
    from fmrgen.storage.predictions import PredictionStore

    if action == "rm" and not patterns:
        raise UserError("store rm: name the classifiers; '*' removes all")
    kept = PredictionStore(folder)
    wanted = patterns or ["*"]
    found = [entry for entry in kept.entries() if any(fnmatch(str(entry.about["classifier"]), one) for one in wanted)]
    for entry in found if action == "rm" else ():
        kept.remove(entry)
    about = [dict(entry.about) for entry in found]
    if as_json:
        display.print_json(about)
        return
    for one in about:
        display.print_line(f"{one['classifier']:24} {one['split']}, {one['images']}: {one['rows']:,} rows")
    display.print_line(f"{kept.place}: {'removed ' if action == 'rm' else ''}{len(about)} files")


def doctor(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="The folder that jobs would write to, or one in a bucket.")
    ] = ".",
    as_json: JsonOption = False,
) -> None:
    """Print what a bug report needs: versions, devices, Hub."""
    from fmrgen.cli.doctor import check_place, examine

    check_place(folder)

    from fmrgen.cli import display

    if as_json:
        display.print_json(dict(examine(folder)))
        return
    for name, found in examine(folder):
        display.print_line(f"{name:16} {found}")
