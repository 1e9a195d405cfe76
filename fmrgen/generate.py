"""The job: source → perturb → split, in one or many accelerate processes."""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object

from fmrgen.components import Components, weights_sha256
from fmrgen.errors import UserError
from fmrgen.perturb import Example, Perturbed, perturb
from fmrgen.publish import write_card
from fmrgen.recipe import Recipe
from fmrgen.sources.base import LoadedExample, Source, SourceConfig
from fmrgen.split import Skipped, SplitFolder, provenance_path, read_json, split_features
from fmrgen.statistics import SUMMARY_COLUMNS, Summary, summarise

_READ_AHEAD = 64  # images decoded and waiting for a slot
_LOOK_AROUND = 1.0  # seconds between two looks at what other processes have finished
_LONGEST_WAIT = timedelta(days=7)  # a process that is done waits for the others as long as a job may take
_VERSIONS = ("fmrgen", "torch", "transformers", "diffusers", "timm", "datasets", "accelerate")


@dataclass
class Progress:
    """How far a job is, over all processes."""

    total: int
    done: int = 0
    accepted: int = 0
    iterations: int = 0
    resumed: int = 0  # of `done`, the rows that an earlier run made

    def count(self, valid: np.ndarray | list[bool], iterations: np.ndarray | list[int]) -> None:
        self.done += len(valid)
        self.accepted += int(sum(valid))
        self.iterations += int(sum(iterations))


def generate(
    recipe: Recipe, output: str | Path, *, on_progress: Callable[[Progress], None] = lambda progress: None
) -> Summary | None:
    """Makes the perturbed split of `recipe` in the dataset folder `output`, going on where an earlier run stopped.

    Runs on every process of `accelerate launch`; `on_progress` is called on the first one. Returns the split's summary
    there, None on the others. Raises UserError for what a user can mend: before any work where it can be known.
    """
    accelerator = _accelerator()
    components = recipe.build(accelerator.device)
    options = recipe.output
    folder = SplitFolder(Path(output), options.config, options.split, len(components.source), options.shard_size)
    provenance = _claim(folder, _new_provenance(recipe, components, folder))
    _refuse_unlike_processes(provenance)
    todo: list[Any] = [None]
    watch = None
    if accelerator.is_main_process:
        finished = folder.finished_shards()
        watch = _Watch(folder, Progress(folder.examples), on_progress, finished)
        todo = [[shard for shard in range(folder.shards) if shard not in watch.counted]]
        if todo[0] or not provenance["finished"]:
            provenance["runs"].append(_new_run(accelerator))
            provenance["finished"] = False
            folder.remove_leftovers()
            folder.write_provenance(provenance)
    broadcast_object_list(todo)  # no process starts before the first one has looked and the folder is claimed
    mine = todo[0][accelerator.process_index :: accelerator.num_processes]
    if watch is not None:
        watch.begin(mine)
    try:
        _perturb_shards(recipe, components, folder, mine, accelerator.device, watch)
    except UserError as error:
        error.of_one_process = True
        raise
    accelerator.wait_for_everyone()
    return _finish(folder, provenance, watch) if watch is not None else None


def _accelerator() -> Accelerator:
    """An Accelerator on the GPUs where there are any, else on the CPU, with all of the machine's cores shared out."""
    gpu = torch.cuda.is_available()
    try:
        accelerator = Accelerator(cpu=not gpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=_LONGEST_WAIT)])
    except ValueError as error:
        raise UserError(f"the processes can't find each other, start them with accelerate launch: {error}") from None
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise UserError(
            f"launched as {launched} processes but accelerate sees {accelerator.num_processes}; each would do all the "
            "work. On CPUs launch with ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N"
        )
    if not gpu:  # accelerate launch leaves one thread to each process, however many cores there are
        here = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // here))
    return accelerator


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _new_run(accelerator: Accelerator) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type
    versions = {name: version(name) for name in _VERSIONS}
    return {"started": _now(), "processes": accelerator.num_processes, "device": device, "versions": versions}


def _new_provenance(recipe: Recipe, components: Components, folder: SplitFolder) -> dict[str, Any]:
    labels = components.source.labels
    models = ("classifier", "generator", "oracle")
    return {
        "fingerprint": recipe.fingerprint,
        "finished": False,
        "recipe": recipe.model_dump(mode="json"),
        "labels": list(labels.names),
        "groups": None if labels.groups is None else [list(group) for group in labels.groups],
        "source_classes": labels.source_size,
        "examples": len(components.source),
        "image_size": components.generator.image_size,
        "shards": folder.shards,
        "weights_sha256": {name: weights_sha256(getattr(components, name)) for name in models},
        "seed": recipe.perturb.seed,
        "skipped": [],
        "runs": [],
        "files": {},
    }


