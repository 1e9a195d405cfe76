"""The progress of a job over all of its processes, counted from the shards that are written."""

import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from fmrgen.errors import UserError
from fmrgen.records import Perturbed, StopReason
from fmrgen.storage.shards import SplitFolder, Tally

_INTERVAL = 2.0  # seconds between two counts of the shards of other processes


@dataclass(frozen=True)
class Progress:
    """The progress of a job, over all processes where nothing else is said."""

    total: int  # rows of the job
    done: int  # rows that have ended
    accepted: int  # rows of these that are valid
    iterations: int  # of these rows in all
    resumed: int  # rows of `done` that an earlier run made
    stuck: int = 0  # rows of this process that had no gradient
    nonfinite: int = 0  # rows of this process with a value that was not finite
    slots: int | None = None  # images that this process perturbs at once; None before that is decided


def memory_in_use() -> int:
    """Return the peak memory so far, in bytes: that of torch on the GPU, or of this process if there is no GPU."""
    import torch  # which a finished split does not need

    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    unit = 1 if sys.platform == "darwin" else 1024  # bytes; Linux counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class ProgressCounter:
    """Counts the rows of this process as they end, and the rows of shards that other processes write."""

    def __init__(self, folder: SplitFolder, wanted: list[int], on_progress: Callable[[Progress], None]) -> None:
        """Count the job's `wanted` shards that are written already, and report them; each row is reported later."""
        self.folder = folder
        self._on_progress = on_progress
        self.own = Tally()  # made by this process in this run
        self._uncounted = set(wanted)  # shards that are neither counted yet nor this process's own
        self._written = Tally()  # by others, or earlier
        self._stuck = 0
        self._nonfinite = 0
        self.slots: int | None = None
        self._total = sum(len(folder.positions(shard)) for shard in wanted)
        self.started = self._counted = time.monotonic()
        self._count_written()
        self.resumed = self._written.rows
        self.show()

    def own_shard(self, shard: int) -> None:
        """Take a shard as this process's own: its rows are counted as they end."""
        self._uncounted.discard(shard)

    def row(self, row: Perturbed) -> None:
        """Count a row of this process, and report it."""
        self.own = self.own.plus((1, row.valid, row.iterations))
        self._stuck += row.stop_reason is StopReason.STUCK
        self._nonfinite += row.stop_reason is StopReason.NONFINITE
        self.show()

    def show(self) -> None:
        """Report the progress."""
        if time.monotonic() - self._counted > _INTERVAL:
            self._count_written()
        rows, accepted, iterations = self._written.plus(self.own)
        counts = (self._total, rows, accepted, iterations, self.resumed, self._stuck, self._nonfinite)
        self._on_progress(Progress(*counts, self.slots))

    def _count_written(self) -> None:
        """Count the shards that have been written since the last count."""
        self._counted = time.monotonic()
        names: set[str] = set()
        with suppress(OSError, UserError):
            names = self.folder.store.names(self.folder.paths.shards)
        written = self._written
        for shard in list(self._uncounted):  # a copy, for the thread that loads examples takes shards meanwhile
            if self.folder.shard_path(shard).name in names:
                written = written.plus(self.folder.read_tally(shard))
                self._uncounted.discard(shard)
        self._written = written
