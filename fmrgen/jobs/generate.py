"""The job: source → perturb → split, in one or many accelerate processes."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from fmrgen.components import Components
from fmrgen.distributed.group import Team, own_work
from fmrgen.distributed.launch import device_name, launched_precision, refuse_unlike_processes, start_processes
from fmrgen.distributed.prefetch import read_ahead
from fmrgen.engine.perturb import perturb
from fmrgen.errors import UserError, one_line
from fmrgen.files import refuse_unwritable
from fmrgen.jobs.lifecycle import ClaimedSplit, claim, finish, new_provenance, nothing_finite
from fmrgen.jobs.progress import Progress, Watch
from fmrgen.metrics import Summary
from fmrgen.recipe import Recipe
from fmrgen.records import Example, Perturbed
from fmrgen.sources.base import LoadedExample, Source
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance, Skipped, new_run, now
from fmrgen.storage.shards import SplitFolder, Tally, set_aside
from fmrgen.weights.digest import refuse_changed_weights

_READ_AHEAD = 64  # images decoded and waiting for a slot
_HOPELESS = 64  # rows from the start without one finite number, and the job ends
_SEEN_WITHIN = 10.0  # seconds within which a machine sees that its folder is the first one's
_LATEST_SIGHT = 60.0  # seconds within which a shared file system shows one machine what another has written


def generate(
    recipe: Recipe,
    output: str | Path,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_note: Callable[[str], None] = lambda line: None,
) -> Summary | None:
    """Makes the perturbed split of `recipe` in the dataset folder `output`, going on where an earlier run stopped.

    Runs on every process of `accelerate launch`. Machines that do not see the same folder each get a part, for
    `fmrgen.merge`. `on_progress` is called on the first process; `on_note`, with a line on what was found or is left to
    do, on the first of each folder. Returns the split's summary on the first process, None on the others and where
    there are parts. Raises UserError for what a user can mend: before any work where it can be known.
    """
    refuse_unwritable(Path(output))
    recipe = recipe.in_precision(launched_precision())
    accelerator = start_processes()
    with Team(accelerator, again="; the same command again goes on") as team, ExitStack() as locks:
        components = recipe.build(accelerator.device)
        options = recipe.output
        paths = SplitPaths(Path(output), options.config, options.split)
        folder = SplitFolder(paths, len(components.source), options.shard_size)
        provenance = new_provenance(recipe, components)
        compared = {"fingerprint", "weights_sha256", "examples", "labels"}
        refuse_unlike_processes(team.exchange("loaded", provenance.model_dump(mode="json", include=compared)))
        run = new_run(team.job, team.size, device_name(accelerator.device))
        mine = _take_once_each(folder, team, lambda: claim(folder, provenance, [run], locks, on_note))
        parts = [part for part in team.exchange("intact", None if mine is None else mine.intact) if part is not None]
        intact = {int(shard): Tally(*tally) for part in parts for shard, tally in part.items()}
        missing = [shard for shard in range(folder.shards) if shard not in intact]
        watch = Watch(team, folder.examples, reduce(Tally.plus, intact.values(), Tally()), on_progress)
        slots: list[int] = []
        share = missing[team.number :: team.size]
        with own_work(), _told_of_device():
            faults = _perturb_shards(
                recipe, components, folder, provenance, share, accelerator.device, watch, slots.append
            )
            if share:
                _refuse_changed_weights(components, folder, provenance)
        team.exchange("done", True, meanwhile=watch.show)
        watch.show()
        if mine is None:
            return None
        found = mine.provenance
        if not found.is_finished:
            told = {"finished": now(), "seconds": round(watch.seconds, 1), "images": watch.made.rows}
            ended = run.model_copy(update=told | ({"slots": slots[-1]} if slots else {}))
            found = found.model_copy(update={"runs": [ended if known == run else known for known in found.runs]})
        if len(parts) > 1 and not folder.is_whole:
            found.write(paths)
            on_note(
                f"{paths.root}: holds a part of {paths.name}, the others are on other machines; "
                "bring their folders here, and fmrgen merge makes one of them"
            )
            return None
        if missing and len(parts) == 1:
            _wait_for_sight(folder)
        summary = finish(folder, found, faults)
        return summary if team.is_first else None


def _take_once_each(folder: SplitFolder, team: Team, take_it: Callable[[], ClaimedSplit]) -> ClaimedSplit | None:
    """The folder, taken by the first process, and on each machine that sees another folder by the first one there.

    None for all other processes.
    """
    mine = take_it() if team.is_first else None
    nothing_to_do = team.exchange("claimed", mine is not None and mine.provenance.is_finished)[0]
    if team.leads_machine and not team.is_first and not nothing_to_do and not _is_shared(folder, team.job):
        return take_it()
    return mine


def _is_shared(folder: SplitFolder, job: str) -> bool:
    """Whether this machine sees in its folder that the first one has claimed it."""
    deadline = time.monotonic() + _SEEN_WITHIN
    while time.monotonic() < deadline:
        for place in reversed(folder.paths.provenance.parents[:4]):
            with suppress(OSError):
                os.listdir(place)  # makes a network file system look anew
        if folder.is_taken_by(job):
            return True
        time.sleep(0.2)
    return False


def _wait_for_sight(folder: SplitFolder) -> None:
    """Waits until a shared file system shows all that other machines have written."""
    deadline = time.monotonic() + _LATEST_SIGHT
    while not folder.is_whole and time.monotonic() < deadline:
        os.listdir(folder.paths.shards)  # makes it look anew
        time.sleep(0.5)


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
    provenance: Provenance,
    share: list[int],
    device: torch.device,
    watch: Watch,
    on_slots: Callable[[int], None],
) -> Counter[str | None]:
    """Perturbs the examples of the shards `share` as one stream and writes each shard when its last row ends. Returns
    what was not finite in rows, by how often; `None` counts the others.

    A source that fails is told after the images before it are through and the shards that they complete are written.
    """
    schema = provenance.row_schema
    size = components.generator.image_size
    loads = _load_shards(components.source, folder, share, size)
    home: dict[int, _OpenShard] = {}  # example id → its shard
    writer = ThreadPoolExecutor(1, thread_name_prefix="shards")
    written: list[Future[None]] = []
    failures: list[UserError] = []

    def write_if_complete(shard: _OpenShard) -> None:
        if shard.complete:
            arguments = (shard.number, shard.rows, shard.skipped, schema, recipe.fingerprint, watch.team.job)
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
                shard.skipped.append(Skipped(id=loaded.id, reason=loaded.reason))

    rows = perturb(
        examples(),
        components.classifier,
        components.generator,
        components.oracle,
        recipe.perturb,
        device=device,
        on_slots=on_slots,
        on_pass=lambda active: watch.team.check(),
    )
    faults: Counter[str | None] = Counter()
    with writer:
        for row in rows:
            faults[None if row.valid else row.fault] += 1
            if faults.total() == _HOPELESS and not faults[None]:
                raise nothing_finite(_HOPELESS, faults)
            shard = home.pop(row.id)
            shard.waiting.remove(row.id)
            shard.rows.append(row)
            write_if_complete(shard)
            while written and written[0].done():
                written.pop(0).result()  # a failed write stops the job here
            watch.row(row)
    for future in written:
        future.result()
    if failures:
        raise failures[0]
    return faults


def _refuse_changed_weights(components: Components, folder: SplitFolder, before: Provenance) -> None:
    """Raises UserError where a model is not any more what it was before the job. The shards are put aside then: they
    are not of one network."""
    try:
        for name, digest in before.weights_sha256:
            refuse_changed_weights(name, getattr(components, name), digest)
    except UserError:
        for path in filter(Path.exists, map(folder.shard_path, range(folder.shards))):
            with suppress(FileNotFoundError):  # by another process of the job
                set_aside(path)
        raise


def _load_shards(source: Source, folder: SplitFolder, shards: list[int], size: int) -> Iterator[tuple[int, Any]]:
    """(shard, example) for every example of the shards, (shard, None) after each, (shard, error) where it must end."""
    for shard in shards:
        positions = folder.positions(shard)
        try:
            for loaded in source.load(positions.start, positions.stop, size):
                yield shard, loaded
        except UserError as error:
            yield shard, error
            return
        yield shard, None
