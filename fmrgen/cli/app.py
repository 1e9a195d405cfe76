"""The commands: parse, call the API, print."""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fmrgen.cli import evaluation, hub, making, studies, tools
from fmrgen.cli.exit import exit_status_of, install_signal_handlers
from fmrgen.cli.options import (
    GroupedHelp,
    JsonOption,
    LimitOption,
    LogFileOption,
    OverridesArgument,
    PlainHelp,
    ProcessesOption,
    PublicOption,
    QuietOption,
    RecipeArgument,
    ReplaceOption,
    SplitArgument,
    TrackersOption,
    limited,
)
from fmrgen.distributed.launcher import end_with_the_launcher
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError, command_line

app = typer.Typer(
    name="fmrgen",
    help="Makes a perturbed test set for each image classifier and measures its robustness (FMR).",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=GroupedHelp,
)


def _say_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"fmrgen {version('fmrgen')}")
        raise typer.Exit


@app.callback()
def fmrgen(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def generate(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The dataset folder. An unfinished split is resumed.")
    ] = Path("out"),
    limit: LimitOption = None,
    processes: ProcessesOption = None,
    part: Annotated[
        str | None,
        typer.Option("--part", metavar="I/N", help="Make part I of N; `fmrgen merge` joins the parts."),
    ] = None,
    log_file: LogFileOption = None,
    trackers: TrackersOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the recipe, what exists, and the expected time; make nothing.")
    ] = False,
    push: Annotated[
        str | None, typer.Option("--push", metavar="REPO", help="Then push the split to this dataset repo.")
    ] = None,
    public: PublicOption = False,
    replace: ReplaceOption = False,
    every: Annotated[bool, typer.Option("--all", help="Print every metric; run it again to see them later.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make the perturbed split of a recipe.

    Run the same command again to resume, on any number of processes.
    """
    from fmrgen.config import check_places
    from fmrgen.recipe.job import load_recipe

    if push is None and (public or replace):
        raise UserError(f"{'--public' if public else '--replace'} only applies with --push REPO")
    if push is not None and part is not None:
        raise UserError("--push needs the whole split, --part makes one of its parts; merge the parts, then push")
    own_part = _parse_part(part)
    loaded = load_recipe(recipe, limited(limit, overrides))
    check_places(loaded)

    from fmrgen.cli import display
    from fmrgen.jobs.generate import make_split
    from fmrgen.progress import terminal as progress
    from fmrgen.progress.job import Progress
    from fmrgen.progress.tracked import TrackedJob
    from fmrgen.progress.trackers import tracking
    from fmrgen.storage.paths import SplitPaths

    display.quiet_libraries()
    is_first = is_first_process()
    split = f"{output}:{loaded.output.config}/{loaded.output.split}"
    if dry_run:
        from fmrgen.jobs.plan import plan

        planned = plan(loaded, output, part=own_part)
        if is_first and as_json:
            display.print_json({"split": split, "plan": planned})
        elif is_first:
            display.print_plan(planned, split)
        return
    if push is not None and is_first:
        from fmrgen.distributed.launch import launched_precision
        from fmrgen.publish.push import check_push

        check_push(push, loaded.in_precision(launched_precision()), public=public, replace=replace)
    show = not quiet and is_first
    log = progress.JobLog(log_file if is_first else None)

    def tell(line: str, shown: bool = True) -> None:
        if shown:
            display.print_note(line)
        log.write("note", text=line)

    config = loaded.model_dump(mode="json") | {"fingerprint": loaded.fingerprint}
    paths = SplitPaths(output, loaded.output.config, loaded.output.split)
    with (
        log.outcome(),
        progress.job_progress(loaded, show, log) as shown,
        tracking((trackers or []) if is_first else [], config, paths.logs, tell) as tracked,
    ):
        job = TrackedJob(tracked)

        def on_progress(news: Progress) -> None:
            shown(news)
            job(news)

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
    if as_json:
        display.print_json({"split": split, "summary": summary})
    elif show:
        display.print_summary(summary, split, every=every)
    if push is not None:
        hub.push_splits(split, push, public, replace, None, quiet or as_json)


def _parse_part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--part {text}: must be I/N, for example 1/2 for the first of two parts")
    return int(found[1]), int(found[2])


def merge(
    parts: Annotated[
        list[str], typer.Argument(metavar="DIR[:CONFIG/SPLIT]", help="The dataset folders of all machines.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The dataset folder to join them in.")],
    quiet: QuietOption = False,
) -> None:
    """Join the parts that several machines made into one split."""
    from fmrgen.cli import display
    from fmrgen.jobs.merge import merge as run

    display.quiet_libraries()
    for split, summary in run(parts, output, on_note=display.print_note).items():
        if not quiet:
            display.print_summary(summary, f"{output}:{split}")


def verify(
    split: SplitArgument,
    files: Annotated[
        bool, typer.Option("--files", help="Only check the files against their checksums; needs no model.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Run the code, and read the files and addresses, that the split's recipe names."),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Recompute what a split says from its images, and compare.

    Judges and classifies every stored image again. Exits with 1 and a list if something is wrong.
    """
    from fmrgen.storage.reference import check_there

    if not files:
        check_there(split)

    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    if files:
        from fmrgen.jobs.verify_files import verify_files

        found = verify_files(split)
        if as_json:
            display.print_json(found)
        else:
            display.print_files_verification(found, split)
        raise typer.Exit(1 if found.wrong or not found.finished else 0)

    from fmrgen.jobs.verify import verify as run

    with progress.row_progress("verify", not quiet) as on_rows:
        verification = run(split, trust=trust, on_rows=on_rows)
    if as_json:
        display.print_json(verification)
    else:
        display.print_verification(verification, split)
    if verification.disagreements:
        raise typer.Exit(1)


def _add(group: str, name: str, run: Callable[..., None], help: str | None = None) -> None:
    app.command(name, cls=PlainHelp, rich_help_panel=group, help=help)(run)


_add("Make", "recipes", tools.recipes)
_add("Make", "inspect", making.inspect)
_add("Make", "generate", generate)
_add("Make", "merge", merge)
_add("Make", "sparsify", making.sparsify)
_add("Make", "train", making.train)

_add("Measure", "evaluate", evaluation.evaluate)
_add("Measure", "transfer", evaluation.evaluate, "Print the transfer matrix: each classifier on each split.")
_add("Measure", "show", tools.show)
_add("Measure", "verify", verify)
_add("Measure", "export", tools.export)

_add("Doubt", "judge", tools.judge)
_add("Doubt", "audit", tools.audit)
_add("Doubt", "attack-oracle", studies.attack_oracle)
_add("Doubt", "sweep", studies.sweep)

_add("Compare", "compare", studies.compare)
_add("Compare", "gate", tools.gate)
_add("Compare", "agree", studies.agree)
_add("Compare", "study", studies.study)

_add("Publish", "push", hub.push)
_add("Publish", "submit", hub.submit)
_add("Publish", "leaderboard", hub.board)
_add("Publish", "delta", hub.delta)
_add("Publish", "rebuild", hub.rebuild)

_add("Tools", "doctor", tools.doctor)


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; a user's mistake is one line on stderr and exit status 2."""
    # Before torch is imported: threads that spin while they wait slow a job many times over on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # what a lost process does to torch is told in a line
    if arguments is None:
        install_signal_handlers()
        end_with_the_launcher()
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    goes_on = arguments[:1] in (["generate"], ["push"], ["merge"], ["train"])
    sys.exit(exit_status_of(partial(_run, arguments), "; run the same command again to continue" if goes_on else ""))


def _run(arguments: list[str]) -> Any:
    with command_line():
        return typer.main.get_command(app).main(arguments, prog_name="fmrgen", standalone_mode=False)
