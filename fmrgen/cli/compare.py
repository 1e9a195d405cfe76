"""The commands that compare classifiers, and rankings of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fmrgen.cli.options import (
    BatchSizeOption,
    ClassifierOption,
    JsonOption,
    LimitOption,
    OverridesArgument,
    PlotsOption,
    ProcessesOption,
    QuietOption,
    RecipeArgument,
    limited,
    plot_formats,
)
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError

if TYPE_CHECKING:
    from fmrgen.config import ComponentConfig
    from fmrgen.recipe.job import Recipe
    from fmrgen.report.plot import PlotFormat
    from fmrgen.results.evaluation import Evaluation

Scale = Literal["small", "full"]


def compare(
    recipe: RecipeArgument,
    classifiers: ClassifierOption,
    overrides: OverridesArgument = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="The dataset folder; the report is DIR/comparison."),
    ] = Path("out"),
    limit: LimitOption = None,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="RECIPE",
            help="Compare under this recipe too, for example with another generator, and show whether both rank the "
            "classifiers alike. Repeat for more; each gets a folder in DIR, named after its recipe.",
        ),
    ] = None,
    robust_to: Annotated[
        str,
        typer.Option(
            "--robust-to",
            metavar="step,threshold,search",
            help="Compare with half and twice the step too, under a stricter oracle, or by a search without "
            "gradients, and show which classifiers keep their order. --with adds other generators.",
        ),
    ] = "",
    oracles: Annotated[
        list[str] | None,
        typer.Option(
            "--oracle",
            metavar="[NAME=]O",
            help="Compare under this oracle too; choose one unrelated to the classifiers and to the recipe's oracle. "
            "Written as for judge. Repeat for more.",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, help="Splits per classifier, each with its own seed.")
    ] = 1,
    batch_size: BatchSizeOption = 64,
    plots: PlotsOption = "",
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare classifiers, each on a split made for it.

    Prints the own-split table and the transfer matrix (paper Tables 1 and 6). Existing splits are reused;
    run the same command again to resume.
    """
    from fmrgen.config import check_places
    from fmrgen.files import check_writable
    from fmrgen.recipe.job import load_classifiers, load_oracles, load_recipe

    named, formats = load_classifiers(classifiers), plot_formats(plots)
    if sum(len(section) if isinstance(section, list) else 1 for section in named.values()) < 2:
        raise UserError("--classifier: a comparison needs at least two; repeat it")
    check_writable(output)
    others, more_oracles = others or [], load_oracles(oracles or [])
    choices = [choice.strip() for choice in robust_to.split(",") if choice.strip()]
    if not others and not choices and not more_oracles:
        loaded = load_recipe(recipe, limited(limit, overrides))
        check_places(loaded)
        evaluation = _compare(loaded, named, output, seeds, batch_size, formats, quiet, as_json)
        if as_json and is_first_process():
            print(evaluation.to_json(), end="")
        return
    recipes = _recipes_to_compare([recipe, *others], limited(limit, overrides), choices, more_oracles)

    from fmrgen.cli import display
    from fmrgen.report.orders import agreement_report
    from fmrgen.results.orders import agreement, check_many_enough

    check_many_enough(len(recipes), len(named))
    evaluations = {
        name: _compare(loaded, named, output / name, seeds, batch_size, formats, quiet, as_json)
        for name, loaded in recipes.items()
    }
    if not is_first_process():
        return
    report = agreement_report(agreement(evaluations))
    display.deliver(report, output, as_json=as_json, quiet=quiet, plot_formats=formats)


def _recipes_to_compare(
    names: list[str], overrides: list[str], choices: list[str], oracles: "dict[str, ComponentConfig]"
) -> "dict[str, Recipe]":
    """Return the recipes under which classifiers are ranked, by the names of their folders: the first one in variants
    of its choices and oracles too."""
    from fmrgen.config import check_places
    from fmrgen.recipe.job import load_recipe

    recipes = {}
    for name in names:
        recipes[Path(name).stem] = load_recipe(name, overrides)
    for loaded in recipes.values():
        check_places(loaded)
    if len(recipes) < len(names):
        raise UserError("--with: two recipes have the same name; rename one of the files")
    if not choices and not oracles:
        return recipes
    from fmrgen.jobs.compare import variants

    first, *others = recipes.items()
    return {**variants(first[1], choices, oracles), **dict(others)}


def _compare(
    recipe: "Recipe",
    classifiers: "dict[str, ComponentConfig | list[ComponentConfig]]",
    output: Path,
    seeds: int,
    batch_size: int,
    plots: "list[PlotFormat]",
    quiet: bool,
    as_json: bool,
) -> "Evaluation":
    """Return the comparison under one recipe; its report, and what is printed of it."""
    from fmrgen.cli import display
    from fmrgen.jobs.compare import compare as run
    from fmrgen.progress import terminal as progress
    from fmrgen.report.console import print_report
    from fmrgen.report.outline import evaluation_report
    from fmrgen.report.write import prepare_folder, write_report

    display.quiet_libraries()
    is_first = is_first_process()
    show = not quiet and is_first
    with progress.split_progress(show) as on_rows:
        evaluation = run(
            recipe,
            classifiers,
            output,
            seeds=seeds,
            batch_size=batch_size,
            job_progress=lambda made: progress.job_progress(made, show),
            on_note=display.print_note,
            on_rows=on_rows,
        )
    if is_first:
        prepare_folder(output / "comparison")
        write_report(evaluation, output / "comparison", plots)
        if not quiet and not as_json:
            print_report(evaluation_report(evaluation))
        (display.print_note if as_json else display.print_line)(str(output / "comparison" / "report.html"))
    return evaluation
