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
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

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
    finished = folder.finished_shards()
    todo = [[shard for shard in range(folder.shards) if shard not in set(finished)]]
    broadcast_object_list(todo)  # what the first process saw: another one might look when a shard has been added
    mine = todo[0][accelerator.process_index :: accelerator.num_processes]
    watch = None
    if accelerator.is_main_process:
        watch = _Watch(folder, Progress(folder.examples), on_progress, finished, mine)
        if todo[0] or not provenance["finished"]:
            provenance["runs"].append(_new_run(accelerator))
            provenance["finished"] = False
            folder.remove_leftovers()
            folder.write_provenance(provenance)
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
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // here))
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
        "examples": len(components.source),
        "shards": folder.shards,
        "weights_sha256": {name: weights_sha256(getattr(components, name)) for name in models},
        "seed": recipe.perturb.seed,
        "skipped": [],
        "runs": [],
        "files": {},
    }


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
        other = read_json(path)["recipe"] if path != folder.provenance_path else None
        for section in ("source", "generator", "oracle"):
            if other is not None and other[section] != provenance["recipe"][section]:
                raise UserError(
                    f"{folder.root}: config {folder.config} has another {section} in its split {path.stem}; "
                    "a config is one source, generator and oracle: choose another output.config"
                )
    return earlier or provenance


class _Watch:
    """Counts what all processes have done: this one's rows as they end, the others' by the shards that appear."""

    def __init__(
        self,
        folder: SplitFolder,
        progress: Progress,
        on_progress: Callable[[Progress], None],
        finished: list[int],
        mine: list[int],
    ) -> None:
        self.folder, self.progress, self.on_progress = folder, progress, on_progress
        self.counted = {*finished, *mine}
        for shard in finished:
            self._count_shard(shard)
        progress.resumed = progress.done
        self.started = self.looked = time.monotonic()
        on_progress(progress)

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
    """Perturbs the examples of the shards `mine` as one stream and writes each shard when its last row ends."""
    features = split_features(components.source.labels.names, recipe.output.keep_original)
    size = components.generator.image_size
    home: dict[int, _OpenShard] = {}  # example id → its shard
    writer = ThreadPoolExecutor(1, thread_name_prefix="shards")
    written: list[Future[None]] = []

    def write_if_complete(shard: _OpenShard) -> None:
        if shard.complete:
            arguments = (shard.number, shard.rows, shard.skipped, features, recipe.fingerprint)
            written.append(writer.submit(folder.write_shard, *arguments))

    def examples() -> Iterator[Example]:
        shard = None
        for number, loaded in _read_ahead(_load_shards(components.source, recipe.source, folder, mine, size)):
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


def _load_shards(
    source: Source, config: Any, folder: SplitFolder, shards: list[int], size: int
) -> Iterator[tuple[int, Any]]:
    """(shard, example) for every example of the shards, and (shard, None) at the end of each."""
    assert isinstance(config, SourceConfig)
    for shard in shards:
        positions = folder.positions(shard)
        for loaded in source.load(positions.start, positions.stop, size, config.fit, config.on_error):
            yield shard, loaded
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
    """Checks the whole split, marks it finished, writes the card; the mark comes last."""
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
