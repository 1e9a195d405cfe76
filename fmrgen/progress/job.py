"""How far a job is, over all of its processes: counted from the shards that are there."""

import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce

import torch

from fmrgen.errors import UserError
from fmrgen.records import Perturbed, StopReason
from fmrgen.storage.shards import SplitFolder, Tally

_INTERVAL = 2.0  # seconds between two looks at what others have written


@dataclass(frozen=True)
class Progress:
    """How far a job is, over all processes; `resumed` are the rows of `done` that an earlier run made.

    `stuck` and `nonfinite` are rows of this process that had no gradient, or something that was not finite; `slots` are
    its images in flight, None before they are known. `row` is the one of its rows that has just ended, if one has.
    """

    total: int
    done: int
    accepted: int
    iterations: int
    resumed: int
    stuck: int = 0
    nonfinite: int = 0
    slots: int | None = None
    row: Perturbed | None = None

    def figures(self, seconds: float) -> dict[str, float | None]:
        """Its figures for a progress line, `seconds` after its first report; rates in percent, None if unknown."""
        made = self.done - self.resumed
        rate = made / seconds if seconds and made else None
        return {
            "images_per_second": None if rate is None else round(rate, 3),
            "validation_rate": round(100 * self.accepted / self.done, 2) if self.done else None,
            "mean_iterations": round(self.iterations / self.accepted, 3) if self.accepted else None,
            "stuck_rows": self.stuck,
            "nonfinite_rows": self.nonfinite,
            "slots": self.slots,
            "memory_gib": round(memory_in_use() / 2**30, 3),
            "seconds_left": None if rate is None else round((self.total - self.done) / rate, 1),
        }


def memory_in_use() -> int:
    """Bytes: the most that torch has had on the GPU so far, or this process in memory where it has none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class ProgressCounter:
    """Counts the rows of this process as they end, and those in the shards that others have written."""

    def __init__(self, folder: SplitFolder, wanted: list[int], on_progress: Callable[[Progress], None]) -> None:
        self.folder, self._on_progress = folder, on_progress
        self.own = Tally()  # made by this process in this run
        self._unseen = set(wanted)  # shards that are neither counted yet nor this process's own
        self._written = Tally()  # by others, or earlier
        self._stuck = self._nonfinite = 0
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
        """Notes that the rows of a shard are counted as they end."""
        self._unseen.discard(shard)

    def row(self, row: Perturbed) -> None:
        """Counts a row of this process."""
        self.own = self.own.plus((1, row.valid, row.iterations))
        self._stuck += row.stop_reason is StopReason.STUCK
        self._nonfinite += row.stop_reason is StopReason.NONFINITE
        self.show(row)

    def show(self, row: Perturbed | None = None) -> None:
        if time.monotonic() - self._counted > _INTERVAL:
            self._count_written()
        rows, accepted, iterations = self._written.plus(self.own)
        counts = (self._total, rows, accepted, iterations, self.resumed, self._stuck, self._nonfinite)
        self._on_progress(Progress(*counts, self.slots, row))

    def _count_written(self) -> None:
        self._counted = time.monotonic()
        names: set[str] = set()
        with suppress(OSError, UserError):
            names = self.folder.shared.names(self.folder.paths.shards)
        there = {shard for shard in list(self._unseen) if self.folder.shard_path(shard).name in names}
        self._written = reduce(Tally.plus, map(self.folder.read_tally, there), self._written)
        self._unseen -= there
