"""The commands that make a split: recipes, a pilot, the job, its parts, and what it may need."""

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmrgen.cli import publish
from fmrgen.cli.options import (
    JsonOption,
    LimitOption,
    LogFileOption,
    OverridesArgument,
    ProcessesOption,
    PublicOption,
    QuietOption,
    RecipeArgument,
    ReplaceOption,
    TrackersOption,
    limited,
    recipe_names,
)
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError
from fmrgen.internals import apps

if TYPE_CHECKING:
    from pydantic import BaseModel

    from fmrgen.recipe.job import Recipe
    from fmrgen.storage.paths import SplitPaths


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", autocompletion=recipe_names, help="Show this recipe."),
    ] = None,
    overrides: OverridesArgument = None,
    as_json: JsonOption = False,
) -> None:
    """List the shipped recipes, or show one with every value."""
    from fmrgen.recipe.job import SETS, describe_recipes, load_fixed_sets

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

    shown: BaseModel
    if name.startswith(SETS):
        (shown,) = load_fixed_sets([name]).values()
    else:
        shown = _loader_of(name)(name, overrides or [])
    if as_json:
        display.print_json(shown.model_dump(mode="json"))
    else:
        display.print_recipe(shown)


def _loader_of(name: str) -> "Callable[[str, list[str]], BaseModel]":
    """Return what loads the recipe of that name: an app's function, where it begins as that app's recipes do."""
    from fmrgen.recipe.job import load_recipe

    for app in apps():
        for beginning, loader in getattr(app, "RECIPES", {}).items():
            if name.startswith(beginning):
                load: Callable[[str, list[str]], BaseModel] = getattr(import_module(app.NAMES[loader]), loader)
                return load
    return load_recipe


def generate(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="The dataset folder, or one in a bucket: s3://…, gs://…, hf://buckets/…. A split is resumed.",
        ),
    ] = "out",
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
    push_every: Annotated[
        str | None,
        typer.Option(
            "--push-every",
            metavar="TIME",
            help="With --push, send finished shards every so often, as in 10m, and go on from those that are there.",
        ),
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
    from fmrgen.files import check_writable
    from fmrgen.recipe.job import load_recipe
    from fmrgen.storage.shared_bucket import folder_of, is_bucket

    if push is None:
        for option, is_set in (("--public", public), ("--replace", replace), ("--push-every", push_every is not None)):
            if is_set:
                raise UserError(f"{option} only applies with --push REPO")
    else:
        _check_pushable(output, part)
    seconds = None if push_every is None else _parse_time(push_every)
    own_part = _parse_part(part)
    loaded = load_recipe(recipe, limited(limit, overrides))
    check_places(loaded)
    if not is_bucket(output) and not dry_run:
        check_writable(Path(output))

    from fmrgen.cli import display
    from fmrgen.distributed.launch import launched_precision
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
        _print_plan(loaded, output, own_part, split, as_json)
        return
    precise = loaded.in_precision(launched_precision())
    if push is not None and is_first:
        from fmrgen.publish.push import check_push

        check_push(push, precise, public=public, replace=replace)
    show = not quiet and is_first
    log = progress.JobLog(log_file if is_first else None)

    def note(line: str, is_shown: bool = True) -> None:
        if is_shown:
            display.print_note(line)
        log.write("note", text=line)

    config = loaded.model_dump(mode="json") | {"fingerprint": loaded.fingerprint}
    paths = SplitPaths(folder_of(output), loaded.output.config, loaded.output.split)
    with (
        log.outcome(),
        progress.job_progress(loaded, show, log) as shown,
        tracking((trackers or []) if is_first else [], config, paths.logs, note) as tracked,
    ):
        job = TrackedJob(tracked)
        sending: AbstractContextManager[None] = nullcontext()
        if push is not None and seconds is not None and is_first:
            sending = _sending(precise, output, push, public, replace, seconds, note)

        def on_progress(news: Progress) -> None:
            shown(news)
            job(news)

        with sending:
            summary = make_split(
                loaded,
                output,
                part=own_part,
                on_progress=on_progress,
                on_start=lambda line: note(line, not quiet),
                on_note=note,
            )
        _note_part(part, output, paths, note)
    log.write("end", summary=asdict(summary))
    if not is_first or part is not None:
        return
    if as_json:
        display.print_json({"split": split, "summary": summary})
    elif show:
        display.print_summary(summary, split, every=every)
    if push is not None:
        publish.push_splits(split, push, public, replace, None, quiet or as_json)


def _note_part(part: str | None, output: str, paths: "SplitPaths", on_note: Callable[[str], None]) -> None:
    """Note what to do with a part of a split, if that is all there is."""
    from fmrgen.storage.provenance import read_provenance

    if part is not None and not read_provenance(paths).is_finished:
        on_note(
            f"{output}: holds a part of {paths.name}; when all parts are made, bring their folders to one machine, "
            "and fmrgen merge makes one split of them"
        )


def _check_pushable(output: str, part: str | None) -> None:
    """Raise UserError if the job will not leave a whole split on this machine."""
    from fmrgen.storage.shared_bucket import is_bucket

    if part is not None:
        raise UserError("--push needs the whole split, --part makes one of its parts; merge the parts, then push")
    if is_bucket(output):
        raise UserError("--push reads the split from this machine; copy the bucket's folder to it, then push that")


def _sending(
    recipe: "Recipe",
    output: str,
    repo: str,
    public: bool,
    replace: bool,
    seconds: float,
    on_note: Callable[[str], None],
) -> AbstractContextManager[None]:
    """Fetch the shards that the repo has already; return a context in which finished ones are sent as they come."""
    from fmrgen.publish.unfinished import UnfinishedSplit

    unfinished = UnfinishedSplit(
        recipe, Path(output), repo, public=public, replace=replace, seconds=seconds, on_note=on_note
    )
    unfinished.bring()
    return unfinished.going()


def _print_plan(recipe: "Recipe", output: str, part: tuple[int, int] | None, split: str, as_json: bool) -> None:
    """Print what the job would do."""
    from fmrgen.cli import display
    from fmrgen.jobs.plan import plan

    planned = plan(recipe, output, part=part)
    if not is_first_process():
        return
    if as_json:
        display.print_json({"split": split, "plan": planned})
    else:
        display.print_plan(planned, split)


def _parse_time(text: str) -> float:
    """Return seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text)
    if match is None or float(match[1]) == 0:
        raise UserError(f"--push-every {text}: must be a time, as in 90s, 10m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _parse_part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--part {text}: must be I/N, for example 1/2 for the first of two parts")
    return int(match[1]), int(match[2])


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
