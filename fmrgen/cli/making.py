"""The commands around the making of splits: a pilot, the sparse model, and training."""

from pathlib import Path
from typing import Annotated

import typer

from fmrgen.cli.options import (
    JsonOption,
    LogFileOption,
    OverridesArgument,
    ProcessesOption,
    QuietOption,
    RecipeArgument,
    TrackersOption,
)
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError


def inspect(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    images: Annotated[int, typer.Option("--images", metavar="N", min=2, help="Images to try.")] = 32,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the weights of perceptual distances, if they are not here.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Try a recipe on a few images and propose a step size."""
    from fmrgen.config import check_places
    from fmrgen.recipe.job import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    check_places(loaded)

    from fmrgen.cli import display
    from fmrgen.jobs.inspect import inspect as run

    display.quiet_libraries()
    show = not quiet and not as_json
    on_trial = display.print_trial if show else lambda trial: None
    found = run(loaded, images=images, download=download, on_trial=on_trial)
    if as_json:
        display.print_json(found)
    else:
        display.print_inspection(found)


def sparsify(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The mask's file.")] = Path(
        "mask.safetensors"
    ),
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", min=1, help="Images to perturb and learn from.")
    ] = 1000,
    regularization: Annotated[
        float | None,
        typer.Option(
            "--regularization",
            metavar="X",
            help="Strength of the l1 penalty (the paper uses 36.36). Default: chosen along a path.",
        ),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Find the latent dimensions that matter.

    Writes a mask for `generator.mask`: the paper's sparse model (App. I).
    """
    from fmrgen.config import check_places
    from fmrgen.recipe.job import load_recipe

    if regularization is not None and not 0 < regularization < float("inf"):
        raise UserError("--regularization: must be a positive number")
    loaded = load_recipe(recipe, [f"source.limit={samples}", *(overrides or [])])
    check_places(loaded)

    from fmrgen.cli import display
    from fmrgen.jobs.sparsify import sparsify as run
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    with progress.row_progress("sparsify", not quiet) as on_images:
        found = run(loaded, output, regularization=regularization, on_images=on_images)
    if not quiet:
        display.print_sparse_mask(found, f"{loaded.output.config}/{loaded.output.split}")
        config = f"output.config={loaded.output.config}-sparse"
        display.print_note(f"use it: fmrgen generate {recipe} generator.mask={output} {config}")
    display.print_line(output)


def train(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write the weights to.")
    ] = Path("trained"),
    log_file: LogFileOption = None,
    trackers: TrackersOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a classifier, an oracle or a generator.

    Run the same command again to resume.
    """
    from fmrgen.config import check_places
    from fmrgen.training.recipe import load_train_recipe

    loaded = load_train_recipe(recipe, overrides or [])
    check_places(loaded)

    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress
    from fmrgen.training.loop import train as run

    display.quiet_libraries()
    is_first = is_first_process()
    log = progress.JobLog(log_file if is_first else None)

    def tell(line: str) -> None:
        display.print_note(line)
        log.write("note", text=line)

    with log.outcome(), progress.step_progress("train", not quiet and is_first, log) as on_step:
        metrics = run(loaded, output, on_step, trackers or [], tell)
    log.write("end", metrics=metrics)
    if is_first and as_json:
        display.print_json({"output": str(output), "metrics": metrics})
    elif is_first:
        display.print_line(f"{output}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
