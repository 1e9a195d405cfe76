"""The commands: parse, call the API, print."""

import os
import re
import sys
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fmrgen.cli import studies
from fmrgen.cli.exit import exit_status_of, install_signal_handlers
from fmrgen.cli.options import (
    BatchSizeOption,
    ClassifierOption,
    LimitOption,
    OverridesArgument,
    ProcessesOption,
    PublicOption,
    QuietOption,
    RecipeArgument,
    ReplaceOption,
    limited,
)
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError

app = typer.Typer(
    name="fmrgen",
    help="Model-conditioned perturbed test sets, and Foundation Model-oriented Robustness from them.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _say_version(asked: bool) -> None:
    if asked:
        print(f"fmrgen {version('fmrgen')}")
        raise typer.Exit


@app.callback()
def fmrgen(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    pass


@app.command()
def generate(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The dataset folder; an unfinished split goes on.")
    ] = Path("out"),
    limit: LimitOption = None,
    processes: ProcessesOption = None,
    part: Annotated[
        str | None,
        typer.Option("--part", metavar="I/N", help="One of N parts, on a machine of its own; merge makes one of them."),
    ] = None,
    log_file: Annotated[
        Path | None, typer.Option("--log-file", help="Add what the job does to this file, as JSON lines.")
    ] = None,
    push: Annotated[
        str | None, typer.Option("--push", metavar="REPO", help="Then push the split to this dataset repo on the Hub.")
    ] = None,
    public: PublicOption = False,
    replace: ReplaceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make the perturbed split of a recipe, on one process or many."""
    from fmrgen.recipe import load_recipe

    if push is None and (public or replace):
        raise UserError(f"{'--public' if public else '--replace'} only applies with --push REPO")
    if push is not None and part is not None:
        raise UserError("--push needs the whole split, --part makes one of its parts; merge the parts, then push")
    own_part = _parse_part(part)
    loaded = load_recipe(recipe, limited(limit, overrides))

    from fmrgen.cli import display, progress
    from fmrgen.jobs.generate import make_split

    display.quiet_libraries()
    is_first = is_first_process()
    if push is not None and is_first:
        from fmrgen.distributed.launch import launched_precision
        from fmrgen.hub.push import check_push

        check_push(push, loaded.in_precision(launched_precision()), public=public, replace=replace)
    show = not quiet and is_first
    log = progress.JobLog(log_file if is_first else None)

    def tell(line: str, shown: bool = True) -> None:
        if shown:
            display.print_note(line)
        log.write("note", text=line)

    with log.outcome(), progress.job_progress(loaded, show, log) as on_progress:
        summary = make_split(
            loaded,
            output,
            part=own_part,
            on_progress=on_progress,
            on_start=lambda line: tell(line, not quiet),
            on_note=tell,
        )
    log.write("end", summary=asdict(summary))
    if not is_first or part is not None:
        return
    split = f"{output}:{loaded.output.config}/{loaded.output.split}"
    if show:
        display.print_summary(summary, split)
    if push is not None:
        _push(split, push, public, replace, None, quiet)


def _parse_part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--part {text}: must be I/N, for example 1/2 for the first of two parts")
    return int(found[1]), int(found[2])


app.command()(studies.compare)
app.command()(studies.sweep)
app.command()(studies.inspect)


@app.command()
def sparsify(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The mask's file.")] = Path("mask.safetensors"),
    samples: Annotated[int, typer.Option("--samples", min=1, help="Images to perturb and learn from.")] = 1000,
    regularization: Annotated[
        float | None,
        typer.Option("--regularization", help="Strength of the l1 norm (the paper's is 36.36); default: by a path."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Find the few dimensions of the latent that perturbation uses: a mask for `generator.mask`."""
    from fmrgen.recipe import load_recipe

    if regularization is not None and not 0 < regularization < float("inf"):
        raise UserError("--regularization: must be a positive number")
    loaded = load_recipe(recipe, [f"source.limit={samples}", *(overrides or [])])

    from fmrgen.cli import display, progress
    from fmrgen.jobs.sparsify import sparsify as run

    display.quiet_libraries()
    with progress.row_progress("sparsify", not quiet) as on_images:
        found = run(loaded, output, regularization=regularization, on_images=on_images)
    if not quiet:
        display.print_sparse_mask(found, f"{loaded.output.config}/{loaded.output.split}")
        config = f"output.config={loaded.output.config}-sparse"
        display.print_note(f"use it: fmrgen generate {recipe} generator.mask={output} {config}")
    display.print_line(output)


@app.command()
def push(
    folder: Annotated[
        str, typer.Argument(metavar="DIR[:CONFIG/SPLIT]", help="What generate wrote: all finished splits, or one.")
    ],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="A dataset repo on the Hub; made if it is not there.")],
    public: PublicOption = False,
    replace: ReplaceOption = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="A branch, or a pull request (refs/pr/3), instead of main.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Put finished splits on the Hub, beside what is there; run the same command again to continue."""
    _push(folder, repo, public, replace, revision, quiet)


def _push(folder: str, repo: str, public: bool, replace: bool, revision: str | None, quiet: bool) -> None:
    from fmrgen.cli import display
    from fmrgen.hub.push import push as run

    with display.hub_progress(not quiet):
        pushed = run(folder, repo, public=public, replace=replace, revision=revision, on_wait=display.print_note)
    if not quiet:
        display.print_pushed(pushed)


@app.command()
def merge(
    parts: Annotated[
        list[str], typer.Argument(metavar="DIR[:CONFIG/SPLIT]...", help="What generate wrote on each machine.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The dataset folder to bring them together in.")],
    quiet: QuietOption = False,
) -> None:
    """Make one split of the parts that machines without a common file system wrote."""
    from fmrgen.cli import display
    from fmrgen.jobs.merge import merge as run

    display.quiet_libraries()
    for split, summary in run(parts, output, on_note=display.print_note).items():
        if not quiet:
            display.print_summary(summary, f"{output}:{split}")


@app.command()
def verify(
    split: Annotated[str, typer.Argument(metavar="SPLIT", help="PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]")],
    files: Annotated[
        bool, typer.Option("--files", help="Only compare the files with their digests; no model is needed.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Let the split's recipe run the code and read the files and addresses it names."),
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Judge every stored image again; exit 1 with a list where the metadata is not true."""
    from fmrgen.cli import display, progress

    display.quiet_libraries()
    if files:
        from fmrgen.jobs.verify_files import verify_files

        found = verify_files(split)
        display.print_files_verification(found, split)
        raise typer.Exit(1 if found.wrong else 0)

    from fmrgen.jobs.verify import verify as run

    with progress.row_progress("verify", not quiet) as on_rows:
        verification = run(split, trust=trust, on_rows=on_rows)
    display.print_verification(verification, split)
    if verification.disagreements:
        raise typer.Exit(1)


@app.command("transfer", help="The matrix of splits and classifiers: how images made for one classifier do on another.")
@app.command("evaluate", help="SA, PA, VR and FMR of classifiers on splits, with intervals, and a report.")
def evaluate(
    context: typer.Context,
    splits: Annotated[
        list[str], typer.Argument(metavar="SPLIT...", help="PATH_OR_REPO[@REVISION][:CONFIG/SPLIT], or a parquet file.")
    ],
    classifiers: ClassifierOption,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", show_default="evaluation, or transfer", help="The folder to write the report to."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="RECIPE",
            help="The recipe of the splits' source: adds SA on its own pixels, and SA where a split has no originals.",
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch a split on the Hub whole before reading it.")
    ] = False,
    batch_size: BatchSizeOption = 64,
    processes: ProcessesOption = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Let the source in a split's provenance run the code and read the places it names."
        ),
    ] = False,
    model_card: Annotated[
        bool,
        typer.Option("--model-card", help="Write model-index results for model pages, and the splits' leaderboards."),
    ] = False,
    quiet: QuietOption = False,
) -> None:
    from fmrgen.recipe import load_classifiers, load_source

    is_transfer = context.info_name == "transfer"
    folder = output or Path("transfer" if is_transfer else "evaluation")
    named, originals = load_classifiers(classifiers), load_source(source) if source else None

    from fmrgen.cli import display, progress
    from fmrgen.jobs.evaluate import evaluate as run
    from fmrgen.report.write import prepare_folder, write_report

    display.quiet_libraries()
    prepare_folder(folder)
    with progress.split_progress(not quiet and is_first_process()) as on_rows:
        evaluation = run(
            splits,
            named,
            source=originals,
            download=download,
            batch_size=batch_size,
            trust=trust,
            on_rows=on_rows,
        )
    if not is_first_process():
        return
    write_report(evaluation, folder)
    if not quiet:
        show_it = display.print_transfer if is_transfer else display.print_evaluation
        show_it(evaluation)
    if model_card:
        from fmrgen.hub.results import record_results, write_model_cards

        for line in (*map(str, write_model_cards(evaluation, folder / "model-cards")), *record_results(evaluation)):
            display.print_line(line)
    display.print_line(folder / "report.html")


@app.command()
def show(
    split: Annotated[str, typer.Argument(metavar="SPLIT", help="PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")] = Path("gallery"),
    gallery: Annotated[int, typer.Option("--gallery", min=1, help="About how many rows the page shows.")] = 240,
    ids: Annotated[str | None, typer.Option("--ids", metavar="ID,ID", help="Show these rows, in this order.")] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="NAME,NAME", help="Show rows of these classes only.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, max=100, help="Rows of the sheet.")] = 6,
    columns: Annotated[int, typer.Option("--columns", min=1, max=24, help="Pairs of images in a row of it.")] = 6,
    caption: Annotated[
        str | None, typer.Option("--caption", help="Above the sheet; '' for none. Default: the split's name.")
    ] = None,
    file_format: Annotated[
        Literal["png", "pdf", "svg"], typer.Option("--format", "-f", help="Of the sheet; pdf and svg for papers.")
    ] = "png",
) -> None:
    """Show a split: a gallery page, and a sheet of originals beside perturbed images."""
    from fmrgen.cli import display
    from fmrgen.report.show import show as run

    if ids is not None and not re.fullmatch(r"\d+(,\d+)*", ids):
        raise UserError(f"--ids {ids}: must be numbers, for example 3,14,15")
    display.quiet_libraries()
    files = run(
        split,
        output,
        gallery=gallery,
        ids=[int(number) for number in ids.split(",")] if ids else (),
        classes=classes.split(",") if classes else (),
        rows=rows,
        columns=columns,
        caption=caption,
        file_format=file_format,
    )
    for path in files:
        display.print_line(path)


@app.command()
def export(
    split: Annotated[str, typer.Argument(metavar="SPLIT", help="PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write to.")],
    form: Annotated[
        Literal["webdataset", "imagefolder"], typer.Option("--format", "-f", help="Tars, or folders of classes.")
    ],
    tar_size: Annotated[int, typer.Option("--tar-size", min=1, help="Rows in a tar.")] = 1000,
    quiet: QuietOption = False,
) -> None:
    """Write a split for other tools: tars of webdataset, or folders of images."""
    from fmrgen.cli import display, progress
    from fmrgen.jobs.export import export as run

    display.quiet_libraries()
    with progress.row_progress("export", not quiet) as on_rows:
        rows = run(split, folder, form, tar_size=tar_size, on_rows=on_rows)
    display.print_line(f"{folder}: {rows} rows")


@app.command()
def train(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write the weights to.")] = Path(
        "trained"
    ),
    quiet: QuietOption = False,
) -> None:
    """Train a small classifier, CLIP or VQGAN: what made the shipped assets."""
    from fmrgen.training.recipe import load_train_recipe

    loaded = load_train_recipe(recipe, overrides or [])

    from fmrgen.cli import display, progress
    from fmrgen.training.loop import train as run

    display.quiet_libraries()
    with progress.row_progress("train", not quiet) as on_step:
        metrics = run(loaded, output, lambda step, steps, loss: on_step(step, steps))
    display.print_line(f"{output}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


@app.command()
def recipes() -> None:
    """What can be run, one line each."""
    from fmrgen.recipe import describe_recipes

    described = describe_recipes()
    width = max(len(name) for name in described)
    for name, description in described.items():
        print(f"{name:{width}}  {description}")


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; a user's mistake is one line on stderr and exit status 2."""
    # Before torch is imported: threads that spin while they wait slow a job many times over on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # what a lost process does to torch is told in a line
    if arguments is None:
        install_signal_handlers()
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    goes_on = arguments[:1] in (["generate"], ["push"], ["merge"])
    sys.exit(exit_status_of(partial(_run, arguments), "; run the same command again to continue" if goes_on else ""))


def _run(arguments: list[str]) -> Any:
    return typer.main.get_command(app).main(arguments, prog_name="fmrgen", standalone_mode=False)
