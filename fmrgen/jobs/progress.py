"""How far a job is, over all of its processes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from fmrgen.distributed.group import Team
from fmrgen.records import Perturbed
from fmrgen.storage.shards import Tally


@dataclass(frozen=True)
class Progress:
    """How far a job is, over all processes; `resumed` are the rows of `done` that an earlier run made."""

    total: int
    done: int
    accepted: int
    iterations: int
    resumed: int


class Watch:
    """Counts the rows of this process as they end, and hears of those of the others."""

    def __init__(self, team: Team, total: int, resumed: Tally, on_progress: Callable[[Progress], None]) -> None:
        self.team, self.total, self.resumed, self._on_progress = team, total, resumed, on_progress
        self.own = Tally()
        self.started = time.monotonic()
        self.show()

    @property
    def made(self) -> Tally:
        """What all processes have made in this run."""
        others = [told for told in self.team.heard("made") if told is not None]
        return reduce(Tally.plus, others, Tally())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def row(self, row: Perturbed) -> None:
        """Counts a row of this process."""
        self.own = self.own.plus((1, row.valid, row.iterations))
        self.team.tell("made", self.own)
        self.show()

    def show(self) -> None:
        if self.team.is_first:
            rows, accepted, iterations = self.resumed.plus(self.made)
            self._on_progress(Progress(self.total, rows, accepted, iterations, self.resumed.rows))
