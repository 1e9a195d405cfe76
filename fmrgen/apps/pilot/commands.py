"""The commands `init`, `inspect` and `sparsify`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from fmrgen.cli import options
from fmrgen.cli.command import Command
from fmrgen.errors import UserError

if TYPE_CHECKING:
    from fmrgen.apps.pilot.inspect import Trial


_REPO = re.compile(r"[\w-][\w.-]*/[\w.-]+(:[\w.-]+)?")  # of a dataset on the Hub


def init(
    images: str,
    /,
    *,
    model: Annotated[str | None, Parameter(metavar="C")] = None,
    network: Annotated[str | None, Parameter(name="--as", metavar="MODULE:NAME")] = None,
    generators: Annotated[Sequence[str], Parameter(name="--generator", metavar="{kind: …}")] = (),
    oracles: Annotated[Sequence[str], Parameter(name="--oracle", metavar="[NAME=]O")] = (),
    backbone: Annotated[str | None, Parameter(metavar="timm:NAME")] = None,
    names: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    output: Annotated[Path, Parameter(alias="-o", metavar="FILE")] = Path(options.OWN_RECIPE),
    minutes: Annotated[float, Parameter(metavar="M", validator=Number(gte=1))] = 10,
    quick: bool = False,
    offline: bool = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Choose a recipe for your labelled images.

    Looks at the images, teaches a panel of networks to judge them, tries generators and steps, and writes a recipe with
    its reasons. `fmrgen generate`, `compare` and `diff` then take it by themselves. Run the same command again to
    resume.

    Args:
        images: A folder with a folder of images for each class; OWNER/DATASET[:SPLIT] on the Hub; or a source section.
        model: The network that will be tested; without it one is trained to stand in for it.
        network: Network of a file of weights that --model names, as last.pt.
        generators: A generator to try first. Repeat for more.
        oracles: An oracle to try beside the panel. Repeat for more.
        backbone: Train a linear probe on the features of this network as a further oracle.
        names: What classes are called, for oracles that read: a CSV file of lines class,name.
        output: The recipe's file; what it rests on lies beside it, in NAME.init.
        minutes: About how long it may take, with a first diff.
        quick: Train nothing: turn, shift and tone images, under the oracle that --oracle names.
        offline: Take nothing from the Hub.
    """
    from fmrgen.files import no_such_folder, parse_yaml
    from fmrgen.recipe.job import source_config_of
    from fmrgen.recipe.many_classifiers import expanded

    if model is not None:
        words = expanded(model, network)
        if len(words) != 1:
            raise UserError(f"--model {model}: stands for {len(words)} classifiers; name one")
        model = words[0]
    photos: Any = images
    if images.lstrip().startswith("{"):
        photos = source_config_of(parse_yaml(images, images), images)
    elif _REPO.fullmatch(images) and not Path(images).exists():
        repo, _, part = images.partition(":")
        photos = source_config_of({"kind": "datasets", "path": repo, "split": part or "test"}, images)
    elif not Path(images).is_dir():
        raise UserError(no_such_folder(images))

    from fmrgen.apps.pilot.class_names import read_glossary
    from fmrgen.apps.pilot.init import init as run
    from fmrgen.apps.pilot.written import init_report
    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    show = not quiet and not as_json
    with progress.split_progress(show) as on_stage:
        outcome = run(
            photos,
            model,
            output=output,
            generators=[parse_yaml(text, text) for text in generators],
            oracles=oracles,
            backbone=backbone,
            names=None if names is None else read_glossary(names),
            minutes=minutes,
            quick=quick,
            offline=offline,
            on_stage=on_stage,
            on_note=display.print_note if show else lambda line: None,
        )
    report = init_report(outcome, "out")
    display.deliver(report, output.with_suffix(".init"), as_json=as_json, quiet=quiet)
    display.print_line(output)


def inspect(
    recipe: options.OwnRecipe = None,
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
    loaded = options.load_recipe(*options.own_recipe(recipe, overrides))

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
    recipe: options.OwnRecipe = None,
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
    own, changes = options.own_recipe(recipe, overrides)
    loaded = options.load_recipe(own, changes, samples)

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
        display.print_note(f"use it: fmrgen generate {own} generator.mask={output} {config}")
    display.print_line(output)


COMMANDS = [
    Command("init", "Make", init, resumes=True),
    Command("inspect", "Make", inspect),
    Command("sparsify", "Make", sparsify),
]
