"""The commands that compare classifiers, and rankings of them."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
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
    recipes = {Path(one).stem: load_recipe(one, limited(limit, overrides)) for one in (recipe, *others)}
    for loaded in recipes.values():
        check_places(loaded)
    if len(recipes) <= len(others):
        raise UserError("--with: two recipes have the same name; rename one of the files")
    if choices or more_oracles:
        from fmrgen.studies.compare import variants

        first, *more = recipes.items()
        recipes = {**variants(first[1], choices, more_oracles), **dict(more)}

    from fmrgen.cli import display
    from fmrgen.studies.orders import agreement, check_many_enough
    from fmrgen.studies.orders_report import agreement_lines, agreement_table, write_agreement

    check_many_enough(len(recipes), len(named))
    evaluations = {
        name: _compare(loaded, named, output / name, seeds, batch_size, formats, quiet, as_json)
        for name, loaded in recipes.items()
    }
    if not is_first_process():
        return
    found = agreement(evaluations)
    written = write_agreement(found, output, formats)
    if not quiet and not as_json:
        display.print_table(agreement_table(found), f"rank and FMR, {found.rows} images")
        for line in agreement_lines(found):
            display.print_line(line)
    display.print_written(written, as_json)


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
    """The comparison under one recipe; its report, and what is printed of it."""
    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress
    from fmrgen.report.write import prepare_folder, write_report
    from fmrgen.studies.compare import compare as run

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
            display.print_evaluation(evaluation)
        (display.print_note if as_json else display.print_line)(str(output / "comparison" / "report.html"))
    return evaluation


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

    from fmrgen.cli import display
    from fmrgen.results.evaluation import read_figures
    from fmrgen.studies.rank_correlation import at_chance, correlations, measures
    from fmrgen.studies.rank_correlation_report import correlation_table, write_correlations

    formats = plot_formats(plots)
    figures = [read_figures(path) for path in files]
    if left_out := at_chance(figures):
        display.print_note(f"hardly better than chance on originals, so left out: {', '.join(left_out)}")
    columns = measures(figures)
    found = correlations(columns, chosen or [])
    written = write_correlations(found, columns, output, formats)
    if not quiet and not as_json:
        display.print_table(correlation_table(found), "rank correlations over classifiers; an mCE is an error")
    display.print_written(written, as_json)


def _evaluation_file(path: Path) -> Path:
    """The file of an evaluation, or of the folder of one. Raises UserError where there is none."""
    from fmrgen.files import no_such_folder
    from fmrgen.storage.paths import splits_in

    if not path.is_dir():
        if not path.exists():
            raise UserError(no_such_folder(str(path)))
        return path
    file = path / "evaluation.json"
    if file.exists():
        return file
    what = "contains splits and no evaluation" if splits_in(path) else "contains no evaluation"
    below = path / "comparison"
    cure = str(below) if (below / "evaluation.json").exists() else "the folder of `fmrgen evaluate` or `compare`"
    raise UserError(f"{path}: {what}; name {cure}")


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
    from fmrgen.recipe.job import describe_studies

    if name is None:
        described = describe_studies()
        if as_json:
            print(
                json.dumps({name: study._asdict() for name, study in described.items()}, ensure_ascii=False, indent=2)
            )
            return
        for shipped, (title, minutes) in described.items():
            print(f"{shipped:16} {'' if minutes is None else f'{minutes} min':>8}  {title}")
        return

    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress
    from fmrgen.report.write import write_report
    from fmrgen.studies.parts import Work
    from fmrgen.studies.study import load_study, run_study, study_lines
    from fmrgen.studies.study_report import claims_table, write_study
    from fmrgen.studies.validity_report import write_validity

    loaded = load_study(name)
    is_first = is_first_process()
    show = not quiet and is_first

    def bar(at_work: str) -> AbstractContextManager[Callable[[int, int | None], None]]:
        return progress.row_progress(at_work, show)

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
            lines = study_lines(loaded, scale, work)
            if as_json:
                study = {"title": loaded.title, "scale": scale, "change": work.change}
                display.print_json({**study, "minutes": loaded.at(scale).minutes, "lines": lines})
            for line in () if as_json else lines:
                display.print_line(line)
            return
        display.quiet_libraries()
        found = run_study(loaded, scale, work)
    if not is_first:
        return
    show_all, tables, by_class = all_tables and not quiet and not as_json, found.tables(), found.class_tables()
    for part, evaluation in found.evaluations.items():
        write_report(evaluation, output / part / "comparison")
        if show_all:
            display.print_evaluation(evaluation)
    written = write_study(
        loaded.title, found.how, loaded.paper, found.claims, tables | by_class, found.evaluations, output
    )
    written += [] if found.validity is None else write_validity(found.validity, output)
    display.print_written(written, as_json)
    if quiet or as_json:
        return
    for title, table in ((by_class if show_all else {}) | tables).items():
        display.print_table(table, title)
    if found.claims:
        display.print_table(claims_table(found.claims), f"{loaded.title}; {found.how}")
