"""The commands that doubt a figure: other judges, people, an attack on the oracle, other values."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmrgen.cli.options import (
    BatchSizeOption,
    JsonOption,
    LimitOption,
    OverridesArgument,
    PlotsOption,
    ProcessesOption,
    QuietOption,
    RecipeArgument,
    SplitArgument,
    limited,
    plot_formats,
)
from fmrgen.distributed.rank import is_first_process

if TYPE_CHECKING:
    from fmrgen.judging.audit import Audit


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

    Their verdicts are stored beside the split, in its folder or on the Hub. Run the same command again to resume.
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
    raters: Annotated[str, typer.Option("--raters", metavar="NAME,NAME", help="Names of the people who answer.")],
    count: Annotated[
        int, typer.Option("--n", metavar="N", min=1, help="Perturbed images to show; controls come on top.")
    ] = 300,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of the sample of images.")] = 0,
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Listen here; 0.0.0.0 lets others in.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, help="Port of the page; 0 takes a free one.")
    ] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where to keep answers on a split from the Hub.")
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

    Controls are added to --n: 30 originals or more, plain reconstructions, and a few repeats. They show how
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
    display.print_line("answers are saved as they come in; press Ctrl-C to stop")
    if server.hosts is None:
        display.print_note(f"--host {host}: anyone with the address can see the images and answer")
    was_done = False
    with server, suppress(KeyboardInterrupt):
        while True:
            server.handle_request()
            if server.is_done and not was_done:
                display.print_line("everyone has answered")
            was_done = server.is_done


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
    from fmrgen.recipe.job import load_classifiers, load_recipe

    loaded = load_recipe(recipe, limited(limit, overrides))
    named = load_classifiers(classifiers) if classifiers else {}
    check_places(loaded)
    radii = [radius(text) for text in epsilons or ["2/255", "4/255", "8/255", "16/255"]]

    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress
    from fmrgen.studies.attack_oracle import attack_oracle as run
    from fmrgen.studies.attack_oracle_report import attacked_table, write_attacked

    display.quiet_libraries()
    with progress.row_progress("attack", not quiet) as on_images:
        found = run(loaded, named, radii, steps=steps, on_images=on_images)
    write_attacked(found, output)
    if not quiet:
        display.print_table(attacked_table(found), f"attacked towards another class, {steps} steps")
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
    from fmrgen.config import check_places
    from fmrgen.studies.sweep import parse_grid

    grid, formats = parse_grid(recipe, limited(limit, values)), plot_formats(plots)
    for point in grid:
        check_places(point.recipe)

    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress
    from fmrgen.studies.sweep import sweep as run
    from fmrgen.studies.sweep_report import sweep_table, write_sweep

    display.quiet_libraries()
    is_first = is_first_process()
    show = not quiet and is_first
    points = run(grid, output, job_progress=lambda made: progress.job_progress(made, show), on_note=display.print_note)
    if not is_first:
        return
    written = write_sweep(points, output, formats)
    if not quiet and not as_json:
        display.print_table(sweep_table(points), str(recipe))
    display.print_written(written, as_json)
