"""The commands that make several splits: comparisons of classifiers, and sweeps over a recipe's values."""

from pathlib import Path
from typing import Annotated

import typer

from fmrgen.cli.options import (
    BatchSizeOption,
    ClassifierOption,
    LimitOption,
    OverridesArgument,
    ProcessesOption,
    QuietOption,
    RecipeArgument,
    limited,
)
from fmrgen.distributed.rank import is_first_process


def compare(
    recipe: RecipeArgument,
    classifiers: ClassifierOption,
    overrides: OverridesArgument = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The dataset folder; the report goes to its folder comparison.")
    ] = Path("out"),
    limit: LimitOption = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Splits for each classifier; see perturb.start_noise.")
    ] = 1,
    batch_size: BatchSizeOption = 64,
    processes: ProcessesOption = None,
    quiet: QuietOption = False,
) -> None:
    """Make a split for each classifier and compare them all, each on its own split first."""
    from fmrgen.recipe import load_classifiers, load_recipe

    loaded, named = load_recipe(recipe, limited(limit, overrides)), load_classifiers(classifiers)

    from fmrgen.cli import display, progress
    from fmrgen.jobs.compare import compare as run
    from fmrgen.report.write import prepare_folder, write_report

    display.quiet_libraries()
    is_first = is_first_process()
    show = not quiet and is_first
    with progress.split_progress(show) as on_rows:
        evaluation = run(
            loaded,
            named,
            output,
            seeds=seeds,
            batch_size=batch_size,
            job_progress=lambda made: progress.job_progress(made, show),
            on_note=display.print_note,
            on_rows=on_rows,
        )
    if not is_first:
        return
    prepare_folder(output / "comparison")
    write_report(evaluation, output / "comparison")
    if not quiet:
        display.print_evaluation(evaluation)
    display.print_line(output / "comparison" / "report.html")


def sweep(
    recipe: RecipeArgument,
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="section.key=value,value...",
            help="What is tried, all with all; a key with one value is a change to the recipe.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A folder; each combination gets a dataset folder in it.")
    ] = Path("sweep"),
    limit: LimitOption = None,
    processes: ProcessesOption = None,
    quiet: QuietOption = False,
) -> None:
    """Make a split for each combination of values, and one table and plot of all; run it again to continue."""
    from fmrgen.jobs.sweep import parse_grid

    grid = parse_grid(recipe, limited(limit, values))

    from fmrgen.cli import display, progress
    from fmrgen.jobs.sweep import sweep as run
    from fmrgen.report.sweep import sweep_table, write_sweep

    display.quiet_libraries()
    is_first = is_first_process()
    show = not quiet and is_first
    points = run(grid, output, job_progress=lambda made: progress.job_progress(made, show), on_note=display.print_note)
    if not is_first:
        return
    written = write_sweep(points, output)
    if not quiet:
        display.print_table(sweep_table(points), str(recipe))
    for path in written:
        display.print_line(path)


def inspect(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    images: Annotated[int, typer.Option("--images", min=2, help="How many are tried.")] = 32,
    quiet: QuietOption = False,
) -> None:
    """Try a recipe on a few images: what its parts are worth, and which step suits the generator."""
    from fmrgen.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])

    from fmrgen.cli import display
    from fmrgen.jobs.inspect import inspect as run

    display.quiet_libraries()
    found = run(loaded, images=images, on_trial=lambda trial: None if quiet else display.print_trial(trial))
    display.print_inspection(found)
