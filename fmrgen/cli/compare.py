"""The command that compares classifiers, each on its own split."""

from pathlib import Path

from fmrgen.cli import options
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError


def compare(
    recipe: options.OwnRecipe = None,
    /,
    *overrides: options.Overrides,
    classifiers: options.Classifiers,
    network: options.Network = None,
    output: options.Output = Path("out"),
    limit: options.Limit | None = None,
    plots: options.Plots = "",
    processes: options.Processes = 1,
    every: options.All = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare classifiers, each on a split generated against it.

    Prints the classifiers on their own splits (paper Table 1); the page and --all have the transfer matrix too
    (Table 6). Existing splits are reused: run the same command again to resume.

    Example: fmrgen compare mnist-lenet -c asset:mnist/lenet -c vit=trained/vit

    Args:
        output: The dataset folder; the report is DIR/comparison.
    """
    from fmrgen.files import check_writable
    from fmrgen.recipe.job import load_classifiers

    named, formats = load_classifiers(classifiers, network), options.plot_formats(plots)
    if sum(len(section) if isinstance(section, list) else 1 for section in named.values()) < 2:
        raise UserError("--classifier: a comparison needs at least two; repeat it")
    check_writable(output)
    loaded = options.load_recipe(*options.own_recipe(recipe, overrides), limit)

    from fmrgen.cli import display
    from fmrgen.jobs.compare import compare as run
    from fmrgen.report.outline import evaluation_report
    from fmrgen.report.write import write_predictions

    display.quiet_libraries(quiet)
    evaluation = run(loaded, named, output, progress=not quiet)
    if not is_first_process():
        return
    report = evaluation_report(evaluation)
    write_predictions(evaluation, output / "comparison")
    display.deliver(report, output / "comparison", as_json=as_json, quiet=quiet, every=every, plot_formats=formats)
