"""The job: source → perturb → split, in one or many processes."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fmrgen.config import InMemory
from fmrgen.distributed.launch import device_name, errors_of_one_process, start_process
from fmrgen.distributed.launcher import launched_precision, unheeded_processes
from fmrgen.distributed.prefetch import read_ahead
from fmrgen.distributed.rank import is_first_process, launched_processes, note
from fmrgen.engine.perturb import perturb
from fmrgen.errors import UserError, one_line, option
from fmrgen.files import check_writable
from fmrgen.jobs.finished import finished_summary, models_read
from fmrgen.jobs.lifecycle import claim, finish, new_provenance, nonfinite_error, record, record_run
from fmrgen.jobs.self_check import check, check_kept_rows, check_unchanged, measure_slope
from fmrgen.jobs.step_size import settled_step
from fmrgen.metrics.cautions import cautions
from fmrgen.metrics.summary import Summary
from fmrgen.progress.job import Progress
from fmrgen.progress.log import job_report
from fmrgen.recipe.build import Components
from fmrgen.recipe.job import Recipe
from fmrgen.recipe.objects import settle
from fmrgen.records import Example, Perturbed
from fmrgen.sources.base import LoadedExample
from fmrgen.sources.in_memory import Config as SourceInMemory
from fmrgen.storage.bucket import is_bucket, open_store
from fmrgen.storage.encodings import KeptEncodings, kept_encodings
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance, Run, Skipped, new_run, now
from fmrgen.storage.shard_claims import ShardClaims, own_shards
from fmrgen.storage.shards import SplitFolder, summary_of_rows
from fmrgen.storage.store import Store, mirror
from fmrgen.trust.code import runs_code_of_others
from fmrgen.weights.identity import identity_of
from fmrgen.weights.remote import announced_downloads

_HOPELESS = 64  # rows from the start without one finite number, and the job ends


def make_split(
    recipe: Recipe,
    output: str | Path,
    *,
    part: tuple[int, int] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Make the perturbed split of `recipe` in the dataset folder `output`, going on where an earlier run stopped.

    Any number of processes may do so at once, under a launcher or each by itself, and each may come late or be killed:
    they take the shards that nobody holds, and all return when the split is finished.

    The folder is the same for all processes, and made if need be. It can be one in an object store
    (`s3://BUCKET/PREFIX`, `gs://…`, `az://…`, `hf://buckets/OWNER/BUCKET/PREFIX`). `part` is `(i, n)`: the i-th of n
    parts, on a machine that does not see the others' folder. Copied into one folder, they are finished by a call
    without it.

    Returns the split's figures; of a part, those of the rows that are in its folder. Raises UserError for what a user
    can fix, before any work where it can be known.
    """
    if part is not None and is_bucket(output):
        raise UserError(f"{output}: machines that see this bucket share the work by themselves; omit {option('part')}")
    summary = finished_summary(recipe, output)
    if summary is not None:
        return summary
    store = open_store(output)
    root = store.root
    check_writable(root)
    mirror(store)
    recipe = recipe.in_precision(launched_precision())
    device = start_process()
    is_first = is_first_process()
    for line in announced_downloads(recipe):
        note(line)
    components = recipe.build(device)
    if components.source.accepts_several and recipe.perturb.start != "none":
        raise UserError("perturb.start: attacks support one label, and the source has several; leave it out")
    options = recipe.output
    paths = SplitPaths(root, options.config, options.split)
    folder = SplitFolder(paths, len(components.source), options.shard_size, store)
    claims = ShardClaims(folder, own_shards(folder.shards, part))
    in_full = is_first and not claims.is_begun
    before = check(components, recipe.perturb.oracle_rule, device, in_full=in_full)
    for line in [*before.notes, *_notes_on_parts(recipe, components)]:
        note(line)
    recipe = settled_step(recipe, components, paths, device)
    with _ending(recipe, store), errors_of_one_process(), closing(claims):
        run = new_run(device_name(device))
        provenance = claim(folder, new_provenance(recipe, components), run, claims)
        note(_start_line(f"{output}:{paths.name}", recipe, device, claims, provenance), logging.INFO)
        if before.kinship is not None:
            record(folder, "kinship", {"kinship": before.kinship.model_dump()})
        check_kept_rows(components.classifier, folder, device)
        job = _Job(recipe, components, folder, provenance, device, claims, on_progress or job_report(paths.name))
        if not provenance.is_finished:
            job.work(run)
        if job.progress.own.rows:
            check_unchanged(components, before, provenance.weights_sha256, folder, device)
        if part is not None and not claims.is_split_whole:
            return summary_of_rows(folder)
        if not claims.is_split_whole:
            raise UserError(f"{root}: a shard of it was set aside by another process; run the same command again")
        if is_first and not provenance.is_finished and provenance.judged_steps != "none":
            too_flat = measure_slope(components.classifier, folder, device)
            if too_flat is not None:
                note(too_flat)
        summary = finish(folder, claims, job.faults)
        for caution in cautions(summary, steps=provenance.judged_steps):
            note(caution)
        return summary


