"""The commands that measure classifiers on splits, and look at splits."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fmrgen.cli.options import (
    CLASSIFIER,
    BatchSizeOption,
    JsonOption,
    PlotsOption,
    ProcessesOption,
    QuietOption,
    SplitArgument,
    TrustOption,
    plot_formats,
)
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError

if TYPE_CHECKING:
    from fmrgen.config import ComponentConfig
    from fmrgen.recipe.fixed_sets import FixedSets
    from fmrgen.results.evaluation import Evaluation


def evaluate(
    context: typer.Context,
    classifiers: Annotated[list[str] | None, CLASSIFIER] = None,
    splits: Annotated[
        list[str] | None,
        typer.Argument(metavar="SPLIT...", help="PATH_OR_REPO[@REVISION][:CONFIG/SPLIT], or a parquet file."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            show_default=False,
            help="The report's folder.  [default: evaluation or transfer]",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="RECIPE",
            help="The recipe whose source the splits are made from. Adds SA on the source's own pixels, and SA for "
            "splits without originals.",
        ),
    ] = None,
    attack: Annotated[
        str | None,
        typer.Option(
            "--attack",
            metavar="ATTACK",
            help="Measure accuracy on attacked originals too: pgd-20@8/255, pgd-20-l2@0.5 or fgsm@8/255.",
        ),
    ] = None,
    fixed: Annotated[
        list[str] | None,
        typer.Option(
            "--fixed",
            metavar="[NAME=]SETS",
            help="Measure accuracy on these labelled sets too: sets/imagenet-c, a file, or {kind: …} of a source. "
            "Repeat for more.",
        ),
    ] = None,
    valid_by: Annotated[
        str | None,
        typer.Option(
            "--valid-by",
            metavar="JUDGE",
            help="Count a row as valid only if this judge sees its label too; human means all people together.",
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download splits before reading them, instead of streaming.")
    ] = False,
    models: Annotated[
        Path | None,
        typer.Option("--models", metavar="FILE", help="YAML with more classifiers, `NAME: C` or `NAME: OWNER/MODEL`."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option("--as", metavar="MODULE:NAME", help="Network of the weights that -c names, as 'steps/*.pt'."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the classifiers and their sizes, and measure nothing.")
    ] = False,
    top: Annotated[
        int | None, typer.Option("--top", metavar="N", min=1, help="Print only the first N rows of each table.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="DIR",
            help="Keep answers here, or in a bucket (s3://…), and look there first. Default: fmrgen's cache.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first classifier that fails, instead of leaving it out.")
    ] = False,
    batch_size: BatchSizeOption = 64,
    plots: PlotsOption = "",
    processes: ProcessesOption = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Run the code, and read the data, that the source in a split's provenance names."),
    ] = False,
    eval_results: Annotated[
        bool,
        typer.Option(
            "--eval-results",
            help="Add to the splits' leaderboards, and write .eval_results for model pages; see `fmrgen submit`.",
        ),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure classifiers on splits: SA, PA, VR and FMR.

    Classifiers are loaded and asked one after another, and what they said is kept: run the same command again to
    resume. Exits with 1, after writing all results, if a classifier failed or gave no finite output at all.
    """
    from fmrgen.engine.attacks import attack_of_short_form
    from fmrgen.files import check_writable
    from fmrgen.recipe.job import load_classifiers, load_fixed_sets, load_source

    if not splits and not fixed and not dry_run:
        raise UserError("SPLIT: missing; name one, or pass --fixed SETS")
    is_transfer = context.info_name == "transfer"
    folder = output or Path("transfer" if is_transfer else "evaluation")
    named = load_classifiers(classifiers or [], network, models)
    if dry_run:
        _list_classifiers(named, as_json)
        return
    originals = load_source(source) if source else None
    sets = load_fixed_sets(fixed or [])
    formats = plot_formats(plots)
    if attack is not None:
        attack_of_short_form(attack)
    check_writable(folder)
    _check_inputs(splits or [], sets)

    from fmrgen.cli import display
    from fmrgen.jobs.evaluate import evaluate as run
    from fmrgen.progress import terminal as progress
    from fmrgen.report.console import print_report
    from fmrgen.report.outline import evaluation_report
    from fmrgen.report.write import prepare_folder, write_report

    display.quiet_libraries()
    prepare_folder(folder)
    with progress.split_progress(not quiet and is_first_process()) as on_rows:
        evaluation = run(
            splits or [],
            named,
            source=originals,
            attack=attack,
            fixed=sets,
            valid_by=valid_by,
            download=download,
            store=store,
            strict=strict,
            batch_size=batch_size,
            trust=trust,
            on_rows=on_rows,
        )
    silent = [name for name, answer in _highest_answers(evaluation).items() if answer < 0]
    status = 1 if silent or evaluation.failed else 0
    if not is_first_process():
        raise typer.Exit(status)
    write_report(evaluation, folder, formats)
    print_outcome = display.print_note if as_json else display.print_line
    if as_json:
        print(evaluation.to_json(), end="")
    elif not quiet:
        print_report(evaluation_report(evaluation, transfer_alone=is_transfer), top=top)
    if eval_results:
        _record_results(evaluation, folder / "eval-results", print_outcome)
    print_outcome(str(folder / "report.html"))
    _note_failures(evaluation, silent)
    raise typer.Exit(status)


