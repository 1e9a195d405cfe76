"""The command `judge`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fmrgen.cli import options
from fmrgen.cli.command import Command
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError


def judge(
    split: options.Split,
    /,
    *,
    oracles: Annotated[Sequence[str], Parameter(name="--oracle", metavar="[NAME=]O")] = (),
    sheet: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    count: Annotated[options.Count, Parameter(name="--n")] = 300,
    people: Annotated[Sequence[str], Parameter(metavar="NAME=FILE")] = (),
    output: options.Output = Path("judged"),
    batch_size: options.BatchSize = 64,
    processes: options.Processes = 1,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Collect labels of a split's images from other models, or from people.

    Stores the labels beside the split, in its folder or on the Hub. Run the same command again to resume.

    Example: fmrgen judge out:mnist/lenet --sheet sheet

    Args:
        oracles: KIND:MODEL (zero_shot:google/siglip2-base-patch16-224), a repo, folder or asset of a CLIP,
            package.module:Name, a recipe, or {kind: …}. Repeat for more.
        sheet: Write images to label to this folder, with a sheet.csv.
        count: Perturbed images in the sheet; originals are added as controls.
        people: Store the labels in a filled-in sheet: ann=ann.csv. Repeat for more.
        output: Where to store people's labels for a split on the Hub.
    """
    from fmrgen.recipe.job import load_oracles
    from fmrgen.split.reference import check_there

    if not oracles and sheet is None and not people:
        raise UserError("judge: name a judge with --oracle, write a sheet for people with --sheet, or read --people")
    named = [entry.partition("=") for entry in people]
    for name, separator, file in named:
        if not (name and separator and file):
            raise UserError(f"--people {name}: must be NAME=FILE, as ann=ann.csv")
    sections = load_oracles(oracles)
    check_there(split)

    from fmrgen.cli import display

    display.quiet_libraries(quiet)
    is_first = is_first_process()
    if is_first and (sheet is not None or named):
        from fmrgen.apps.judging.sheet import read_sheet, write_sheet

        if sheet is not None:
            number = write_sheet(split, sheet, count=count)
            display.print_line(f"{sheet / 'sheet.csv'}: {number} images to name, by the classes in classes.txt")
        for name, _, file in named:
            display.print_line(read_sheet(split, name, Path(file), output=output))
    if not sections:
        return

    from fmrgen.apps.judging.judge import judge as run
    from fmrgen.apps.judging.judge import judged_report

    outcomes = run(split, sections, batch_size=batch_size, progress=not quiet)
    if is_first:
        display.deliver(judged_report(outcomes, split), as_json=as_json, quiet=quiet)


COMMANDS = [Command("judge", "Validate", judge, resumes=True)]
