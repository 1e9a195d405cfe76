"""The commands that are of no split."""

from pathlib import Path
from typing import Annotated

import typer

from fmrgen.cli.options import JsonOption


def doctor(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that jobs would write to.")] = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Print what a bug report needs: versions, devices, Hub."""
    from fmrgen.cli import display
    from fmrgen.cli.doctor import examine

    if as_json:
        display.print_json(dict(examine(folder)))
        return
    for name, found in examine(folder):
        display.print_line(f"{name:16} {found}")
