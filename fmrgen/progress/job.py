"""The progress of a job over all of its processes, counted from the shards that are written."""

import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from fmrgen.errors import UserError
from fmrgen.records import Perturbed, StopReason
from fmrgen.storage.shards import SplitFolder, Tally


def memory_in_use() -> int:
    """Return the peak memory so far, in bytes: that of torch on the GPU, or of this process if there is no GPU."""
    import torch  # which a finished split does not need

    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    unit = 1 if sys.platform == "darwin" else 1024  # bytes; Linux counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Progress:
    """The progress of a job: over all processes the rows that are `done`, of these those that are `accepted`, and their
    `iterations`; the counts of this process's rows by their ends; and the `slots` that it perturbs at once."""

    def __init__(self, folder: SplitFolder, wanted: list[int], on_progress: "Callable[[Progress], None]") -> None:
        """Count the job's `wanted` shards that are written already, and report them; each row is reported later."""
        self._folder, self._on_progress = folder, on_progress
        self.total = sum(len(folder.positions(shard)) for shard in wanted)  # rows of the job
        self.own = Tally()  # made by this process in this run
        self.ends: Counter[StopReason] = Counter()  # of these
        self.slots: int | None = None  # None before that is decided
        self.uncounted = set(wanted)  # shards that are neither counted yet nor this process's own
        self._written = Tally()  # by others, or earlier
        self.started = self._counted = time.monotonic()
        self._count_written()
        self.resumed = self._written.rows  # rows of `done` that an earlier run made
        self.show()

    def row(self, row: Perturbed) -> None:
        """Count a row of this process, and report it."""
        self.own = self.own.plus((1, row.valid, row.iterations))
        self.ends[row.stop_reason] += 1
        self.show()

    def show(self) -> None:
        """Report the progress."""
        if time.monotonic() - self._counted > 2:  # seconds
            self._count_written()
        self.done, self.accepted, self.iterations = self._written.plus(self.own)
        self._on_progress(self)

    def _count_written(self) -> None:
        """Count the shards that have been written since the last count."""
        self._counted = time.monotonic()
        names, written = set[str](), self._written
        with suppress(OSError, UserError):
            names = self._folder.store.names(self._folder.paths.shards)
        for shard in list(self.uncounted):  # a copy, for the thread that loads examples takes shards meanwhile
            if self._folder.shard_path(shard).name in names:
                written = written.plus(self._folder.read_tally(shard))
                self.uncounted.discard(shard)
        self._written = written
