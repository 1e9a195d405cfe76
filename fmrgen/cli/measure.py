"""The commands that measure and compare classifiers on splits, and look at splits."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fmrgen.cli import display, options
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError, write_line

if TYPE_CHECKING:
    from fmrgen.recipe.fixed_sets import FixedSets


def evaluate(
    *splits: str,
    classifiers: options.Classifiers = (),
    output: options.Output = Path("evaluation"),
    source: Annotated[str | None, Parameter(metavar="RECIPE")] = None,
    attack: str | None = None,
    fixed: Annotated[Sequence[str], Parameter(metavar="[NAME=]SETS")] = (),
    by: options.By = (),
    download: bool = False,
    network: options.Network = None,
    store: Annotated[str | None, Parameter(metavar="DIR")] = None,
    batch_size: options.BatchSize = 64,
    plots: options.Plots = "",
    processes: options.Processes = 1,
    trust: bool = False,
    record: bool = False,
    every: options.All = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Measure classifiers on splits: SA, PA, VR, FMR and transfer.

    Several splits give the transfer matrix: each classifier on each split. Classifiers are loaded one after another,
    and their predictions are kept: run the same command again to resume. Exits with 1, after writing all results, if a
    classifier failed or gave no finite output at all.

    Example: fmrgen evaluate out:mnist/lenet -c asset:mnist/lenet

    Args:
        splits: PATH_OR_REPO[@REVISION][:CONFIG/SPLIT], or a parquet file.
        output: The report's folder.
        source: The recipe of the originals, for SA and FMR of splits that store none.
        attack: Measure accuracy on attacked originals too: pgd-20@8/255, pgd-20-l2@0.5 or fgsm@8/255.
        fixed: Measure accuracy on these labelled sets too: sets/imagenet-c, a file, or {kind: …} of a source. Repeat
            for more.
        by: Group results by this column of the splits, or by ranges of it: width:30,60. Repeat for more.
        download: Download splits before reading them, instead of streaming.
        store: Cache predictions here, or in a bucket (s3://…). Default: fmrgen's cache folder.
        trust: Run the code, and read the data, that the source in a split's provenance names.
        record: Add the results to the splits' cards, in their folders or repos.
    """
    from fmrgen.recipe.job import load_classifiers, load_fixed_sets, load_source

    if not splits and not fixed:
        raise UserError("SPLIT: missing; name one, or pass --fixed SETS")
    named = load_classifiers(classifiers, network)
    originals = load_source(source) if source else None
    sets = load_fixed_sets(fixed)
    formats = options.plot_formats(plots)
    _check_inputs(splits, sets, attack, output)

    from fmrgen.jobs.evaluate import evaluate as run
    from fmrgen.publish.results import record_results
    from fmrgen.report.outline import evaluation_report
    from fmrgen.report.write import write_predictions

    display.quiet_libraries(quiet)
    evaluation = run(
        splits,
        named,
        source=originals,
        attack=attack,
        fixed=sets,
        by=by,
        download=download,
        store=store,
        batch_size=batch_size,
        trust=trust,
        progress=not quiet,
    )
    predictions = evaluation.checked_predictions().unify_dictionaries()
    failures = []
    for row in predictions.group_by("classifier").aggregate([("prediction", "max")]).to_pylist():
        if row["prediction_max"] < 0:
            without = "no output is finite, so every prediction counts as wrong; check its weights"
            failures.append(f"classifier {row['classifier']}: {without}")
    failures += [f"{failure.name} is left out: {failure.why}" for failure in evaluation.failed]
    if is_first_process():
        report = evaluation_report(evaluation)
        write_predictions(evaluation, output)
        is_whole = every or bool(by or fixed or attack)
        for line, is_on_card in record_results(evaluation) if record else ():
            print_entry = display.print_line if is_on_card and not as_json else write_line
            print_entry(line)
        display.deliver(report, output, as_json=as_json, quiet=quiet, every=is_whole, plot_formats=formats)
        for failure in failures:
            write_line(failure)
    return 1 if failures else 0


