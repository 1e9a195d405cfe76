"""The commands `inspect` and `sparsify`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from fmrgen.cli import options
from fmrgen.cli.command import Command
from fmrgen.errors import UserError

if TYPE_CHECKING:
    from fmrgen.apps.pilot.inspect import Trial


def inspect(
    recipe: options.Recipe,
    /,
    *overrides: options.Overrides,
    images: Annotated[int, options.whole_number(2)] = 32,
    download: bool = False,
    masking: bool = False,
    seconds: Annotated[float, Parameter(metavar="S", validator=Number(gte=1))] = 90,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Try a recipe on a few images and propose a step size.

    Args:
        images: Images to try, at least 2.
        download: Download the weights for perceptual distances if they are missing.
        masking: Perturb them without gradients too, to see whether the classifier's gradient lies.
        seconds: About how long it may take; what takes longer is left out, and named.
    """
    loaded = options.load_recipe(recipe, overrides)

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
    recipe: options.Recipe,
    /,
    *overrides: options.Overrides,
    output: Annotated[Path, Parameter(alias="-o", metavar="FILE")] = Path("mask.safetensors"),
    samples: options.Count = 1000,
    regularization: Annotated[float | None, Parameter(metavar="X")] = None,
    quiet: options.Quiet = False,
) -> None:
    """Find the latent dimensions that matter.

    Writes a mask for `generator.mask`: the paper's sparse model (App. I).

    Args:
        output: The mask's file.
        samples: Images to perturb and learn from.
        regularization: Strength of the l1 penalty (the paper uses 36.36). Default: chosen along a path.
    """
    if regularization is not None and not 0 < regularization < float("inf"):
        raise UserError("--regularization: must be a positive number")
    loaded = options.load_recipe(recipe, overrides, samples)

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
