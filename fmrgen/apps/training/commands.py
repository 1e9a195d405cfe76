"""The command `train`."""

from typing import Annotated

from cyclopts import Parameter

from fmrgen.cli import options
from fmrgen.cli.command import Command
from fmrgen.distributed.rank import is_first_process


def train(
    recipe: options.Recipe,
    /,
    *overrides: options.Overrides,
    output: Annotated[str, Parameter(alias="-o", metavar="DIR")] = "trained",
    log_file: options.LogFile | None = None,
    trackers: options.Trackers = (),
    processes: options.Processes = 1,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a classifier, an oracle or a generator.

    Run the same command again to resume.

    Example: fmrgen train train/mnist-lenet schedule.seed=2 --output trained/lenet

    Args:
        output: The folder for the weights, or one in a bucket: s3://…
    """
    from fmrgen.apps.training.recipe import load_train_recipe
    from fmrgen.config import check_places

    loaded = load_train_recipe(recipe, list(overrides))
    check_places(loaded)

    from fmrgen.apps.training.loop import train as run
    from fmrgen.cli import display
    from fmrgen.progress.bars import progress_shown
    from fmrgen.progress.log import JobLog

    display.quiet_libraries(quiet)
    is_first = is_first_process()
    log = JobLog(log_file if is_first else None)

    with log.outcome(), progress_shown(not quiet):
        metrics = run(loaded, output, log.steps(), list(trackers))
    log.write("end", metrics=metrics)
    if is_first and as_json:
        display.print_json({"output": str(output), "metrics": metrics})
    elif is_first:
        figures = [f"{name} {value:.4f}" for name, value in metrics.items()]
        display.print_line(f"{output}: {', '.join(figures)}")


COMMANDS = [Command("train", "Generate", train, resumes=True)]
