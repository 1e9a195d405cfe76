"""Plan a job: build everything, try it on a few images, and write nothing."""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fmrgen.classifiers.endpoint import Config as Endpoint
from fmrgen.config import ComponentConfig
from fmrgen.distributed.launch import device_name, launched_precision, peak_memory_of_process, start_process
from fmrgen.engine.perturb import perturb
from fmrgen.errors import UserError
from fmrgen.files import check_writable
from fmrgen.jobs.lifecycle import new_provenance
from fmrgen.recipe.build import Components
from fmrgen.recipe.job import Recipe
from fmrgen.records import Example
from fmrgen.sources.base import LoadedExample
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import provenance_to_continue
from fmrgen.storage.shard_claims import own_shards
from fmrgen.storage.shards import SplitFolder
from fmrgen.storage.shared_bucket import shared_folder

# Images of a trial: on a CPU the time per image hardly depends on their number, a GPU must be filled.
_TRIED = {"cpu": 4, "cuda": 32}
_TRIED_STEPS = 3
_TRIED_QUERIES = 4  # at most, of each step: an endpoint may cost money


@dataclass(frozen=True)
class Plan:
    """A job, and how much of it is done.

    Attributes:
        recipe: of the job, in the precision that it would run in.
        examples, classes: of the source.
        image_size: side in pixels.
        shards: how many this job would make, those that exist included.
        existing: how many of them exist.
        images_left: in the shards that do not exist.
        device: that the job would run on.
        seconds_per_pass: measured, of one image through generator, classifier and oracle and back.
        most_queries: to the classifier, for the images left.
        most_seconds: for the images left on one such device, if each uses the whole budget; longer if an endpoint's
            rate limit is slower.
        peak_bytes: the most memory that the trial used: the device's on a GPU, else the process's.
    """

    recipe: Recipe
    examples: int
    classes: int
    image_size: int
    shards: int
    existing: int
    images_left: int
    device: str
    seconds_per_pass: float
    most_queries: int
    most_seconds: float
    peak_bytes: int


def plan(recipe: Recipe, output: str | Path, *, part: tuple[int, int] | None = None) -> Plan:
    """Build a job's components, look into its folder, and time a few images.

    Args:
        recipe: of the job.
        output: the dataset folder; nothing is written into it.
        part: `(i, n)`, as for `generate`.

    Returns:
        The job's size, how much of it is done, and how long the rest takes.

    Raises:
        UserError: the job would stop before its first image.
    """
    shared, root = shared_folder(output, recipe.output.claims)
    check_writable(root)
    recipe = recipe.in_precision(launched_precision())
    device = start_process()
    components = recipe.build(device)
    options = recipe.output
    paths = SplitPaths(root, options.config, options.split)
    shared.refresh()
    files: set[str] = set()
    with suppress(FileNotFoundError):
        files = shared.names(paths.shards)
    provenance_to_continue(paths, new_provenance(recipe, components), begun=bool(paths.shards_among(files)))
    folder = SplitFolder.planned(paths, len(components.source), options.shard_size, shared)
    wanted = own_shards(folder.shards, part)
    missing = [shard for shard in wanted if folder.shard_path(shard).name not in files]
    left = sum(len(folder.positions(shard)) for shard in missing)
    seconds = _seconds_per_pass(recipe, components, device)
    queries = left * recipe.perturb.most_queries
    rate = _rate_of(recipe.classifier)
    return Plan(
        recipe=recipe,
        examples=len(components.source),
        classes=len(components.source.labels),
        image_size=components.generator.image_size,
        shards=len(wanted),
        existing=len(wanted) - len(missing),
        images_left=left,
        device=device_name(device),
        seconds_per_pass=seconds,
        most_queries=queries,
        most_seconds=max(queries * seconds, 0 if rate is None else queries / rate),
        peak_bytes=_peak_bytes(device),
    )


def _seconds_per_pass(recipe: Recipe, components: Components, device: torch.device) -> float:
    """Return the seconds of one image, with as many slots as the trial has images."""
    source, classifier, generator, oracle = components
    tried = min(2 * _TRIED[device.type], len(source))
    loaded = [entry for entry in source.load(0, tried, generator.image_size) if isinstance(entry, LoadedExample)]
    if not loaded:
        raise UserError(f"source: none of the first {tried} images can be read; see source.on_error")
    entries = [entry.for_engine() for entry in loaded]
    first, examples = entries[::2], entries[1::2] or entries
    steps = min(_TRIED_STEPS, recipe.perturb.budget)
    queries = min(_TRIED_QUERIES, recipe.perturb.queries)
    options = replace(
        recipe.perturb, budget=steps, slots=len(examples), min_probability=0.0, min_margin=0.0, queries=queries
    )

    def run(examples: list[Example]) -> float:
        started = time.perf_counter()
        rows = list(perturb(examples, classifier, generator, oracle, options, device=device))
        return (time.perf_counter() - started) / sum(row.queries for row in rows)

    run(first)  # the first time, libraries choose their kernels
    return run(examples)  # other images, since an endpoint's answers are cached


def _rate_of(classifier: ComponentConfig) -> float | None:
    """Return the images a second to which an endpoint is limited; None if there is no limit."""
    endpoint = getattr(classifier, "classifier", classifier)  # a surrogate's section holds that of the endpoint
    if isinstance(endpoint, Endpoint) and endpoint.rate is not None:
        return endpoint.rate * endpoint.batch
    return None


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory_of_process()
