"""The commands `study`, `agree`, `sweep` and `attack-oracle`."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fmrgen.cli.command import Command
from fmrgen.cli.options import (
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
    from fmrgen.apps.studies.parts import Work
    from fmrgen.apps.studies.study import Study, StudyFound


def attack_oracle(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    classifiers: Annotated[
        list[str] | None,
        typer.Option("--classifier", "-c", metavar="[NAME=]C", help="Attack this classifier too. Repeat for more."),
    ] = None,
    epsilons: Annotated[
        list[str] | None,
        typer.Option("--epsilon", metavar="E", help="Largest change of a pixel, like 8/255. Repeat for more."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Steps of the attack.")] = 20,
    limit: LimitOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The figures, as JSON.")] = Path(
        "attacked-oracle.json"
    ),
    quiet: QuietOption = False,
) -> None:
    """Attack the oracle itself, beside classifiers.

    Each image is attacked towards another class, as in the paper's App. L.
    """
    from fmrgen.config import check_places
    from fmrgen.engine.attacks import radius
    from fmrgen.files import json_text, write_atomically
    from fmrgen.recipe.job import load_classifiers, load_recipe

    loaded = load_recipe(recipe, limited(limit, overrides))
    named = load_classifiers(classifiers) if classifiers else {}
    check_places(loaded)
    radii = [radius(text) for text in epsilons or ["2/255", "4/255", "8/255", "16/255"]]

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
    recipe: RecipeArgument,
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="section.key=value,value",
            help="Values to try, in all combinations. A key with one value just changes the recipe.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Each combination gets a dataset folder in DIR.")
    ] = Path("sweep"),
    limit: LimitOption = None,
    plots: PlotsOption = "",
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a split for every combination of values.

    Prints one table and draws one plot of all. Run the same command again to resume.
    """
    from fmrgen.apps.studies.sweep import parse_grid
    from fmrgen.config import check_places

    grid, formats = parse_grid(recipe, limited(limit, values)), plot_formats(plots)
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
    evaluations: Annotated[
        list[Path], typer.Argument(metavar="EVALUATION.json...", help="From `evaluate` or `compare`, or its folder.")
    ],
    chosen: Annotated[
        list[str] | None,
        typer.Option(
            "--measure", metavar="NAME", help="Compare these: own FMR, SA, FMR on SPLIT, a fixed set, its mCE."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write to.")] = Path(
        "agree"
    ),
    plots: PlotsOption = "",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check whether measures rank classifiers alike.

    FMR and fixed benchmarks, for example: Spearman's and Kendall's correlation of each pair over the classifiers. For
    FMR under other generators, steps or oracles use compare --with, --robust-to and --oracle.
    """
    files = [_evaluation_file(path) for path in evaluations]

    from fmrgen.apps.studies.rank_correlation import at_chance, correlations, measures
    from fmrgen.apps.studies.rank_correlation_report import correlations_report
    from fmrgen.cli import display
    from fmrgen.report.write import prepare_folder
    from fmrgen.results.evaluation import read_figures

    formats = plot_formats(plots)
    figures = [read_figures(path) for path in files]
    left_out = at_chance(figures)
    if left_out:
        display.print_note(f"hardly better than chance on originals, so left out: {', '.join(left_out)}")
    columns = measures(figures)
    pairs = correlations(columns, chosen or [])
    prepare_folder(output)
    report = correlations_report(pairs, columns)
    display.deliver(report, output, as_json=as_json, quiet=quiet, plot_formats=formats)


def _evaluation_file(path: Path) -> Path:
    """Return the file of an evaluation, or of a folder that contains one. Raises UserError if there is none."""
    from fmrgen.files import no_such_folder
    from fmrgen.storage.paths import splits_in

    if not path.is_dir():
        if not path.exists():
            raise UserError(no_such_folder(str(path)))
        return path
    file = path / "evaluation.json"
    if file.exists():
        return file
    problem = "contains splits and no evaluation" if splits_in(path) else "contains no evaluation"
    comparison = path / "comparison"
    cure = "the folder of `fmrgen evaluate` or `compare`"
    if (comparison / "evaluation.json").exists():
        cure = str(comparison)
    raise UserError(f"{path}: {problem}; name {cure}")


def study(
    name: Annotated[
        str | None, typer.Argument(metavar="STUDY", help="A study's file, or the name of a shipped one.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="section.key=value", help="Changes to all recipes of splits.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The study's folder.")] = Path("study"),
    scale: Annotated[Scale, typer.Option("--scale", help="small: on two CPU cores; full: as in the paper.")] = "small",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the parts, and do nothing.")] = False,
    all_tables: Annotated[
        bool, typer.Option("--tables", help="Print the tables of all parts too; study.md always has them.")
    ] = False,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run a table of the paper, and report which claims hold.

    Trains models, makes splits and compares them. Without STUDY, lists the studies and their time on two CPU cores.
    Run the same command again to resume.
    """
    if name is None:
        _list_studies(as_json)
        return

    from fmrgen.apps.studies.parts import Work
    from fmrgen.apps.studies.study import load_study, run_study
    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress

    loaded = load_study(name)
    is_first = is_first_process()
    show = not quiet and is_first

    def bar(title: str) -> AbstractContextManager[Callable[[int, int | None], None]]:
        return progress.row_progress(title, show)

    with progress.split_progress(show and not dry_run) as on_rows:
        work = Work(
            output,
            overrides or [],
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
        _report(results, output, all_tables=all_tables, as_json=as_json, quiet=quiet)


def _list_studies(as_json: bool) -> None:
    """Print the shipped studies and their time on two CPU cores."""
    from fmrgen.recipe.job import describe_studies

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
    from fmrgen.apps.studies.validity_report import validity_report
    from fmrgen.cli import display
    from fmrgen.report.write import write, write_report

    for part, evaluation in results.evaluations.items():
        write_report(evaluation, output / part / "comparison")
    if results.validity is not None:
        write(validity_report(results.validity), output)
    display.deliver(study_report(results, print_all=all_tables), output, as_json=as_json, quiet=quiet)


COMMANDS = [
    Command("agree", "Compare", agree),
    Command("study", "Compare", study, resumes=True),
    Command("attack-oracle", "Validate", attack_oracle),
    Command("sweep", "Validate", sweep),
]
