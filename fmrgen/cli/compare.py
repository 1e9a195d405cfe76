"""The commands that compare classifiers, and rankings of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fmrgen.cli import options
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError

if TYPE_CHECKING:
    from fmrgen.config import ComponentConfig
    from fmrgen.recipe.job import Recipe
    from fmrgen.report.plot import PlotFormat
    from fmrgen.results.evaluation import Evaluation


def compare(
    recipe: options.OwnRecipe = None,
    /,
    *overrides: options.Overrides,
    classifiers: options.Classifiers,
    output: options.Output = Path("out"),
    limit: options.Limit | None = None,
    others: Annotated[Sequence[str], Parameter(name="--with", metavar="RECIPE")] = (),
    robust_to: Annotated[str, Parameter(metavar="step,threshold,search")] = "",
    oracles: Annotated[Sequence[str], Parameter(name="--oracle", metavar="[NAME=]O")] = (),
    seeds: options.Count = 1,
    batch_size: options.BatchSize = 64,
    plots: options.Plots = "",
    processes: options.Processes = 1,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare classifiers, each on a split made for it.

    Prints the own-split table and the transfer matrix (paper Tables 1 and 6). Existing splits are reused;
    run the same command again to resume.

    Args:
        output: The dataset folder; the report is DIR/comparison.
        others: Compare under this recipe too, for example with another generator, and show whether both rank the
            classifiers alike. Repeat for more; each gets a folder in DIR, named after its recipe.
        robust_to: Compare with half and twice the step too, under a stricter oracle, or by a search without gradients,
            and show which classifiers keep their order. --with adds other generators.
        oracles: Compare under this oracle too; choose one unrelated to the classifiers and to the recipe's oracle.
            Written as for judge. Repeat for more.
        seeds: Splits per classifier, each with its own seed.
    """
    from fmrgen.files import check_writable
    from fmrgen.recipe.job import load_classifiers, load_oracles

    named, formats = load_classifiers(classifiers), options.plot_formats(plots)
    if sum(len(section) if isinstance(section, list) else 1 for section in named.values()) < 2:
        raise UserError("--classifier: a comparison needs at least two; repeat it")
    check_writable(output)
    more_oracles = load_oracles(oracles)
    choices = [choice.strip() for choice in robust_to.split(",") if choice.strip()]
    own, changes = options.own_recipe(recipe, overrides)
    if not others and not choices and not more_oracles:
        loaded = options.load_recipe(own, changes, limit)
        evaluation = _compare(loaded, named, output, seeds, batch_size, formats, quiet, as_json)
        if as_json and is_first_process():
            print(evaluation.to_json(), end="")
        return
    recipes = _recipes_to_compare([own, *others], options.limited(limit, changes), choices, more_oracles)

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
    links = {name: f"{name}/comparison/report.html" for name in evaluations}
    report = agreement_report(agreement(evaluations), links)
    display.deliver(report, output, as_json=as_json, quiet=quiet, plot_formats=formats)


def _recipes_to_compare(
    names: list[str], overrides: list[str], choices: list[str], oracles: "dict[str, ComponentConfig]"
) -> "dict[str, Recipe]":
    """Return the recipes under which classifiers are ranked, by the names of their folders: the first one in variants
    of its choices and oracles too."""
    recipes = {}
    for name in names:
        recipes[Path(name).stem] = options.load_recipe(name, overrides)
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
    from fmrgen.report.write import write, write_predictions

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
        report = evaluation_report(evaluation)
        write_predictions(evaluation, output / "comparison")
        write(report, output / "comparison", plots)
        if not quiet and not as_json:
            print_report(report)
        (display.print_note if as_json else display.print_line)(str(output / "comparison" / "report.html"))
    return evaluation
