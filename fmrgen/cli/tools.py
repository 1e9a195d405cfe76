"""The commands around splits: looking at them, exporting them, and what there is to run."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fmrgen.cli.options import (
    BatchSizeOption,
    JsonOption,
    LimitOption,
    OverridesArgument,
    ProcessesOption,
    QuietOption,
    SplitArgument,
    limited,
    recipe_names,
)
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from fmrgen.judging.audit import Audit

_GATE_STATUS = {"pass": 0, "fail": 1, "invalid": 2, "undecided": 3}


def judge(
    split: SplitArgument,
    oracles: Annotated[
        list[str],
        typer.Option(
            "--oracle",
            metavar="[NAME=]O",
            help="KIND:MODEL (zero_shot:google/siglip2-base-patch16-224), a repo, folder or asset of a CLIP, "
            "package.module:Name, a recipe, or {kind: …}. Repeat for more.",
        ),
    ],
    batch_size: BatchSizeOption = 64,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Have other judges look at a split's images.

    Their verdicts lie beside the split, in its folder or on the Hub. Run the same command again to resume.
    """
    from fmrgen.recipe.job import load_oracles
    from fmrgen.storage.reference import check_there

    named = load_oracles(oracles)
    check_there(split)

    from fmrgen.cli import display
    from fmrgen.judging.judge import judge as run
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    is_first = is_first_process()
    with progress.split_progress(not quiet and is_first) as on_rows:
        found = run(split, named, batch_size=batch_size, on_rows=on_rows, on_wait=display.print_note)
    if is_first and as_json:
        display.print_json(found)
    elif is_first:
        display.print_judged(found, split, quiet)


def audit(
    split: SplitArgument,
    raters: Annotated[str, typer.Option("--raters", metavar="NAME,NAME", help="Who answers, each under a name.")],
    count: Annotated[
        int, typer.Option("--n", metavar="N", min=1, help="Perturbed images to show; controls come on top.")
    ] = 300,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Another number draws other images.")] = 0,
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Listen here; 0.0.0.0 lets others in.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, help="Port of the page; 0 takes a free one.")
    ] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where answers on a split of the Hub are kept.")
    ] = Path("audit"),
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="Write the page as a file with all images in it.")
    ] = None,
    answers: Annotated[
        list[Path] | None,
        typer.Option("--import", metavar="FILE", help="Take the answers that an exported page saved. Repeat for more."),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Run the code, and read the files, that the generator in the recipe names."),
    ] = False,
) -> None:
    """Have people name a sample of a split's images.

    Controls come on top of --n: originals, 30 or more, plain reconstructions, and a few images again. They tell how
    often an answer is wrong. Serves a page until you press Ctrl-C. Run the same command again to resume.
    """
    from fmrgen.cli import display
    from fmrgen.judging.audit import Audit

    display.quiet_libraries()
    names = [name.strip() for name in raters.split(",") if name.strip()]
    found = Audit(split, names, count=count, seed=seed, output=output, trust=trust)
    if found.note:
        display.print_note(found.note)
    if export is not None:
        found.export(export)
        display.print_note(f"{export}: each rater is shown {found.audited.sample.contents}")
        display.print_line(export)
        return
    for path in answers or []:
        name, done = found.take(path)
        display.print_line(f"{name}: {done} answers")
    if not answers:
        _serve(found, host, port)
    for name, rater in found.raters.items():
        display.print_line(f"{name}: {rater.done} of {len(rater.tasks)} images")
    for line in found.cautions():
        display.print_note(f"note: {line}")
    for path in found.close():
        display.print_line(path)


def _serve(audit: "Audit", host: str, port: int) -> None:
    """Serves the page until somebody stops it; an answer may be taken back to the end."""
    from fmrgen.cli import display

    server = audit.server(host, port)
    server.timeout = 1.0
    display.print_line(f"open {server.address}")
    display.print_line(f"each rater is shown {audit.audited.sample.contents}")
    display.print_line("answers are kept as they come; Ctrl-C ends")
    if server.hosts is None:
        display.print_note(f"--host {host}: whoever has the address can answer, and see the images")
    was_done = False
    with server, suppress(KeyboardInterrupt):
        while True:
            server.handle_request()
            if server.is_done and not was_done:
                display.print_line("all have answered")
            was_done = server.is_done


