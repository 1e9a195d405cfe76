"""Plan a job: what it downloads and stores, and how long it takes. Nothing is written, and nothing downloaded."""

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fmrgen.distributed.launch import device_name, start_process
from fmrgen.distributed.launcher import launched_precision
from fmrgen.engine.perturb import perturb
from fmrgen.errors import UserError
from fmrgen.files import check_writable
from fmrgen.image_files import png_bytes
from fmrgen.jobs.lifecycle import new_provenance
from fmrgen.jobs.step_size import settled_step
from fmrgen.recipe.build import Components
from fmrgen.recipe.job import Recipe
from fmrgen.sources.base import LoadedExample
from fmrgen.storage.bucket import open_store
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import provenance_to_continue
from fmrgen.storage.shard_claims import own_shards
from fmrgen.storage.shards import SplitFolder
from fmrgen.storage.store import mirror
from fmrgen.weights.remote import Remote, check_room, remotes_of


@dataclass(frozen=True)
class Work:
    """The size of a job, measured with its models on this machine."""

    examples: int
    classes: int
    image_size: int  # side in pixels
    shards: int  # how many this job would generate, those that exist included
    existing: int  # how many of them exist
    images_left: int  # in the shards that do not exist
    device: str
    seconds_per_pass: float  # measured, of one image through generator, classifier and oracle and back
    most_queries: int  # to the classifier, for the images left
    most_seconds: float  # for the images left on one such device, if each uses the whole budget
    slots: int  # 0 if the job finds them by timing
    split_bytes: int  # of the images left, as PNG files, from those of the trial
    free_bytes: int | None  # on the disk of the split; None for a bucket


@dataclass(frozen=True)
class Plan:
    """A job before it begins."""

    recipe: Recipe  # in the precision that the job would run in
    downloads: list[Remote]  # the models and data that come from elsewhere, whether they are on this machine or not
    work: Work | None  # None if something has to be downloaded before it can be measured


def plan(recipe: Recipe, output: str | Path, *, part: tuple[int, int] | None = None) -> Plan:
    """Look at what a job downloads; if all of it is here, build its components and time a few images.

    Nothing is written into the dataset folder `output`. `part` is `(i, n)`, as for `generate`. Raises UserError if the
    job would stop before its first image.
    """
    store = open_store(output)
    root = store.root
    check_writable(root)
    recipe = recipe.in_precision(launched_precision())
    device = start_process()
    downloads = remotes_of(recipe)
    check_room(downloads)
    if not all(remote.is_here for remote in downloads):
        return Plan(recipe, downloads, None)
    components = recipe.build(device)
    options = recipe.output
    paths = SplitPaths(root, options.config, options.split)
    mirror(store)
    files: set[str] = set()
    with suppress(FileNotFoundError):
        files = store.names(paths.shards)
    begun = bool(paths.shards_among(files))
    if recipe.perturb.step_size != "auto" or paths.is_on_record:
        recipe = settled_step(recipe, components, paths, device)
        provenance_to_continue(paths, new_provenance(recipe, components), begun=begun)
    folder = SplitFolder(paths, len(components.source), options.shard_size, store)
    wanted = own_shards(folder.shards, part)
    missing = [shard for shard in wanted if folder.shard_path(shard).name not in files]
    left = sum(len(folder.positions(shard)) for shard in missing)
    seconds_per_pass, row_bytes = _try(recipe, components, device)
    queries = left * replace(recipe.perturb, step_size=1.0).most_queries
    slots, free = recipe.perturb.slots, None
    if store.is_local:
        existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
        free = shutil.disk_usage(existing).free
    work = Work(
        examples=len(components.source),
        classes=len(components.source.labels),
        image_size=components.generator.image_size,
        shards=len(wanted),
        existing=len(wanted) - len(missing),
        images_left=left,
        device=device_name(device),
        seconds_per_pass=seconds_per_pass,
        most_queries=queries,
        most_seconds=queries * seconds_per_pass,
        slots=0 if slots == "auto" else min(slots, len(components.source)),
        split_bytes=left * row_bytes,
        free_bytes=free,
    )
    return Plan(recipe, downloads, work)


def _try(recipe: Recipe, components: Components, device: torch.device) -> tuple[float, int]:
    """Perturb a few images, with as many slots as there are images; return the seconds of a pass of one image, and the
    bytes of the images of a row."""
    source, size = components.source, components.generator.image_size
    # On a CPU the time per image hardly depends on their number, a GPU must be filled.
    tried = min(8 if device.type == "cpu" else 64, len(source))
    loaded = source.load(0, tried, size)
    entries = [entry.for_engine() for entry in loaded if isinstance(entry, LoadedExample)]
    if not entries:
        raise UserError(f"source: none of the first {tried} images can be read; see source.on_error")
    first, examples = entries[::2], entries[1::2] or entries
    options = replace(
        recipe.perturb,
        budget=min(3, recipe.perturb.budget),
        step_size=1e-3 if recipe.perturb.step_size == "auto" else recipe.perturb.step_size,  # wherever it leads
        slots=len(examples),
        min_probability=0.0,
        min_margin=0.0,
        queries=min(4, recipe.perturb.queries),  # a service may cost money
    )
    list(perturb(first, *components[1:], options, device=device))  # the first time, libraries choose their kernels
    started = time.perf_counter()
    rows = list(perturb(examples, *components[1:], options, device=device))  # others: a service may keep answers
    seconds = time.perf_counter() - started
    stored = 0
    for row in rows:
        images = [row.image, row.original] if recipe.output.keep_original else [row.image]
        stored += sum(len(png_bytes(image.permute(1, 2, 0).numpy())) for image in images)
    return seconds / sum(row.queries for row in rows), stored // len(rows)
