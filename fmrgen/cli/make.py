"""The commands that make a split: recipes, a pilot, the job, its parts, and what it may need."""

import json
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
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

if TYPE_CHECKING:
    from pydantic import BaseModel


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


def inspect(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    images: Annotated[int, typer.Option("--images", metavar="N", min=2, help="Images to try.")] = 32,
    download: Annotated[
        bool, typer.Option("--download", help="Download the weights for perceptual distances if they are missing.")
    ] = False,
    masking: Annotated[
        bool,
        typer.Option(
            "--masking", help="Perturb them without gradients too, to see whether the classifier's gradient lies."
        ),
    ] = False,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            metavar="S",
            min=1,
            help="About how long it may take; what takes longer is left out, and named.",
        ),
    ] = 90,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Try a recipe on a few images and propose a step size."""
    from fmrgen.config import check_places
    from fmrgen.recipe.job import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    check_places(loaded)

    from fmrgen.cli import display
    from fmrgen.jobs.inspect import inspect as run
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    show = not quiet and not as_json
    on_trial = display.print_trial if show else lambda trial: None
    with progress.row_progress("inspect, passes of an image", show) as on_passes:
        found = run(
            loaded,
            images=images,
            download=download,
            masking=masking,
            seconds=seconds,
            on_trial=on_trial,
            on_passes=on_passes,
        )
    if as_json:
        display.print_json(found)
    else:
        display.print_inspection(found)


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

    if push is None and (public or replace or push_every is not None):
        given = "--public" if public else "--replace" if replace else "--push-every"
        raise UserError(f"{given} only applies with --push REPO")
    seconds = None if push_every is None else _parse_time(push_every)
    if push is not None and part is not None:
        raise UserError("--push needs the whole split, --part makes one of its parts; merge the parts, then push")
    if push is not None and is_bucket(output):
        raise UserError("--push reads the split from this machine; copy the bucket's folder to it, then push that")
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
    from fmrgen.storage.provenance import read_provenance

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
    precise = loaded.in_precision(launched_precision())
    if push is not None and is_first:
        from fmrgen.publish.push import check_push

        check_push(push, precise, public=public, replace=replace)
    show = not quiet and is_first
    log = progress.JobLog(log_file if is_first else None)

    def tell(line: str, shown: bool = True) -> None:
        if shown:
            display.print_note(line)
        log.write("note", text=line)

    config = loaded.model_dump(mode="json") | {"fingerprint": loaded.fingerprint}
    paths = SplitPaths(folder_of(output), loaded.output.config, loaded.output.split)
    with (
        log.outcome(),
        progress.job_progress(loaded, show, log) as shown,
        tracking((trackers or []) if is_first else [], config, paths.logs, tell) as tracked,
    ):
        job = TrackedJob(tracked)
        sending: AbstractContextManager[None] = nullcontext()
        if push is not None and seconds is not None and is_first:
            from fmrgen.publish.unfinished import UnfinishedSplit

            unfinished = UnfinishedSplit(
                precise, Path(output), push, public=public, replace=replace, seconds=seconds, on_note=tell
            )
            unfinished.bring()
            sending = unfinished.going()

        def on_progress(news: Progress) -> None:
            shown(news)
            job(news)

        with sending:
            summary = make_split(
                loaded,
                output,
                part=own_part,
                on_progress=on_progress,
                on_start=lambda line: tell(line, not quiet),
                on_note=tell,
            )
        if part is not None and not read_provenance(paths).is_finished:
            tell(
                f"{output}: holds a part of {paths.name}; when all parts are made, bring their folders to one machine, "
                "and fmrgen merge makes one split of them"
            )
    log.write("end", summary=asdict(summary))
    if not is_first or part is not None:
        return
    if as_json:
        display.print_json({"split": split, "summary": summary})
    elif show:
        display.print_summary(summary, split, every=every)
    if push is not None:
        publish.push_splits(split, push, public, replace, None, quiet or as_json)


def _parse_time(text: str) -> float:
    """Seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text)
    if found is None or float(found[1]) == 0:
        raise UserError(f"--push-every {text}: must be a time, as in 90s, 10m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


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


def sparsify(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The mask's file.")] = Path(
        "mask.safetensors"
    ),
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", min=1, help="Images to perturb and learn from.")
    ] = 1000,
    regularization: Annotated[
        float | None,
        typer.Option(
            "--regularization",
            metavar="X",
            help="Strength of the l1 penalty (the paper uses 36.36). Default: chosen along a path.",
        ),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Find the latent dimensions that matter.

    Writes a mask for `generator.mask`: the paper's sparse model (App. I).
    """
    from fmrgen.config import check_places
    from fmrgen.recipe.job import load_recipe

    if regularization is not None and not 0 < regularization < float("inf"):
        raise UserError("--regularization: must be a positive number")
    loaded = load_recipe(recipe, [f"source.limit={samples}", *(overrides or [])])
    check_places(loaded)

    from fmrgen.cli import display
    from fmrgen.jobs.sparsify import sparsify as run
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    with progress.row_progress("sparsify", not quiet) as on_images:
        found = run(loaded, output, regularization=regularization, on_images=on_images)
    if not quiet:
        display.print_sparse_mask(found, f"{loaded.output.config}/{loaded.output.split}")
        config = f"output.config={loaded.output.config}-sparse"
        display.print_note(f"use it: fmrgen generate {recipe} generator.mask={output} {config}")
    display.print_line(output)


def train(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="DIR", help="The folder for the weights, or one in a bucket: s3://…"),
    ] = "trained",
    log_file: LogFileOption = None,
    trackers: TrackersOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a classifier, an oracle or a generator.

    Run the same command again to resume.
    """
    from fmrgen.config import check_places
    from fmrgen.training.recipe import load_train_recipe

    loaded = load_train_recipe(recipe, overrides or [])
    check_places(loaded)

    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress
    from fmrgen.training.loop import train as run

    display.quiet_libraries()
    is_first = is_first_process()
    log = progress.JobLog(log_file if is_first else None)

    def tell(line: str) -> None:
        display.print_note(line)
        log.write("note", text=line)

    with log.outcome(), progress.step_progress("train", not quiet and is_first, log) as on_step:
        metrics = run(loaded, output, on_step, trackers or [], tell)
    log.write("end", metrics=metrics)
    if is_first and as_json:
        display.print_json({"output": str(output), "metrics": metrics})
    elif is_first:
        display.print_line(f"{output}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