def _check_inputs(splits: list[str], sets: "dict[str, FixedSets]") -> None:
    """Raise UserError if a split or the place of a fixed set is not there."""
    from fmrgen.config import check_places
    from fmrgen.split.reference import check_there

    for split in splits:
        check_there(split)
    for name, fixed_sets in sets.items():
        for section in fixed_sets.sources(name).values():
            check_places(section, "source")


def _note_failures(evaluation: "Evaluation", silent: list[str]) -> None:
    """Print which classifiers failed, or gave no finite output."""
    from fmrgen.cli import display

    for name in silent:
        display.print_note(
            f"classifier {name}: no output is finite, so every answer counts as wrong; check its weights"
        )
    for failure in evaluation.failed:
        display.print_note(f"{failure.name} is left out: {failure.why}")


def _record_results(evaluation: "Evaluation", folder: Path, print_outcome: Callable[[str], None]) -> None:
    """Add the results to the splits' leaderboards, and write the files for the pages of models."""
    from fmrgen.cli import display
    from fmrgen.publish.eval_results import write_eval_results
    from fmrgen.publish.results import record_results

    recorded = record_results(evaluation)
    paths = write_eval_results(evaluation, recorded, folder)
    for entry in recorded:
        if entry.failed:
            display.print_note(entry.line)
        else:
            print_outcome(entry.line)
    for path in paths:
        print_outcome(str(path))


def _list_classifiers(named: "dict[str, ComponentConfig | list[ComponentConfig]]", as_json: bool) -> None:
    from fmrgen.cli import display
    from fmrgen.recipe.many_classifiers import size_in_bytes
    from fmrgen.recipe.objects import each_training

    classifiers = []
    for name, (section, _) in each_training(named).items():
        classifiers.append({"name": name, "kind": section.kind, "bytes": size_in_bytes(section)})
    if as_json:
        display.print_json(classifiers)
        return
    width = max(len(entry["name"]) for entry in classifiers)
    sizes = []
    for entry in classifiers:
        megabytes = ""
        if entry["bytes"] is not None:
            sizes.append(entry["bytes"])
            megabytes = f"{entry['bytes'] / 1e6:9,.1f} MB"
        display.print_line(f"{entry['name']:{width}}  {entry['kind']:12} {megabytes}")
    largest = f", the largest {max(sizes) / 1e6:,.1f} MB" if sizes else ""
    display.print_line(f"in all: {len(classifiers)}{largest}; one at a time is in memory")


def _highest_answers(evaluation: "Evaluation") -> dict[str, int]:
    """Return the largest prediction of each classifier over all splits; -1 of one without a finite output."""
    predictions = evaluation.checked_predictions().unify_dictionaries()
    highest = predictions.group_by("classifier").aggregate([("prediction", "max")])
    return dict(zip(highest["classifier"].to_pylist(), highest["prediction_max"].to_pylist(), strict=True))


