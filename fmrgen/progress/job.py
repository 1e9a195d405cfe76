"""The progress of a job over all of its processes, counted from the shards that are written."""

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

    def figures(self, seconds: float) -> dict[str, float | None]:
        """Return the figures of a progress line, `seconds` after the first report; unknown ones are None.

        The validation rate is in percent.
        """
        figures: dict[str, float | None] = {
            "images_per_second": None,
            "validation_rate": None,
            "mean_iterations": None,
            "stuck_rows": self.stuck,
            "nonfinite_rows": self.nonfinite,
            "slots": self.slots,
            "memory_gib": round(memory_in_use() / 2**30, 3),
            "seconds_left": None,
        }
        made = self.done - self.resumed
        if made and seconds:
            rate = made / seconds
            figures["images_per_second"] = round(rate, 3)
            figures["seconds_left"] = round((self.total - self.done) / rate, 1)
        if self.done:
            figures["validation_rate"] = round(100 * self.accepted / self.done, 2)
        if self.accepted:
            figures["mean_iterations"] = round(self.iterations / self.accepted, 3)
        return figures


def memory_in_use() -> int:
    """Return the peak memory so far, in bytes: that of torch on the GPU, or of this process if there is no GPU."""
    import torch  # which a finished split does not need

    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return peak_memory_of_process()


def peak_memory_of_process() -> int:
    """Return the most resident memory that this process had so far, in bytes."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

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

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

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
        counted = set()
        for shard in list(self._uncounted):  # a copy, for the thread that loads examples takes shards meanwhile
            if self.folder.shard_path(shard).name in names:
                written = written.plus(self.folder.read_tally(shard))
                counted.add(shard)
        self._written = written
        self._uncounted -= counted