def _notes_on_parts(recipe: Recipe, components: Components) -> list[str]:
    """Return what a user should know of the recipe's parts before the work begins."""
    notes = [unheeded_processes(), *components.notes()]
    for name in ("classifier", "generator", "oracle"):
        section = getattr(recipe, name)
        if isinstance(section, InMemory) and section.unknown is not None:
            notes.append(f"{name}: can't be hashed ({section.unknown}), so no other run can go on")
    if isinstance(recipe.source, SourceInMemory):
        notes.append(recipe.source.sampling_note())
    return [*filter(None, notes)]


def _start_line(split: str, recipe: Recipe, device: torch.device, claims: ShardClaims, provenance: Provenance) -> str:
    """Return a line on what the job runs on, and how much of it is there."""
    if provenance.is_finished:
        return f"{split}: is complete; there is nothing to do"
    finished = len(claims.wanted) - len(claims.missing())
    shards = f"{len(claims.wanted)} shard{'s' if len(claims.wanted) > 1 else ''}"
    state = f"resuming: {finished} of {shards} are finished" if finished else shards
    processes, slots = launched_processes(), recipe.perturb.slots
    if slots != "auto":
        slots = min(slots, provenance.examples)
    several, each = ("es", " each") if processes > 1 else ("", "")
    return f"{processes} process{several} on {device_name(device)}, {slots} slots{each}; {state}"


@contextmanager
def _ending(recipe: Recipe, store: Store) -> Iterator[None]:
    """Make errors name the folder as the caller did, wherever its files are on this machine; and take note, however the
    job ends, in which state objects in memory were left."""
    try:
        yield
    except UserError as error:
        if not store.is_local:
            error.args = (str(error).replace(str(store.root), store.name),)
        raise
    finally:
        for section in (recipe.classifier, recipe.generator, recipe.oracle):
            settle(section)


@dataclass
class _OpenShard:
    """A shard in the making."""

    number: int
    waiting: int = 0  # examples that are in flight
    rows: list[Perturbed] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    all_read: bool = False


