"""The command `export`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fmrgen.cli import options
from fmrgen.cli.command import Command
from fmrgen.errors import UserError, option


def export(
    *places: Annotated[str, Parameter(name="SPLIT... FOLDER")],
    file_format: Annotated[
        Literal["webdataset", "imagefolder", "clip-benchmark", "dossier"],
        Parameter(name=("--format", "-f"), metavar="FORMAT"),
    ],
    tar_size: options.Count = 1000,
    report: Annotated[tuple[Path, ...], Parameter(name="--report", metavar="PATH", negative=())] = (),
    quiet: options.Quiet = False,
) -> None:
    """Export a split for other tools, or the evidence on a release.

    Args:
        places: PATH_OR_REPO[@REVISION][:CONFIG/SPLIT], and last the folder to write to. A dossier takes several splits.
        file_format: webdataset (tars), imagefolder (one per class), clip-benchmark, or dossier (a page with what splits
            and results show of a classifier, and the files behind it).
        tar_size: Rows per tar.
        report: Of a dossier: what evaluate, diff, gate or explain wrote; repeat it.
    """
    from fmrgen.files import check_writable
    from fmrgen.split.reference import check_there

    *splits, last = places or ("",)
    folder = Path(last)
    if not splits:
        raise UserError("name a split, and then the folder to write to")
    for split in splits:
        check_there(split)
    check_writable(folder)

    from fmrgen.cli import display

    display.quiet_libraries()
    if file_format == "dossier":
        from fmrgen.apps.interchange.dossier import signature, write_dossier

        outcome = write_dossier(splits, folder, report)
        for line in [*outcome.warnings, *outcome.conclusions]:
            display.print_line(line)
        display.print_line(f"{folder / 'dossier.html'}, sha256 of its SHA256SUMS {signature(folder)}")
        return
    if len(splits) > 1 or report:
        raise UserError(
            f"{option('format')} {file_format} takes one split and no {option('report')}; only dossier takes more"
        )

    from fmrgen.apps.interchange.export import export as run
    from fmrgen.progress import terminal as progress

    with progress.row_progress("export", not quiet) as on_rows:
        rows = run(splits[0], folder, file_format, tar_size=tar_size, on_rows=on_rows)
    display.print_line(f"{folder}: {rows} rows")


COMMANDS = [Command("export", "Measure", export)]
