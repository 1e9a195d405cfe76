"""The commands `init` and `sparsify`."""

import re
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fmrgen.cli import options
from fmrgen.cli.command import Command
from fmrgen.errors import UserError, write_line

_REPO = re.compile(r"[\w-][\w.-]*/[\w.-]+(:[\w.-]+)?")  # of a dataset on the Hub


def init(
    images: str,
    /,
    *,
    model: Annotated[str, Parameter(metavar="C")],
    network: options.Network = None,
    generator: Annotated[str | None, Parameter(metavar="G")] = None,
    oracle: Annotated[str | None, Parameter(metavar="O")] = None,
    output: Annotated[Path, Parameter(alias="-o", metavar="FILE")] = Path(options.OWN_RECIPE),
    offline: bool = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Choose a recipe for your labelled images and your network.

    Inspects the images, trains a panel of three networks as their oracle (about four minutes), tries generators and
    step sizes, and writes a recipe that gives the reason for each choice. `fmrgen generate`, `compare` and `diff`
    find it in this folder. Run the same command again to resume.

    Example: fmrgen init photos --model last.pt --as my_models:Net

    Args:
        images: A folder with a folder of images for each class; OWNER/DATASET[:SPLIT] on the Hub; or a source section.
        model: The classifier to test.
        generator: Use this generator; try no other.
        oracle: Use this oracle; train no panel.
        output: The recipe to write; its image lists and trained networks go to NAME.init.
        offline: Download nothing from the Hub.
    """
    from fmrgen.files import no_such_folder, parse_yaml
    from fmrgen.recipe.classifier_forms import is_inline
    from fmrgen.recipe.job import the_classifier
    from fmrgen.recipe.sections import source_config_of

    section = the_classifier(model, network)[1]
    photos: Any = images
    if images.lstrip().startswith("{"):
        photos = source_config_of(parse_yaml(images, images), images)
    elif _REPO.fullmatch(images) and not Path(images).exists():
        repo, _, part = images.partition(":")
        photos = source_config_of({"kind": "datasets", "path": repo, "split": part or "test"}, images)
    elif not Path(images).is_dir():
        raise UserError(no_such_folder(images))

    from fmrgen.apps.pilot.init import init as run
    from fmrgen.apps.pilot.init import init_report
    from fmrgen.cli import display
    from fmrgen.progress.bars import progress_shown

    display.quiet_libraries(quiet or as_json)
    with progress_shown(not quiet and not as_json):
        outcome = run(
            photos,
            model if network is None else section,
            output=output,
            generator=parse_yaml(generator, generator) if generator and is_inline(generator) else generator,
            oracle=oracle,
            offline=offline,
        )
    display.deliver(init_report(outcome), output.with_suffix(".init"), as_json=as_json, quiet=quiet)
    display.print_line(output)


def sparsify(
    recipe: options.OwnRecipe = None,
    /,
    *overrides: options.Overrides,
    output: Annotated[Path, Parameter(alias="-o", metavar="FILE")] = Path("mask.safetensors"),
    samples: options.Count = 1000,
    regularization: Annotated[float | None, Parameter(metavar="X")] = None,
    quiet: options.Quiet = False,
) -> None:
    """Find the latent dimensions that matter to the classifier.

    Writes a mask for `generator.mask`: the paper's sparse model (App. I).

    Example: fmrgen sparsify out:mnist/lenet --output mask.safetensors

    Args:
        output: The mask's file.
        samples: Images to perturb and learn from.
        regularization: Strength of the l1 penalty (36.36 in the paper). Default: chosen along a regularization path.
    """
    if regularization is not None and not 0 < regularization < float("inf"):
        raise UserError("--regularization: must be a positive number")
    own, changes = options.own_recipe(recipe, overrides)
    loaded = options.load_recipe(own, changes, samples)

    from fmrgen.apps.pilot.sparsify import mask_report
    from fmrgen.apps.pilot.sparsify import sparsify as run
    from fmrgen.cli import display
    from fmrgen.progress.bars import progress_shown

    display.quiet_libraries(quiet)
    with progress_shown(not quiet):
        mask = run(loaded, output, regularization=regularization)
    if not quiet:
        display.deliver(mask_report(mask, f"{loaded.output.config}/{loaded.output.split}"))
        config = f"output.config={loaded.output.config}-sparse"
        write_line(f"use it: fmrgen generate {own} generator.mask={output} {config}")
    display.print_line(output)


COMMANDS = [Command("init", "Generate", init, resumes=True), Command("sparsify", "Generate", sparsify)]
