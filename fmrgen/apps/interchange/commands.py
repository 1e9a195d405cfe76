"""The command `export`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fmrgen.cli import options
from fmrgen.cli.command import Command


def export(
    split: options.Split,
    folder: Path,
    /,
    *,
    file_format: Annotated[
        Literal["webdataset", "imagefolder", "clip-benchmark"],
        Parameter(name=("--format", "-f"), metavar="FORMAT"),
    ],
    tar_size: options.Count = 1000,
    quiet: options.Quiet = False,
) -> None:
    """Export a split for other tools.

    Args:
        folder: The folder to write to.
        file_format: webdataset (tars), imagefolder (one per class), or clip-benchmark.
        tar_size: Rows per tar.
    """
    from fmrgen.files import check_writable
    from fmrgen.split.reference import check_there

    check_there(split)
    check_writable(folder)

    from fmrgen.apps.interchange.export import export as run
    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    with progress.row_progress("export", not quiet) as on_rows:
        rows = run(split, folder, file_format, tar_size=tar_size, on_rows=on_rows)
    display.print_line(f"{folder}: {rows} rows")


COMMANDS = [Command("export", "Measure", export)]
