"""The commands that are of no split."""

from fnmatch import fnmatch
from typing import Annotated, Literal

from cyclopts import Parameter

from fmrgen.cli import options
from fmrgen.errors import UserError


def store(
    action: Literal["ls", "rm"],
    /,
    *classifiers: str,
    store: Annotated[str | None, Parameter(metavar="DIR")] = None,
    as_json: options.Json = False,
) -> None:
    """List or remove the answers that evaluate keeps.

    Args:
        action: List what is kept, or remove it.
        classifiers: Only of classifiers of these names; lenet* is a pattern.
        store: The folder, or bucket, of `evaluate --store`.
    """
    from fmrgen.cli import display
    from fmrgen.storage.predictions import PredictionStore

    if action == "rm" and not classifiers:
        raise UserError("store rm: name the classifiers; '*' removes all")
    predictions = PredictionStore(store)
    entries = []
    for entry in predictions.entries():
        classifier = str(entry.about["classifier"])
        if any(fnmatch(classifier, pattern) for pattern in classifiers or ["*"]):
            entries.append(dict(entry.about))
            if action == "rm":
                predictions.remove(entry)
    if as_json:
        display.print_json(entries)
        return
    for about in entries:
        display.print_line(f"{about['classifier']:24} {about['split']}, {about['images']}: {about['rows']:,} rows")
    display.print_line(f"{predictions.place}: {'removed ' if action == 'rm' else ''}{len(entries)} files")


def doctor(folder: str = ".", /, *, as_json: options.Json = False) -> None:
    """Print what a bug report needs: versions, devices, Hub.

    Args:
        folder: The folder that jobs would write to, or one in a bucket.
    """
    from fmrgen.cli.doctor import check_place, examine

    check_place(folder)

    from fmrgen.cli import display

    if as_json:
        display.print_json(dict(examine(folder)))
        return
    for name, fact in examine(folder):
        display.print_line(f"{name:16} {fact}")