def _refuse_unlike_processes(provenance: dict[str, Any]) -> None:
    """Raises UserError, on every process, where they did not load the same things: their rows must not be mixed."""
    mine = {name: provenance[name] for name in ("fingerprint", "weights_sha256", "examples", "labels")}
    everyones = gather_object([mine])
    for name, value in everyones[0].items():
        unlike = [process for process, other in enumerate(everyones) if other[name] != value]
        if unlike:
            raise UserError(
                f"process {unlike[0]} has other {name} than process 0; give every node the same recipe and files, and "
                "a classifier that has a checkpoint"
            )


def _claim(folder: SplitFolder, provenance: dict[str, Any]) -> dict[str, Any]:
    """The provenance to go on with: the folder's own where this very recipe began the split, else the new one.

    Raises UserError where something else is in its place.
    """
    earlier = folder.read_provenance()
    where = f"{folder.root}:{folder.config}/{folder.split}"
    if earlier is not None:
        if earlier.get("fingerprint") != provenance["fingerprint"]:
            raise UserError(
                f"{where} was made by another recipe (fingerprint {earlier.get('fingerprint')}, not "
                f"{provenance['fingerprint']}); choose another --output or output.split, or delete it"
            )
        for name in ("labels", "groups"):
            if earlier[name] != provenance[name]:
                raise UserError(f"{where} was begun with other {name}; choose another --output")
        for name, digest in provenance["weights_sha256"].items():
            if earlier["weights_sha256"][name] != digest:
                raise UserError(
                    f"{where} was begun with other {name} weights; put them back, or choose another --output"
                )
        if earlier["examples"] != provenance["examples"]:
            raise UserError(
                f"{where} was begun on {earlier['examples']} examples, the source has {provenance['examples']} now; "
                "choose another --output"
            )
    elif any((folder.root / folder.config).glob(f"{folder.split}-*.parquet")):
        raise UserError(f"{where} holds shards without a provenance file; delete them or choose another --output")
    for path in provenance_path(folder.root, folder.config, "x").parent.glob("*.json"):
        other = read_json(path) if path != folder.provenance_path else provenance
        if other["recipe"]["output"]["keep_original"] != provenance["recipe"]["output"]["keep_original"]:
            raise UserError(
                f"{folder.root}: config {folder.config} has another output.keep_original in its split {path.stem}; "
                "the splits of a config have the same columns"
            )
        for section in ("source", "generator", "oracle"):
            if _identity(other, section) != _identity(provenance, section):
                raise UserError(
                    f"{folder.root}: config {folder.config} has another {section} in its split {path.stem}; "
                    "a config is one source, generator and oracle: choose another output.config"
                )
    return earlier or provenance


def _identity(provenance: dict[str, Any], section: str) -> Any:
    """What makes the section the same in two splits of one config."""
    told = {name: value for name, value in provenance["recipe"][section].items() if name != "on_error"}
    return (told, provenance["labels"]) if section == "source" else (told, provenance["weights_sha256"][section])


class _Watch:
    """Counts what all processes have done: this one's rows as they end, the others' by the shards that appear."""

    def __init__(
        self,
        folder: SplitFolder,
        progress: Progress,
        on_progress: Callable[[Progress], None],
        finished: list[int],
    ) -> None:
        self.folder, self.progress, self.on_progress = folder, progress, on_progress
        self.counted = set(finished)  # shards whose rows are counted, or will be one by one
        for shard in finished:
            self._count_shard(shard)
        progress.resumed = progress.done
        self.started = self.looked = time.monotonic()

    def begin(self, mine: list[int]) -> None:
        """From now on this process makes the shards `mine`."""
        self.counted |= set(mine)
        self.started = self.looked = time.monotonic()
        self.on_progress(self.progress)

    @property
    def made(self) -> int:
        return self.progress.done - self.progress.resumed

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def _count_shard(self, shard: int) -> None:
        table = self.folder.read_columns(shard, ["valid", "iterations"])
        self.progress.count(table["valid"].to_numpy(), table["iterations"].to_numpy())

    def row(self, row: Perturbed) -> None:
        self.progress.count([row.valid], [row.iterations])
        now = time.monotonic()
        if now - self.looked > _LOOK_AROUND:
            self.looked = now
            self.look_around()
        self.on_progress(self.progress)

    def look_around(self) -> None:
        for shard in set(range(self.folder.shards)) - self.counted:
            if self.folder.shard_path(shard).exists():
                self._count_shard(shard)
                self.counted.add(shard)


