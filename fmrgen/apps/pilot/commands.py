"""The commands `inspect` and `sparsify`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmrgen.cli.command import Command
from fmrgen.cli.options import (
    JsonOption,
    OverridesArgument,
    QuietOption,
    RecipeArgument,
)
from fmrgen.errors import UserError

if TYPE_CHECKING:
    from fmrgen.apps.pilot.inspect import Trial


def inspect(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    images: Annotated[int, typer.Option("--images", metavar="N", min=2, help="Images to try.")] = 32,
    download: Annotated[
        bool, typer.Option("--download", help="Download the weights for perceptual distances if they are missing.")
    ] = False,
    masking: Annotated[
        bool,
        typer.Option(
            "--masking", help="Perturb them without gradients too, to see whether the classifier's gradient lies."
        ),
    ] = False,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            metavar="S",
            min=1,
            help="About how long it may take; what takes longer is left out, and named.",
        ),
    ] = 90,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Try a recipe on a few images and propose a step size."""
    from fmrgen.config import check_places
    from fmrgen.recipe.job import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    check_places(loaded)

    from fmrgen.apps.pilot.inspect import inspect as run
    from fmrgen.apps.pilot.report import inspection_report
    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    show = not quiet and not as_json
    with progress.row_progress("inspect, passes of an image", show) as on_passes:
        inspection = run(
            loaded,
            images=images,
            download=download,
            masking=masking,
            seconds=seconds,
            on_trial=_print_trial if show else lambda trial: None,
            on_passes=on_passes,
        )
    display.deliver(inspection_report(inspection), as_json=as_json)


def _print_trial(trial: "Trial") -> None:
    """Print one step size, while others are tried."""
    from fmrgen.cli import display

    display.print_note(f"step_size {trial.step_size:g}: {trial}")


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

    from fmrgen.apps.pilot.report import mask_report
    from fmrgen.apps.pilot.sparsify import sparsify as run
    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    with progress.row_progress("sparsify", not quiet) as on_images:
        mask = run(loaded, output, regularization=regularization, on_images=on_images)
    if not quiet:
        display.deliver(mask_report(mask, f"{loaded.output.config}/{loaded.output.split}"))
        config = f"output.config={loaded.output.config}-sparse"
        display.print_note(f"use it: fmrgen generate {recipe} generator.mask={output} {config}")
    display.print_line(output)


COMMANDS = [Command("inspect", "Make", inspect), Command("sparsify", "Make", sparsify)]