def _check_inputs(splits: Sequence[str], sets: "dict[str, FixedSets]", attack: str | None, output: Path) -> None:
    """Raise UserError if a split or a fixed set is not there, the attack is unknown, or no report can be written."""
    from fmrgen.config import check_places
    from fmrgen.engine.attacks import attack_of_short_form
    from fmrgen.files import check_writable
    from fmrgen.split.reference import check_there

    if attack is not None:
        attack_of_short_form(attack)
    check_writable(output)
    for split in splits:
        check_there(split)
    for name, fixed_sets in sets.items():
        for section in fixed_sets.sources(name).values():
            check_places(section, "source")


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


def show(
    split: options.Split,
    /,
    *,
    output: options.Output = Path("gallery"),
    gallery: options.Count | None = None,
    steps: bool = False,
    ids: Annotated[str | None, Parameter(metavar="ID,ID")] = None,
    pairs: bool = False,
    classes: Annotated[str | None, Parameter(metavar="NAME,NAME")] = None,
    rows: Annotated[int, options.whole_number(1, 100)] = 6,
    columns: Annotated[int, options.whole_number(1, 24)] = 6,
    caption: Annotated[str | None, Parameter(metavar="TEXT")] = None,
    file_format: Annotated[Literal["png", "pdf", "svg"], Parameter(name=("--format", "-f"))] = "png",
    trust: options.Trust = False,
    quiet: options.Quiet = False,
) -> None:
    """Show a split: a gallery page and a contact sheet.

    Example: fmrgen show out:mnist/lenet --pairs --output gallery

    Args:
        output: The folder to write to.
        gallery: Show about N rows on the page. Default: 1,000, with --steps 60.
        steps: Repeat the steps of these rows and show the images between original and failure. Takes as long as
            generating the rows.
        ids: Show these rows, in this order.
        pairs: Show misclassified images, one row of the sheet per pair of true and predicted class.
        classes: Show rows of these classes only.
        rows: Rows of the sheet, at most 100.
        columns: Image pairs per row, at most 24.
        caption: Text above the sheet, '' for none. Default: the split's name.
        file_format: Sheet format; pdf and svg for papers.
    """
    from fmrgen.files import check_writable
    from fmrgen.split.reference import check_there

    if ids is not None and not re.fullmatch(r"\d+(,\d+)*", ids):
        raise UserError(f"--ids {ids}: must be numbers, for example 3,14,15")
    if ids is not None and pairs:
        raise UserError("--pairs chooses the rows itself; leave out --ids")
    chosen_ids = [int(number) for number in ids.split(",")] if ids else []
    chosen_classes = classes.split(",") if classes else []
    check_there(split)
    check_writable(output)

    from fmrgen.jobs.show import show as run
    from fmrgen.progress.bars import progress_shown

    display.quiet_libraries(quiet)
    with progress_shown(not quiet):
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
            steps=steps,
            trust=trust,
        )
    for path in files:
        display.print_line(path)


def verify(
    split: options.Split,
    /,
    *,
    files: bool = False,
    trust: options.Trust = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Recompute the stored values of a split from its images.

    Runs oracle and classifier on every stored image. Lists each value that differs and exits with 1.

    Example: fmrgen verify out:mnist/lenet

    Args:
        files: Check only the files' checksums; runs no model.
    """
    from fmrgen.split.reference import check_folder, check_there, parse_reference

    if files:
        check_folder(parse_reference(split).repo)
    else:
        check_there(split)

    display.quiet_libraries(quiet)
    if files:
        from fmrgen.jobs.verify_files import verify_files

        files_found = verify_files(split)
        display.print_outcome(files_found, display.lines_on_files(files_found, split), as_json=as_json)
        return 1 if files_found.wrong or not files_found.finished else 0

    from fmrgen.jobs.verify import verify as run
    from fmrgen.progress.bars import progress_shown

    with progress_shown(not quiet):
        verification = run(split, trust=trust)
    display.print_outcome(verification, display.verification_lines(verification, split), as_json=as_json)
    return 1 if verification.disagreements else 0
