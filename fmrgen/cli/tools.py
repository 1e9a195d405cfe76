"""The commands around splits: looking at them, exporting them, and what there is to run."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from fmrgen.cli.options import (
    BatchSizeOption,
    OverridesArgument,
    ProcessesOption,
    QuietOption,
    RecipeArgument,
    SplitArgument,
    recipe_names,
)
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError


def judge(
    split: SplitArgument,
    oracles: Annotated[
        list[str],
        typer.Option(
            "--oracle",
            metavar="[NAME=]O",
            help="KIND:MODEL (zero_shot:google/siglip2-base-patch16-224), a repo, folder or asset of a CLIP, "
            "package.module:Name, a recipe, or {kind: …}. Repeat for more.",
        ),
    ],
    batch_size: BatchSizeOption = 64,
    processes: ProcessesOption = None,
    quiet: QuietOption = False,
) -> None:
    """Have other judges look at a split's images.

    Their verdicts lie beside the split, in its folder or on the Hub. Run the same command again to resume.
    """
    from fmrgen.recipe import load_oracles

    named = load_oracles(oracles)

    from fmrgen.cli import display, progress
    from fmrgen.jobs.judge import judge as run

    display.quiet_libraries()
    is_first = is_first_process()
    with progress.split_progress(not quiet and is_first) as on_rows:
        found = run(split, named, batch_size=batch_size, on_rows=on_rows, on_wait=display.print_note)
    if is_first:
        display.print_judged(found, split, quiet)


def show(
    split: SplitArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write to.")] = Path(
        "gallery"
    ),
    gallery: Annotated[int, typer.Option("--gallery", metavar="N", min=1, help="Show about N rows on the page.")] = 240,
    ids: Annotated[str | None, typer.Option("--ids", metavar="ID,ID", help="Show these rows, in this order.")] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="NAME,NAME", help="Show rows of these classes only.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", metavar="N", min=1, max=100, help="Rows of the sheet.")] = 6,
    columns: Annotated[int, typer.Option("--columns", metavar="N", min=1, max=24, help="Image pairs per row.")] = 6,
    caption: Annotated[
        str | None,
        typer.Option("--caption", metavar="TEXT", help="Above the sheet, '' for none. Default: its name."),
    ] = None,
    file_format: Annotated[
        Literal["png", "pdf", "svg"], typer.Option("--format", "-f", help="Of the sheet; pdf and svg for papers.")
    ] = "png",
) -> None:
    """Show a split: a gallery page and a contact sheet."""
    from fmrgen.cli import display
    from fmrgen.report.show import show as run

    if ids is not None and not re.fullmatch(r"\d+(,\d+)*", ids):
        raise UserError(f"--ids {ids}: must be numbers, for example 3,14,15")
    display.quiet_libraries()
    files = run(
        split,
        output,
        gallery=gallery,
        ids=[int(number) for number in ids.split(",")] if ids else (),
        classes=classes.split(",") if classes else (),
        rows=rows,
        columns=columns,
        caption=caption,
        file_format=file_format,
    )
    for path in files:
        display.print_line(path)


def export(
    split: SplitArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write to.")],
    form: Annotated[
        Literal["webdataset", "imagefolder"], typer.Option("--format", "-f", help="Tars, or one folder per class.")
    ],
    tar_size: Annotated[int, typer.Option("--tar-size", metavar="N", min=1, help="Rows per tar.")] = 1000,
    quiet: QuietOption = False,
) -> None:
    """Export a split as webdataset tars or image folders."""
    from fmrgen.cli import display, progress
    from fmrgen.jobs.export import export as run

    display.quiet_libraries()
    with progress.row_progress("export", not quiet) as on_rows:
        rows = run(split, folder, form, tar_size=tar_size, on_rows=on_rows)
    display.print_line(f"{folder}: {rows} rows")


def train(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write the weights to.")
    ] = Path("trained"),
    trackers: Annotated[
        list[str] | None,
        typer.Option(
            "--log-with", metavar="TRACKER", help="tensorboard, wandb or another one of accelerate's. Repeat for more."
        ),
    ] = None,
    processes: ProcessesOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train a classifier, an oracle or a generator.

    Run the same command again to resume.
    """
    from fmrgen.training.recipe import load_train_recipe

    loaded = load_train_recipe(recipe, overrides or [])

    from fmrgen.cli import display, progress
    from fmrgen.training.loop import train as run

    display.quiet_libraries()
    is_first = is_first_process()
    with progress.row_progress("train", not quiet and is_first) as on_step:
        metrics = run(loaded, output, lambda step, steps, loss: on_step(step, steps), trackers or [])
    if is_first:
        display.print_line(f"{output}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", autocompletion=recipe_names, help="Show this recipe."),
    ] = None,
    overrides: OverridesArgument = None,
) -> None:
    """List the shipped recipes, or show one with every value."""
    from fmrgen.recipe import describe_recipes, load_recipe

    if name is None:
        described = describe_recipes()
        width = max(len(name) for name in described)
        for name, description in described.items():
            print(f"{name:{width}}  {description}")
        return

    from fmrgen.cli import display
    from fmrgen.training.recipe import load_train_recipe

    load = load_train_recipe if name.startswith("train/") else load_recipe
    display.print_recipe(load(name, overrides or []))


def doctor(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that jobs would write to.")] = Path("."),
) -> None:
    """Print what a bug report needs: versions, devices, Hub."""
    from fmrgen.cli import display
    from fmrgen.cli.doctor import examine

    for name, found in examine(folder):
        display.print_line(f"{name:16} {found}")
