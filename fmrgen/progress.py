"""How far a job is, over all of its processes."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fmrgen.rows import Perturbed
from fmrgen.split import SplitFolder

_LOOK_AROUND = 1.0  # seconds between two looks at what other processes have finished


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


class Watch:
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
