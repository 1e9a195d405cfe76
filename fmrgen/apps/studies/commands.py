"""The commands `study`, `agree`, `sweep` and `attack-oracle`."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fmrgen.cli import options
from fmrgen.cli.command import Command
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError

if TYPE_CHECKING:
    from fmrgen.apps.studies.parts import Work
    from fmrgen.apps.studies.study import Study, StudyFound


def attack_oracle(
    recipe: options.Recipe,
    /,
    *overrides: options.Overrides,
    classifiers: Annotated[Sequence[str], Parameter(name=("--classifier", "-c"), metavar="[NAME=]C")] = (),
    epsilons: Annotated[Sequence[str], Parameter(name="--epsilon", metavar="E")] = (
        "2/255",
        "4/255",
        "8/255",
        "16/255",
    ),
    steps: options.Count = 20,
    limit: options.Limit | None = None,
    output: Annotated[Path, Parameter(alias="-o", metavar="FILE")] = Path("attacked-oracle.json"),
    quiet: options.Quiet = False,
) -> None:
    """Attack the oracle itself, beside classifiers.

    Each image is attacked towards another class, as in the paper's App. L.

    Args:
        classifiers: Attack this classifier too. Repeat for more.
        epsilons: Largest change of a pixel, like 8/255. Repeat for more.
        steps: Steps of the attack.
        output: The figures, as JSON.
    """
    from fmrgen.engine.attacks import radius
    from fmrgen.files import json_text, write_atomically
    from fmrgen.recipe.job import load_classifiers

    loaded = options.load_recipe(recipe, overrides, limit)
    named = load_classifiers(classifiers) if classifiers else {}
    radii = [radius(text) for text in epsilons]

    from fmrgen.apps.studies.attack_oracle import attack_oracle as run
    from fmrgen.apps.studies.attack_oracle_report import attacked_report
    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    with progress.row_progress("attack", not quiet) as on_images:
        judges = run(loaded, named, radii, steps=steps, on_images=on_images)
    report = attacked_report(judges)
    write_atomically(output, json_text(report.data).encode())
    display.deliver(report, quiet=quiet)
    display.print_line(output)


def sweep(
    recipe: options.Recipe,
    /,
    *values: Annotated[str, Parameter(name="section.key=value,value", required=True)],
    output: options.Output = Path("sweep"),
    limit: options.Limit | None = None,
    plots: options.Plots = "",
    processes: options.Processes = 1,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a split for every combination of values.

    Prints one table and draws one plot of all. Run the same command again to resume.

    Args:
        values: Values to try, in all combinations. A key with one value just changes the recipe.
        output: Each combination gets a dataset folder in DIR.
    """
    from fmrgen.apps.studies.sweep import parse_grid
    from fmrgen.config import check_places

    grid, formats = parse_grid(recipe, options.limited(limit, values)), options.plot_formats(plots)
    for point in grid:
        check_places(point.recipe)

    from fmrgen.apps.studies.sweep import sweep as run
    from fmrgen.apps.studies.sweep_report import sweep_report
    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    is_first = is_first_process()
    show = not quiet and is_first
    points = run(grid, output, job_progress=lambda made: progress.job_progress(made, show), on_note=display.print_note)
    if is_first:
        report = sweep_report(points, str(recipe))
        display.deliver(report, output, as_json=as_json, quiet=quiet, plot_formats=formats)


Scale = Literal["small", "full"]