@dataclass
class _OpenShard:
    """A shard in the making."""

    number: int
    waiting: set[int] = field(default_factory=set)  # ids that are in flight
    rows: list[Perturbed] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    all_read: bool = False

    @property
    def complete(self) -> bool:
        return self.all_read and not self.waiting


def _perturb_shards(
    recipe: Recipe,
    components: Components,
    folder: SplitFolder,
    mine: list[int],
    device: torch.device,
    watch: _Watch | None,
) -> None:
    """Perturbs the examples of the shards `mine` as one stream and writes each shard when its last row ends.

    A source that fails is told after the images before it are through and the shards that they complete are written.
    """
    features = split_features(components.source.labels.names, recipe.output.keep_original)
    size = components.generator.image_size
    loads = _load_shards(components.source, cast(SourceConfig, recipe.source), folder, mine, size)
    home: dict[int, _OpenShard] = {}  # example id → its shard
    writer = ThreadPoolExecutor(1, thread_name_prefix="shards")
    written: list[Future[None]] = []
    failures: list[UserError] = []

    def write_if_complete(shard: _OpenShard) -> None:
        if shard.complete:
            arguments = (shard.number, shard.rows, shard.skipped, features, recipe.fingerprint)
            written.append(writer.submit(folder.write_shard, *arguments))

    def examples() -> Iterator[Example]:
        shard = None
        for number, loaded in _read_ahead(loads):
            if isinstance(loaded, UserError):
                failures.append(loaded)
                return
            if shard is None or number != shard.number:
                shard = _OpenShard(number)
            if loaded is None:
                shard.all_read = True
                write_if_complete(shard)
            elif isinstance(loaded, LoadedExample):
                shard.waiting.add(loaded.id)
                home[loaded.id] = shard
                image = torch.from_numpy(loaded.image.copy()).permute(2, 0, 1).float() / 255
                yield Example(loaded.id, image, loaded.label)
            else:
                shard.skipped.append(Skipped(loaded.id, loaded.reason))

    options = recipe.perturb.model_dump()
    with writer:
        _, classifier, generator, oracle = components
        for row in perturb(examples(), classifier, generator, oracle, device=device, **options):
            shard = home.pop(row.id)
            shard.waiting.remove(row.id)
            shard.rows.append(row)
            write_if_complete(shard)
            while written and written[0].done():
                written.pop(0).result()  # a failed write stops the job here
            if watch is not None:
                watch.row(row)
    for future in written:
        future.result()
    if failures:
        raise failures[0]


def _load_shards(
    source: Source, config: SourceConfig, folder: SplitFolder, shards: list[int], size: int
) -> Iterator[tuple[int, Any]]:
    """(shard, example) for every example of the shards, (shard, None) after each, (shard, error) where it must end."""
    for shard in shards:
        positions = folder.positions(shard)
        try:
            for loaded in source.load(positions.start, positions.stop, size, config.fit, config.on_error):
                yield shard, loaded
        except UserError as error:
            yield shard, error
            return
        yield shard, None


def _read_ahead(items: Iterator[Any]) -> Iterator[Any]:
    """`items`, drawn by a thread of their own so that decoding images does not hold up the models."""
    ready: queue.Queue[Any] = queue.Queue(_READ_AHEAD)
    end = object()

    def draw() -> None:
        try:
            for item in items:
                ready.put(item)
            ready.put(end)
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=draw, daemon=True, name="source").start()
    while (item := ready.get()) is not end:
        if isinstance(item, BaseException):
            raise item
        yield item


def _finish(folder: SplitFolder, provenance: dict[str, Any], watch: _Watch) -> Summary:
    """Checks the whole split, marks it finished and writes the card; a card that a killed run did not write, too."""
    watch.look_around()
    watch.on_progress(watch.progress)
    if not provenance["finished"]:
        digests, skipped = folder.check_complete(provenance["fingerprint"])
        provenance["runs"][-1] |= {"finished": _now(), "seconds": round(watch.seconds, 1), "images": watch.made}
        provenance |= {"files": digests, "skipped": [entry._asdict() for entry in skipped], "finished": True}
        folder.write_provenance(provenance)
    write_card(folder.root)
    table = pa.concat_tables([folder.read_columns(shard, SUMMARY_COLUMNS) for shard in range(folder.shards)])
    return summarise({name: table[name].to_numpy() for name in SUMMARY_COLUMNS})