def show(
    split: SplitArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write to.")] = Path(
        "gallery"
    ),
    gallery: Annotated[int, typer.Option("--gallery", metavar="N", min=1, help="Show about N rows on the page.")] = 240,
    ids: Annotated[str | None, typer.Option("--ids", metavar="ID,ID", help="Show these rows, in this order.")] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Show what it takes for another class, a row of the sheet for each pair.")
    ] = False,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="NAME,NAME", help="Show rows of these classes only.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", metavar="N", min=1, max=100, help="Rows of the sheet.")] = 6,
    columns: Annotated[int, typer.Option("--columns", metavar="N", min=1, max=24, help="Image pairs per row.")] = 6,
    caption: Annotated[
        str | None,
        typer.Option("--caption", metavar="TEXT", help="Text above the sheet, '' for none. Default: the split's name."),
    ] = None,
    file_format: Annotated[
        Literal["png", "pdf", "svg"], typer.Option("--format", "-f", help="Sheet format; pdf and svg for papers.")
    ] = "png",
) -> None:
    """Show a split: a gallery page and a contact sheet."""
    from fmrgen.files import check_writable
    from fmrgen.split.reference import check_rows, check_there

    if ids is not None and not re.fullmatch(r"\d+(,\d+)*", ids):
        raise UserError(f"--ids {ids}: must be numbers, for example 3,14,15")
    if ids is not None and pairs:
        raise UserError("--pairs chooses the rows itself; leave out --ids")
    chosen_ids = [int(number) for number in ids.split(",")] if ids else []
    chosen_classes = classes.split(",") if classes else []
    check_there(split)
    check_rows(split, chosen_ids, chosen_classes)
    check_writable(output)

    from fmrgen.cli import display
    from fmrgen.report.show import show as run

    display.quiet_libraries()
    files = run(
        split,
        output,
        gallery=gallery,
        ids=chosen_ids,
        pairs=pairs,
        classes=chosen_classes,
        rows=rows,
        columns=columns,
        caption=caption,
        file_format=file_format,
    )
    for path in files:
        display.print_line(path)


def verify(
    split: SplitArgument,
    files: Annotated[
        bool, typer.Option("--files", help="Only check the files against their checksums; needs no model.")
    ] = False,
    trust: TrustOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Recompute what a split records from its images.

    Judges and classifies every stored image again. If anything is wrong, lists it and exits with 1.
    """
    from fmrgen.split.reference import check_folder, check_there, parse_reference

    if files:
        check_folder(parse_reference(split).repo)
    else:
        check_there(split)

    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    if files:
        from fmrgen.jobs.verify_files import verify_files

        files_found = verify_files(split)
        if as_json:
            display.print_json(files_found)
        else:
            display.print_files_verification(files_found, split)
        raise typer.Exit(1 if files_found.wrong or not files_found.finished else 0)

    from fmrgen.jobs.verify import verify as run

    with progress.row_progress("verify", not quiet) as on_rows:
        verification = run(split, trust=trust, on_rows=on_rows)
    if as_json:
        display.print_json(verification)
    else:
        display.print_verification(verification, split)
    if verification.disagreements:
        raise typer.Exit(1)


def export(
    split: SplitArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write to.")],
    form: Annotated[
        Literal["webdataset", "imagefolder", "clip-benchmark"],
        typer.Option("--format", "-f", help="webdataset (tars), imagefolder (one per class), or clip-benchmark."),
    ],
    tar_size: Annotated[int, typer.Option("--tar-size", metavar="N", min=1, help="Rows per tar.")] = 1000,
    quiet: QuietOption = False,
) -> None:
    """Export a split for other tools."""
    from fmrgen.files import check_writable
    from fmrgen.split.reference import check_there

    check_there(split)
    check_writable(folder)

    from fmrgen.cli import display
    from fmrgen.jobs.export import export as run
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    with progress.row_progress("export", not quiet) as on_rows:
        rows = run(split, folder, form, tar_size=tar_size, on_rows=on_rows)
    display.print_line(f"{folder}: {rows} rows")