def agree(
    *evaluations: Annotated[Path, Parameter(required=True)],
    measures: Annotated[Sequence[str], Parameter(name="--measure", metavar="NAME")] = (),
    output: options.Output = Path("agree"),
    plots: options.Plots = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check whether measures rank classifiers alike.

    FMR and fixed benchmarks, for example: Spearman's and Kendall's correlation of each pair over the classifiers. For
    FMR under other generators, steps or oracles use compare --with, --robust-to and --oracle.

    Args:
        evaluations: An evaluation.json of `evaluate` or `compare`, or its folder.
        measures: Compare these: own FMR, SA, FMR on SPLIT, a fixed set, its mCE. Repeat for more.
        output: The folder to write to.
    """
    from fmrgen.files import check_writable

    files = [_evaluation_file(path) for path in evaluations]
    check_writable(output)

    from fmrgen.apps.studies.rank_correlation import at_chance, correlations
    from fmrgen.apps.studies.rank_correlation import measures as measures_of
    from fmrgen.apps.studies.rank_correlation_report import correlations_report
    from fmrgen.cli import display
    from fmrgen.results.evaluation import read_figures

    formats = options.plot_formats(plots)
    figures = [read_figures(path) for path in files]
    left_out = at_chance(figures)
    if left_out:
        display.print_note(f"hardly better than chance on originals, so left out: {', '.join(left_out)}")
    columns = measures_of(figures)
    pairs = correlations(columns, list(measures))
    report = correlations_report(pairs, columns)
    display.deliver(report, output, as_json=as_json, quiet=quiet, plot_formats=formats)


def _evaluation_file(path: Path) -> Path:
    """Return the file of an evaluation, or of a folder that contains one. Raises UserError if there is none."""
    from fmrgen.files import no_such_folder

    if not path.is_dir():
        if not path.exists():
            raise UserError(no_such_folder(str(path)))
        return path
    file = path / "evaluation.json"
    if file.exists():
        return file
    problem = "contains no evaluation"
    if (path / "provenance").exists():
        problem = "contains splits and no evaluation"
    comparison = path / "comparison"
    cure = "the folder of `fmrgen evaluate` or `compare`"
    if (comparison / "evaluation.json").exists():
        cure = str(comparison)
    raise UserError(f"{path}: {problem}; name {cure}")


def study(
    study: str | None = None,
    /,
    *overrides: Annotated[str, Parameter(name="section.key=value")],
    output: options.Output = Path("study"),
    scale: Scale = "small",
    dry_run: bool = False,
    tables: bool = False,
    processes: options.Processes = 1,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a table of the paper, and report which claims hold.

    Trains models, makes splits and compares them. Without STUDY, lists the studies and their time on two CPU cores.
    Run the same command again to resume.

    Args:
        study: A study's file, or the name of a shipped one.
        overrides: Changes to all recipes of splits.
        output: The study's folder.
        scale: small: on two CPU cores; full: as in the paper.
        dry_run: List the parts, and do nothing.
        tables: Print the tables of all parts too; study.md always has them.
    """
    if study is None:
        _list_studies(as_json)
        return

    from fmrgen.apps.studies.parts import Work
    from fmrgen.apps.studies.study import load_study, run_study
    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress

    loaded = load_study(study)
    is_first = is_first_process()
    show = not quiet and is_first

    def bar(title: str) -> AbstractContextManager[Callable[[int, int | None], None]]:
        return progress.row_progress(title, show)

    with progress.split_progress(show and not dry_run) as on_rows:
        work = Work(
            output,
            list(overrides),
            bar,
            job_progress=lambda made: progress.job_progress(made, show),
            on_rows=on_rows,
            on_note=display.print_note,
        )
        if dry_run:
            _print_plan(loaded, scale, work, as_json)
            return
        display.quiet_libraries()
        results = run_study(loaded, scale, work)
    if is_first:
        _report(results, output, all_tables=tables, as_json=as_json, quiet=quiet)


def _list_studies(as_json: bool) -> None:
    """Print the shipped studies and their time on two CPU cores."""
    from fmrgen.apps.studies.shipped import describe_studies

    studies = describe_studies()
    if as_json:
        print(json.dumps({name: study._asdict() for name, study in studies.items()}, ensure_ascii=False, indent=2))
        return
    for name, (title, minutes) in studies.items():
        time = "" if minutes is None else f"{minutes} min"
        print(f"{name:16} {time:>8}  {title}")


def _print_plan(study: "Study", scale: Scale, work: "Work", as_json: bool) -> None:
    """Print what a study would do."""
    from fmrgen.apps.studies.study import study_lines
    from fmrgen.cli import display

    lines = study_lines(study, scale, work)
    if as_json:
        plan = {"title": study.title, "scale": scale, "change": work.change}
        display.print_json({**plan, "minutes": study.at(scale).minutes, "lines": lines})
        return
    for line in lines:
        display.print_line(line)


def _report(results: "StudyFound", output: Path, *, all_tables: bool, as_json: bool, quiet: bool) -> None:
    """Write the reports of a finished study into `output`, and print its tables."""
    from fmrgen.apps.studies.study_report import study_report
    from fmrgen.cli import display
    from fmrgen.report.write import write_report

    for part, evaluation in results.evaluations.items():
        write_report(evaluation, output / part / "comparison")
    display.deliver(study_report(results, print_all=all_tables), output, as_json=as_json, quiet=quiet)


COMMANDS = [
    Command("agree", "Compare", agree),
    Command("study", "Compare", study, resumes=True),
    Command("attack-oracle", "Validate", attack_oracle),
    Command("sweep", "Validate", sweep),
]
