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
    predictions = PredictionStore(folder)
    entries = []
    for entry in predictions.entries():
        classifier = str(entry.about["classifier"])
        if any(fnmatch(classifier, pattern) for pattern in patterns or ["*"]):
            entries.append(dict(entry.about))
            if action == "rm":
                predictions.remove(entry)
    if as_json:
        display.print_json(entries)
        return
    for about in entries:
        display.print_line(f"{about['classifier']:24} {about['split']}, {about['images']}: {about['rows']:,} rows")
    display.print_line(f"{predictions.place}: {'removed ' if action == 'rm' else ''}{len(entries)} files")


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
    for name, fact in examine(folder):
        display.print_line(f"{name:16} {fact}")
