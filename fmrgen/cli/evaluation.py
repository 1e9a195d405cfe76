"""The commands that measure classifiers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmrgen.cli.options import (
    BatchSizeOption,
    ClassifierOption,
    JsonOption,
    PlotsOption,
    ProcessesOption,
    QuietOption,
    plot_formats,
)
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError

if TYPE_CHECKING:
    from fmrgen.jobs.evaluation import Evaluation


def evaluate(
    context: typer.Context,
    classifiers: ClassifierOption,
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
            help="The recipe whose source the splits are made of. Adds SA on the source's own pixels, and SA for "
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
            help="Count a row as valid where this judge too sees its label; human is all persons together.",
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download splits before reading them, instead of streaming.")
    ] = False,
    batch_size: BatchSizeOption = 64,
    plots: PlotsOption = "",
    processes: ProcessesOption = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Run the code, and read the places, that the source in a split's provenance names."
        ),
    ] = False,
    eval_results: Annotated[
        bool,
        typer.Option(
            "--eval-results",
            help="Add to the splits' leaderboards, and write .eval_results for model pages; see `fmrgen submit`.",
        ),
    ] = False,
    model_card: Annotated[
        bool, typer.Option("--model-card", help="Write model cards with a model-index, the Hub's earlier format.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure classifiers on splits: SA, PA, VR and FMR.

    Exits with 1, all results written, if a classifier gave no finite output at all.
    """
    from fmrgen.config import check_places
    from fmrgen.engine.attacks import attack_of_short_form
    from fmrgen.recipe.job import load_classifiers, load_fixed_sets, load_source
    from fmrgen.storage.reference import check_there

    if not splits and not fixed:
        raise UserError("SPLIT: none is given; name one, or pass --fixed SETS")
    is_transfer = context.info_name == "transfer"
    folder = output or Path("transfer" if is_transfer else "evaluation")
    named, originals = load_classifiers(classifiers), load_source(source) if source else None
    sets = load_fixed_sets(fixed or [])
    formats = plot_formats(plots)
    if attack is not None:
        attack_of_short_form(attack)
    for split in splits or []:
        check_there(split)
    for name, chosen in sets.items():
        for part in chosen.sources(name).values():
            check_places(part, "source")

    from fmrgen.cli import display
    from fmrgen.jobs.evaluate import evaluate as run
    from fmrgen.progress import terminal as progress
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
            batch_size=batch_size,
            trust=trust,
            on_rows=on_rows,
        )
    silent = [name for name, answer in _highest_answers(evaluation).items() if answer < 0]
    if not is_first_process():
        raise typer.Exit(1 if silent else 0)
    write_report(evaluation, folder, formats)
    tell = display.print_note if as_json else display.print_line
    if as_json:
        print(evaluation.to_json(), end="")
    elif not quiet:
        display.print_evaluation(evaluation, transfer_alone=is_transfer)
    if eval_results:
        from fmrgen.publish.eval_results import write_eval_results
        from fmrgen.publish.results import record_results

        recorded = record_results(evaluation)
        written = write_eval_results(evaluation, recorded, folder / "eval-results")
        for one in recorded:
            (display.print_note if one.failed else tell)(one.line)
        for path in written:
            tell(str(path))
    if model_card:
        from fmrgen.publish.model_cards import write_model_cards

        for path in write_model_cards(evaluation, folder / "model-cards"):
            tell(str(path))
    tell(str(folder / "report.html"))
    for name in silent:
        display.print_note(
            f"classifier {name}: no output is finite, so every answer counts as wrong; check its weights"
        )
    raise typer.Exit(1 if silent else 0)


def _highest_answers(evaluation: "Evaluation") -> dict[str, int]:
    """The largest prediction of each classifier over all splits; -1, for none, of one without a finite output."""
    found = evaluation.predictions.unify_dictionaries().group_by("classifier").aggregate([("prediction", "max")])
    return dict(zip(found["classifier"].to_pylist(), found["prediction_max"].to_pylist(), strict=True))
