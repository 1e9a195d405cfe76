"""The job: source → perturb → split, in one or many accelerate processes."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import torch
from accelerate.utils import broadcast_object_list

from fmrgen.background import read_ahead
from fmrgen.card import write_card
from fmrgen.components import Components
from fmrgen.errors import UserError, one_line
from fmrgen.perturb import perturb
from fmrgen.processes import (
    device_name,
    in_launched_precision,
    refuse_unlike_processes,
    start_processes,
    waiting_for_others,
)
from fmrgen.progress import Progress, Watch
from fmrgen.provenance import claim, is_finished, new_provenance, new_run, now
from fmrgen.recipe import Recipe
from fmrgen.report.show import write_picture
from fmrgen.rows import Example, Perturbed
from fmrgen.sources.base import LoadedExample, Source, SourceConfig
from fmrgen.split import Skipped, SplitFolder, picture_path, split_features
from fmrgen.statistics import SUMMARY_COLUMNS, Summary, summarise

_READ_AHEAD = 64  # images decoded and waiting for a slot


def generate(
    recipe: Recipe, output: str | Path, *, on_progress: Callable[[Progress], None] = lambda progress: None
) -> Summary | None:
    """Makes the perturbed split of `recipe` in the dataset folder `output`, going on where an earlier run stopped.

    Runs on every process of `accelerate launch`; `on_progress` is called on the first one. Returns the split's summary
    there, None on the others. Raises UserError for what a user can mend: before any work where it can be known.
    """
    accelerator = start_processes()
    recipe = in_launched_precision(recipe)
    components = recipe.build(accelerator.device)
    options = recipe.output
    folder = SplitFolder(Path(output), options.config, options.split, len(components.source), options.shard_size)
    provenance = claim(folder, new_provenance(recipe, components, folder))
    refuse_unlike_processes(
        {name: provenance[name] for name in ("fingerprint", "weights_sha256", "examples", "labels")}
    )
    todo: list[Any] = [None]
    watch = None
    if accelerator.is_main_process:
        finished = folder.finished_shards()
        watch = Watch(folder, Progress(folder.examples), on_progress, finished)
        todo = [[shard for shard in range(folder.shards) if shard not in watch.counted]]
        if todo[0] or not is_finished(provenance):
            provenance["runs"].append(new_run(accelerator.num_processes, device_name(accelerator.device)))
            provenance["finished"] = False
            folder.remove_leftovers()
            folder.write_provenance(provenance)
    with waiting_for_others():
        broadcast_object_list(todo)  # no process starts before the first one has looked and the folder is claimed
    mine = todo[0][accelerator.process_index :: accelerator.num_processes]
    if watch is not None:
        watch.begin(mine)
    slots: list[int] = []
    try:
        with _told_of_device():
            _perturb_shards(recipe, components, folder, mine, accelerator.device, watch, slots.append)
    except UserError as error:
        error.of_one_process = True
        raise
    if watch is not None and slots:
        provenance["runs"][-1]["slots"] = slots[-1]
    with waiting_for_others():
        accelerator.wait_for_everyone()
    return _finish(folder, provenance, watch) if watch is not None else None


@contextmanager
def _told_of_device() -> Iterator[None]:
    """Makes what a device can't do an error that says what could be changed."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            "the GPU's memory is too small for a single image in flight; perturb.precision=bf16 or a smaller "
            f"generator.image_size needs less ({one_line(error, 120)})"
        ) from error
    except torch._dynamo.exc.BackendCompilerFailed as error:  # a second's import, and only where something failed
        raise UserError(f"perturb.compile: torch can't compile here, leave it out: {one_line(error, 160)}") from error


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
    watch: Watch | None,
    on_slots: Callable[[int], None],
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
        for number, loaded in read_ahead(loads, _READ_AHEAD):
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
                yield loaded.for_engine()
            else:
                shard.skipped.append(Skipped(loaded.id, loaded.reason))

    options = recipe.perturb.model_dump()
    with writer:
        _, classifier, generator, oracle = components
        for row in perturb(examples(), classifier, generator, oracle, device=device, on_slots=on_slots, **options):
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


def _finish(folder: SplitFolder, provenance: dict[str, Any], watch: Watch) -> Summary:
    """Checks the whole split, marks it finished and writes its picture and the card; those that a killed
    run did not write, too."""
    watch.look_around()
    watch.on_progress(watch.progress)
    checked = None if is_finished(provenance) else folder.check_complete(provenance["fingerprint"])
    if checked is not None and len(checked.skipped) == folder.examples:
        first = checked.skipped[0].reason
        raise UserError(f"source: all {len(checked.skipped)} images were unreadable and skipped; first: {first}")
    table = pa.concat_tables([folder.read_columns(shard, SUMMARY_COLUMNS) for shard in range(folder.shards)])
    summary = summarise({name: table[name].to_numpy() for name in SUMMARY_COLUMNS})
    if checked is not None:
        provenance["runs"][-1] |= {"finished": now(), "seconds": round(watch.seconds, 1), "images": watch.made}
        provenance |= checked._asdict() | {"skipped": [entry._asdict() for entry in checked.skipped]}
        provenance |= {"summary": asdict(summary), "finished": True}
        folder.write_provenance(provenance)
    if checked is not None or not picture_path(folder.root, folder.config, folder.split).exists():
        write_picture(folder.root, folder.config, folder.split)
    write_card(folder.root)
    return summary