@dataclass
class _Job:
    """The work of one process: shards taken one after another, perturbed as one stream, each written when its last row
    ends.
    """

    recipe: Recipe
    components: Components
    folder: SplitFolder
    provenance: Provenance
    device: torch.device
    claims: ShardClaims
    on_progress: Callable[[Progress], None]

    def __post_init__(self) -> None:
        self.progress = Progress(self.folder, self.claims.wanted, self.on_progress)
        self.faults: Counter[str | None] = Counter()  # what was not finite in rows, by how often; None: nothing
        # Of the examples in flight, by id: the shard, and the values of the source's columns.
        self._in_flight: dict[int, tuple[_OpenShard, Mapping[str, Any]]] = {}
        self._failure: UserError | None = None
        self._written: list[Future[None]] = []
        self.encodings = _kept_encodings(self.recipe, self.components, self.provenance, self.device)

    def work(self, run: Run) -> None:
        """Perturb shards until none is missing, and put that on record; wait for those that others hold."""
        times = 0
        while self.claims.missing():
            self._perturb_shards()
            times += 1
            seconds = round(time.monotonic() - self.progress.started, 1)
            images, slots = self.progress.own.rows, self.progress.slots
            end = {"finished": now(), "seconds": seconds, "images": images, "slots": slots}
            record_run(self.folder, run.model_copy(update=end), times)  # before others can finish the split
            self.claims.wait(self.progress.show)
        encodings = self.encodings
        if encodings is not None and encodings.found:
            total = encodings.found + encodings.made
            note(f"{encodings.found:,} of {total:,} encodings were kept in {encodings.root}", logging.INFO)

    def _perturb_shards(self) -> None:
        """Perturb all shards that can be taken.

        A source that fails is an error only when the images before it are through and their shards are written.
        """
        _, classifier, generator, oracle = self.components
        rows = perturb(
            self._examples(),
            classifier,
            generator,
            oracle,
            self.recipe.perturb,
            device=self.device,
            expected=len(self.components.source),
            encodings=self.encodings,
            on_slots=partial(setattr, self.progress, "slots"),
        )
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="shards") as self._writer:
                for row in rows:
                    self._take_row(row)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"a single image does not fit in GPU memory; {option('perturb.precision=bf16', 'precision=bf16')} or a "
                f"smaller {option('generator.image_size')} needs less ({one_line(error, 120)})"
            ) from error
        for future in self._written:
            future.result()
        self._written.clear()
        if self.encodings is not None:
            self.encodings.prune()
        if self._failure is not None:
            raise self._failure

    def _examples(self) -> Iterator[Example]:
        for shard, position, loaded in read_ahead(self._loaded(), 16):  # whose shards nobody else makes meanwhile
            if isinstance(loaded, UserError):
                self._failure = loaded
                return
            if loaded is None:
                shard.all_read = True
                self._write_if_complete(shard)
            elif isinstance(loaded, LoadedExample):
                if loaded.id in self._in_flight:
                    raise UserError(f"source: gives id {loaded.id} twice; every example needs an id of its own")
                shard.waiting += 1
                self._in_flight[loaded.id] = shard, loaded.extra or {}
                controlled = self.recipe.perturb.is_controlled(position, self.folder.examples)
                yield loaded.for_engine(controlled=controlled)
            else:
                shard.skipped.append(Skipped(id=loaded.id, reason=loaded.reason))

    def _loaded(self) -> Iterator[tuple[_OpenShard, int, Any]]:
        """Yield every example of shards with its shard and position, None after each, an error where it must end."""
        image_size = self.components.generator.image_size
        while (number := self.claims.take()) is not None:
            self.progress.uncounted.discard(number)  # its rows are counted as they end
            shard, positions = _OpenShard(number), self.folder.positions(number)
            try:
                examples = self.components.source.load(positions.start, positions.stop, image_size)
                for position, loaded in enumerate(examples, positions.start):
                    yield shard, position, loaded
            except UserError as error:
                yield shard, positions.stop, error
                return
            yield shard, positions.stop, None

    def _take_row(self, row: Perturbed) -> None:
        shard, extra = self._in_flight.pop(row.id)
        row = replace(row, extra=extra)
        self.faults[None if row.valid else row.fault] += 1
        if self.faults.total() == _HOPELESS and not self.faults[None]:
            raise nonfinite_error(_HOPELESS, self.faults)
        shard.waiting -= 1
        shard.rows.append(row)
        self._write_if_complete(shard)
        while self._written and self._written[0].done():
            self._written.pop(0).result()  # a failed write stops the job here
        self.progress.row(row)

    def _write_if_complete(self, shard: _OpenShard) -> None:
        if shard.all_read and not shard.waiting:
            self._written.append(self._writer.submit(self._write, shard))

    def _write(self, shard: _OpenShard) -> None:
        self.claims.check_folder()
        try:
            self.folder.write_shard(shard.number, shard.rows, shard.skipped, self.provenance)
        except UserError:
            self.claims.check_folder()  # the folder may have gone at this very moment
            if shard.number in self.claims.missing():
                raise
        self.claims.release(shard.number)


def _kept_encodings(
    recipe: Recipe, components: Components, provenance: Provenance, device: torch.device
) -> KeptEncodings | None:
    """Return cached encodings, if encoding is slow and all that they depend on is known: others' code may read
    anything."""
    if not components.generator.encode_is_slow or runs_code_of_others(recipe.generator):
        return None
    weights, files = provenance.weights_sha256.generator, models_read(recipe.generator)
    if weights is None or files is None:
        return None
    decides = {
        "files": files,  # a configuration among them decides as much as the weights do
        "generator": identity_of(components.generator, recipe.generator, weights).key,
        "section": recipe.generator.model_dump(mode="json"),
        "device": device_name(device),
        "precision": recipe.perturb.precision,
    }
    return kept_encodings(decides)