def gate(
    split: Annotated[
        str | None,
        typer.Argument(metavar="[SPLIT]", help="PATH_OR_REPO[@REVISION][:CONFIG/SPLIT], made against a third model."),
    ] = None,
    *,
    candidate: Annotated[str, typer.Option("--candidate", metavar="C", help="The classifier to be released.")],
    baseline: Annotated[str, typer.Option("--baseline", metavar="C", help="The one that it is compared with.")],
    max_drop: Annotated[
        float, typer.Option("--max-drop", metavar="POINTS", help="The drop in perturbed accuracy that is allowed.")
    ],
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="RECIPE", help="Make a split for each instead, and compare them on these."),
    ] = None,
    limit: LimitOption = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="With --recipe: the dataset folder.")
    ] = Path("gate"),
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the order of the rows.")] = 0,
    batch_size: BatchSizeOption = 64,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write the outcome for what reads JUnit.")
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option("--summary", metavar="FILE", help="Append it as Markdown, as to $GITHUB_STEP_SUMMARY."),
    ] = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Let a classifier pass that is not less robust than another.

    Both see the same perturbed images, as many as it takes; with --recipe each sees its own. Exits with 0 if the
    candidate passes, 1 if it fails, 2 if one of the two is no working network, 3 if the images do not tell.
    """
    from fmrgen.recipe.job import load_recipe, parse_classifier
    from fmrgen.storage.reference import check_there

    if (split is None) == (recipe is None):
        raise UserError("gate: name a SPLIT, or pass --recipe RECIPE")
    for path in (junit, summary):
        if path is not None and path.is_dir():
            raise UserError(f"{path}: is a folder; name a file")
    (_, new), (_, old) = (parse_classifier(text) for text in (candidate, baseline))
    if split is not None:
        check_there(split)
    loaded = None if recipe is None else load_recipe(recipe, limited(limit, None))

    from fmrgen.cli import display
    from fmrgen.files import write_atomically
    from fmrgen.progress import terminal as progress
    from fmrgen.studies.gate import gate as run
    from fmrgen.studies.gate import gate_on_own_splits
    from fmrgen.studies.gate_report import alarm_lines, gate_junit, gate_markdown, gate_table, verdict_line

    display.quiet_libraries()
    is_first = is_first_process()
    show = not quiet and is_first
    if loaded is not None:
        found = gate_on_own_splits(
            loaded,
            output,
            candidate=new,
            baseline=old,
            max_drop=max_drop,
            seed=seed,
            job_progress=lambda made: progress.job_progress(made, show),
            on_note=display.print_note,
        )
    else:
        with progress.split_progress(show) as on_rows:
            found = run(
                split, candidate=new, baseline=old, max_drop=max_drop, batch_size=batch_size, seed=seed, on_rows=on_rows
            )
    named = split or f"own splits of {recipe}"
    if is_first:
        if junit is not None:
            write_atomically(junit, gate_junit(found, named))
        if summary is not None:
            with summary.open("a", encoding="utf-8") as file:
                file.write(gate_markdown(found, named))
        if as_json:
            display.print_json(found)
        elif not quiet:
            display.print_table(gate_table(found), named)
        for line in [*found.notes, *alarm_lines(found)]:
            display.print_note(line)
        (display.print_note if as_json else display.print_line)(verdict_line(found))
    raise typer.Exit(_GATE_STATUS[found.verdict])


def show(
    split: SplitArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write to.")] = Path(
        "gallery"
    ),
    gallery: Annotated[int, typer.Option("--gallery", metavar="N", min=1, help="Show about N rows on the page.")] = 240,
    ids: Annotated[str | None, typer.Option("--ids", metavar="ID,ID", help="Show these rows, in this order.")] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="NAME,NAME", help="Show rows of these classes only.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", metavar="N", min=1, max=100, help="Rows of the sheet.")] = 6,
    columns: Annotated[int, typer.Option("--columns", metavar="N", min=1, max=24, help="Image pairs per row.")] = 6,
    caption: Annotated[
        str | None,
        typer.Option("--caption", metavar="TEXT", help="Above the sheet, '' for none. Default: its name."),
    ] = None,
    file_format: Annotated[
        Literal["png", "pdf", "svg"], typer.Option("--format", "-f", help="Of the sheet; pdf and svg for papers.")
    ] = "png",
) -> None:
    """Show a split: a gallery page and a contact sheet."""
    from fmrgen.storage.reference import check_there

    check_there(split)

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
    from fmrgen.storage.reference import check_there

    check_there(split)

    from fmrgen.cli import display
    from fmrgen.jobs.export import export as run
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    with progress.row_progress("export", not quiet) as on_rows:
        rows = run(split, folder, form, tar_size=tar_size, on_rows=on_rows)
    display.print_line(f"{folder}: {rows} rows")


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", autocompletion=recipe_names, help="Show this recipe."),
    ] = None,
    overrides: OverridesArgument = None,
    as_json: JsonOption = False,
) -> None:
    """List the shipped recipes, or show one with every value."""
    from fmrgen.recipe.job import SETS, describe_recipes, load_fixed_sets, load_recipe

    if name is None:
        described = describe_recipes()
        if as_json:
            print(json.dumps(described, ensure_ascii=False, indent=2))
            return
        width = max(len(name) for name in described)
        for name, description in described.items():
            print(f"{name:{width}}  {description}")
        return

    from fmrgen.cli import display
    from fmrgen.training.recipe import load_train_recipe

    shown: BaseModel
    if name.startswith(SETS):
        (shown,) = load_fixed_sets([name]).values()
    else:
        load = load_train_recipe if name.startswith("train/") else load_recipe
        shown = load(name, overrides or [])
    if as_json:
        display.print_json(shown.model_dump(mode="json"))
    else:
        display.print_recipe(shown)


def doctor(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that jobs would write to.")] = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Print what a bug report needs: versions, devices, Hub."""
    from fmrgen.cli import display
    from fmrgen.cli.doctor import examine

    if as_json:
        display.print_json(dict(examine(folder)))
        return
    for name, found in examine(folder):
        display.print_line(f"{name:16} {found}")
