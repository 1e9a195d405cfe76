"""How far a job is, over all of its processes: counted from the shards that are there."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from fmrgen.records import Perturbed
from fmrgen.storage.shards import SplitFolder, Tally

_INTERVAL = 2.0  # seconds between two looks at what others have written


@dataclass(frozen=True)
class Progress:
    """How far a job is, over all processes; `resumed` are the rows of `done` that an earlier run made."""

    total: int
    done: int
    accepted: int
    iterations: int
    resumed: int


class ProgressCounter:
    """Counts the rows of this process as they end, and those in the shards that others have written."""

    def __init__(self, folder: SplitFolder, wanted: list[int], on_progress: Callable[[Progress], None]) -> None:
        self.folder, self._on_progress = folder, on_progress
        self.own = Tally()  # made by this process in this run
        self._unseen = set(wanted)  # shards that are neither counted yet nor this process's own
        self._written = Tally()  # by others, or earlier
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
        self.show()

    def show(self) -> None:
        if time.monotonic() - self._counted > _INTERVAL:
            self._count_written()
        rows, accepted, iterations = self._written.plus(self.own)
        self._on_progress(Progress(self._total, rows, accepted, iterations, self.resumed))

    def _count_written(self) -> None:
        self._counted = time.monotonic()
        there = {shard for shard in list(self._unseen) if self.folder.shard_path(shard).exists()}
        self._written = reduce(Tally.plus, map(self.folder.read_tally, there), self._written)
        self._unseen -= there
