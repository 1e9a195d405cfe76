"""The commands that make a split: recipes, a pilot, the job, its parts, and what it may need."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import fmrgen
from fmrgen.cli import display, options, publish
from fmrgen.distributed.rank import is_first_process, note
from fmrgen.errors import UserError
from fmrgen.internals import apps

if TYPE_CHECKING:
    from pydantic import BaseModel

    from fmrgen.metrics.summary import Summary
    from fmrgen.recipe.job import Recipe


def recipes(
    recipe: Annotated[str | None, Parameter(completer=options.recipe_names)] = None,
    /,
    *overrides: options.Overrides,
    as_json: options.Json = False,
) -> None:
    """List the shipped recipes, or show one with every value.

    Example: fmrgen recipes mnist-lenet

    Args:
        recipe: Show this recipe.
    """
    from fmrgen.recipe.job import SETS, describe_recipes, load_fixed_sets

    if recipe is None:
        described = describe_recipes()
        width = max(len(name) for name in described)
        lines = [f"{name:{width}}  {description}" for name, description in described.items()]
        display.print_outcome(described, lines, as_json=as_json)
        return
    shown: BaseModel
    if recipe.startswith(SETS):
        (shown,) = load_fixed_sets([recipe]).values()
    else:
        shown = _loader_of(recipe)(recipe, list(overrides))
    display.print_outcome(shown.model_dump(mode="json"), str(shown).splitlines(), as_json=as_json)


def _loader_of(name: str) -> "Callable[[str, list[str]], BaseModel]":
    """Return what loads the recipe of that name: an app's function, where it begins as that app's recipes do."""
    from fmrgen.recipe.job import load_recipe

    for app in apps():
        for beginning, loader in getattr(app, "RECIPES", {}).items():
            if name.startswith(beginning):
                load: Callable[[str, list[str]], BaseModel] = getattr(fmrgen, loader)
                return load
    return load_recipe


def generate(
    recipe: options.OwnRecipe = None,
    /,
    *overrides: options.Overrides,
    output: Annotated[str, Parameter(alias="-o", metavar="DIR")] = options.OWN_OUTPUT,
    limit: options.Limit | None = None,
    processes: options.Processes = 1,
    part: Annotated[str | None, Parameter(metavar="I/N")] = None,
    log_file: options.LogFile | None = None,
    trackers: options.Trackers = (),
    dry_run: bool = False,
    push: Annotated[str | None, Parameter(metavar="REPO")] = None,
    public: options.Public = False,
    replace: options.Replace = False,
    every: options.All = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Generate the perturbed split of a recipe.

    Run the same command again to resume, on any number of processes.

    Example: fmrgen generate mnist-lenet perturb.budget=30 --output out

    Args:
        output: The dataset folder, or one in a bucket: s3://…, gs://…, hf://buckets/…. A split is resumed.
        part: Generate part I of N on a machine without a shared folder. Merge the folders; the command without --part
            then finishes the split.
        dry_run: Show the recipe, what exists and the expected time; generate nothing.
        push: Then push the split to this dataset repo.
    """
    from fmrgen.files import check_writable
    from fmrgen.storage.bucket import is_bucket

    _check_push(push, output, part, public=public, replace=replace)
    own_part = _parse_part(part)
    loaded = options.load_recipe(*options.own_recipe(recipe, overrides), limit)
    if not is_bucket(output) and not dry_run:
        check_writable(Path(output))

    display.quiet_libraries(quiet)
    split = f"{output}:{loaded.output.config}/{loaded.output.split}"
    is_first = is_first_process()
    if dry_run:
        from fmrgen.jobs.plan import plan

        planned = plan(loaded, output, part=own_part)
        if is_first:
            content = {"split": split, "plan": planned}
            display.print_outcome(content, display.plan_lines(planned, split), as_json=as_json)
        return
    if push is not None and is_first:
        from fmrgen.distributed.launcher import launched_precision
        from fmrgen.publish.push import check_push

        check_push(push, loaded.in_precision(launched_precision()), public=public, replace=replace)
    summary = _make(loaded, output, own_part, log_file, trackers, quiet)
    if not is_first or part is not None:
        return
    if as_json:
        display.print_json({"split": split, "summary": summary})
    elif not quiet:
        display.print_summary(summary, split, every=every)
    if push is not None:
        publish.push_splits(split, push, public, replace, None, quiet or as_json)


def _check_push(repo: str | None, output: str, part: str | None, *, public: bool, replace: bool) -> None:
    """Raise UserError if an option needs --push, or if the job will not leave a whole split on this machine."""
    from fmrgen.storage.bucket import is_bucket

    if repo is None and (public or replace):
        raise UserError(f"{'--public' if public else '--replace'} only applies with --push REPO")
    if repo is not None and part is not None:
        raise UserError("--push needs the whole split and --part generates one part; merge the folders, then push")
    if repo is not None and is_bucket(output):
        raise UserError("--push reads the split from this machine; copy the bucket's folder to it, then push that")


def _make(
    recipe: "Recipe",
    output: str,
    part: tuple[int, int] | None,
    log_file: Path | None,
    trackers: Sequence[str],
    quiet: bool,
) -> "Summary":
    """Make the split, with progress on the terminal, in the log file and in trackers; return its summary."""
    from fmrgen.jobs.finished import finished_summary
    from fmrgen.progress.bars import progress_shown
    from fmrgen.progress.log import JobLog, job_report
    from fmrgen.progress.trackers import tracking
    from fmrgen.storage.bucket import open_store
    from fmrgen.storage.paths import SplitPaths
    from fmrgen.storage.provenance import read_provenance

    is_first = is_first_process()
    log = JobLog(log_file if is_first else None)
    config = recipe.model_dump(mode="json") | {"fingerprint": recipe.fingerprint}
    paths = SplitPaths(open_store(output).root, recipe.output.config, recipe.output.split)

    with (
        log.outcome(),
        tracking(list(trackers) if is_first else [], config, paths.logs) as running,
        progress_shown(not quiet),
    ):
        summary = finished_summary(recipe, output)
        if summary is None:
            from fmrgen.jobs.generate import make_split  # torch, which a finished split does not need

            summary = make_split(recipe, output, part=part, on_progress=job_report(paths.name, log, running))
        if part is not None and not read_provenance(paths).is_finished:
            note(
                f"{output}: holds a part of {paths.name}; when all parts are there, copy their folders into one, and "
                "run this without --part to finish the split"
            )
    log.write("end", summary=asdict(summary))
    return summary


def _parse_part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--part {text}: must be I/N, for example 1/2 for the first of two parts")
    return int(match[1]), int(match[2])
