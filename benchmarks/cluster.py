"""What a job loses on many processes, by simulation: to its end, to kills, to a slow store; and whether that is so.

    python -m benchmarks.cluster OUT:mnist/lenet                     # with the steps that its rows took
    python -m benchmarks.cluster check                               # against real processes of a model that sleeps

A process has slots, and makes passes; a row ends after its steps, and its slot takes the next row of a shard that the
process holds. Claimed: who is free takes the next shard. Dealt: each has every n-th from the start. A pass of fewer
slots takes less, down to a tenth of a full one. Ideal is all work shared evenly, without a pause.
"""

import argparse
import heapq
import json
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import fmrgen
from fmrgen.split.reference import parse_reference
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import read_provenance
from fmrgen.storage.shards import SplitFolder

_SIZES = (10, 50, 100, 250, 500)  # of shards
_DRAWS = 5  # of kills
_AHEAD = 16  # rows that a process reads before it has a slot for them
_CALIBRATED, _CHECKED = 1, (2, 3)
_ASLEEP = 0.3  # seconds, which hide what computation costs on few cores


@dataclass(frozen=True)
class Cluster:
    """How a job runs; seconds.

    Attributes:
        processes: how many.
        shard_size: rows in each shard.
        slots: of each process.
        full_pass: of all slots.
        smallest: of a full pass, that one of few slots takes at least.
        latency: of a request to what holds the claims and shards.
        lease: until what a killed process held is free.
        between_kills: of one process, on average; None for none.
        restart: from a kill to the first pass of what stands in its place.
        dealt: shards are dealt from the start.
    """

    processes: int
    shard_size: int
    slots: int = 64
    full_pass: float = 2.6
    smallest: float = 0.1
    latency: float = 0.01
    lease: float = 0.0
    between_kills: float | None = None
    restart: float = 120.0
    dealt: bool = False


@dataclass
class _Process:
    """Rows in slots with the pass that each ends with, and rows that wait for one."""

    shards: list[int]
    life: int = 0  # counts kills
    rows: list[tuple[int, int]] = field(default_factory=list)  # a heap
    waiting: deque[int] = field(default_factory=deque)
    held: set[int] = field(default_factory=set)
    passes: int = 0
    ready: float = 0.0  # when what waits is there


@dataclass(frozen=True)
class Outcome:
    """Seconds of a job, those of the ideal, and rows that were made in vain."""

    seconds: float
    ideal: float
    lost_rows: int

    @property
    def loss(self) -> float:
        """Percent of the time."""
        return 100 * (1 - self.ideal / self.seconds)


def simulate(passes: Sequence[int], cluster: Cluster, seed: int = 0) -> Outcome:
    """What becomes of a job whose rows take so many passes each."""
    return _Simulation(passes, cluster, seed).run()


class _Simulation:
    def __init__(self, passes: Sequence[int], cluster: Cluster, seed: int) -> None:
        self.passes, self.cluster, self.dice = list(passes), cluster, np.random.default_rng(seed)
        count = -(-len(self.passes) // cluster.shard_size)
        self.left = [len(self._rows_of(shard)) for shard in range(count)]
        self.written = [False] * count
        self.free_at = [0.0] * count  # inf while somebody holds it
        self.events: list[tuple[float, int, int, str, int]] = []
        self.ended = 0.0
        self.lost = 0
        self.processes: list[_Process] = []
        for number in range(cluster.processes):
            first = number * count // cluster.processes
            order = [*range(first, count), *range(first)]
            own = list(range(number, count, cluster.processes)) if cluster.dealt else order
            self.processes.append(_Process(own))
            self._at(0.0, number, "pass")
            self._await_kill(0.0, number)

    def run(self) -> Outcome:
        while not all(self.written):
            now, number, life, what, shard = heapq.heappop(self.events)
            process = self.processes[number]
            if life != process.life:
                continue  # of one that was killed
            if what == "kill":
                self._kill(now, number)
            elif what == "written":
                self.written[shard] = True
                process.held.discard(shard)
                self.ended = now
            elif what == "took":
                process.waiting += self._rows_of(shard)
                if not process.rows:
                    self._begin_pass(now, number)
            elif process.rows:
                self._end_pass(now, number)
            else:
                self._begin_pass(now, number)
        work = sum(self.passes) * self.cluster.full_pass / self.cluster.slots
        return Outcome(self.ended, work / self.cluster.processes, self.lost)

    def _rows_of(self, shard: int) -> range:
        size = self.cluster.shard_size
        return range(shard * size, min((shard + 1) * size, len(self.passes)))

    def _at(self, time: float, number: int, what: str, shard: int = -1) -> None:
        heapq.heappush(self.events, (time, number, self.processes[number].life, what, shard))

    def _await_kill(self, now: float, number: int) -> None:
        if self.cluster.between_kills is not None:
            self._at(now + self.dice.exponential(self.cluster.between_kills), number, "kill")

    def _kill(self, now: float, number: int) -> None:
        process = self.processes[number]
        for shard in process.held:
            self.lost += len(self._rows_of(shard)) - self.left[shard]
            self.left[shard] = len(self._rows_of(shard))
            self.free_at[shard] = now + self.cluster.lease
        self.processes[number] = _Process(process.shards, process.life + 1)
        self._at(now + self.cluster.restart, number, "pass")
        self._await_kill(now + self.cluster.restart, number)

    def _end_pass(self, now: float, number: int) -> None:
        process = self.processes[number]
        process.passes += 1
        while process.rows and process.rows[0][0] <= process.passes:
            _, row = heapq.heappop(process.rows)
            shard = row // self.cluster.shard_size
            self.left[shard] -= 1
            if self.left[shard] == 0:
                self._at(now + self.cluster.latency, number, "written", shard)
        self._begin_pass(now, number)

    def _begin_pass(self, now: float, number: int) -> None:
        process = self.processes[number]
        while process.waiting and len(process.rows) < self.cluster.slots:
            row = process.waiting.popleft()
            heapq.heappush(process.rows, (process.passes + self.passes[row], row))
        if len(process.waiting) < _AHEAD and now >= process.ready:
            self._take(now, number)
        if process.rows:
            full = len(process.rows) / self.cluster.slots
            self._at(now + self.cluster.full_pass * max(self.cluster.smallest, full), number, "pass")
        elif now >= process.ready and not all(self.written):
            self._at(now + max(0.5, self.cluster.latency), number, "pass")  # looks again

    def _take(self, now: float, number: int) -> None:
        for shard in self.processes[number].shards:
            if not self.written[shard] and self.free_at[shard] <= now:
                self.free_at[shard] = np.inf
                self.processes[number].held.add(shard)
                self.processes[number].ready = now + 2 * self.cluster.latency
                self._at(self.processes[number].ready, number, "took", shard)
                return


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("split", help="a split in a folder, whose rows' steps are taken; or `check`")
    parser.add_argument("--images", type=int, default=50_000, help="their steps are drawn from the split's")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.one is not None:
        _make(*given.one)
    elif given.split == "check":
        _check()
    else:
        _tables(_passes_of(given.split), given.images)


def _passes_of(split: str) -> np.ndarray:
    """Of each row: its steps, the pass of its start, and the one that ended it."""
    reference = parse_reference(split)
    paths = SplitPaths(Path(reference.repo), str(reference.config), str(reference.split))
    steps = SplitFolder.of(paths, read_provenance(paths)).read_columns(["iterations"])["iterations"]
    return np.asarray(steps.to_numpy() + 2)


def _tables(found: np.ndarray, images: int) -> None:
    passes = np.random.default_rng(0).choice(found, images).tolist()
    alone = simulate(passes, Cluster(1, 500)).ideal / 3600
    print(f"{images:,} images of {np.mean(passes):.1f} passes, {alone:.1f} hours of one process. Percent of the time")
    print("that is lost, and with kills the rows made in vain, by rows in a shard.\n")
    bucket = Cluster(1, 1, latency=0.2, lease=60)
    ways = {
        "claimed, a shared folder": Cluster(1, 1),
        "dealt from the start": Cluster(1, 1, dealt=True),
        "claimed, a bucket of 0.2 s a request": bucket,
        "the same, a process killed every hour": replace(bucket, between_kills=3600),
        "dealt, a process killed every hour": Cluster(1, 1, between_kills=3600, dealt=True),
    }
    for name, way in ways.items():
        print(f"| {name} | " + " | ".join(map(str, _SIZES)) + " |")
        print("|---" * (len(_SIZES) + 1) + "|")
        for processes in (1, 8, 64, 512):
            cells = []
            for size in _SIZES:
                cluster, draws = replace(way, processes=processes, shard_size=size), _DRAWS if way.between_kills else 1
                outcomes = [simulate(passes, cluster, seed) for seed in range(draws)]
                cells.append(_cell(outcomes, bool(way.between_kills)))
            print(f"| {processes} | " + " | ".join(cells) + " |", flush=True)
        print()


def _cell(outcomes: Sequence[Outcome], kills: bool) -> str:
    loss = f"{np.mean([outcome.loss for outcome in outcomes]):.1f}"
    return f"{loss}, {np.mean([outcome.lost_rows for outcome in outcomes]):,.0f} rows" if kills else loss


class Asleep(nn.Module):
    """The shipped LeNet after a pause, as long for one image as for many."""

    def __init__(self) -> None:
        super().__init__()
        self.network = fmrgen.load_classifier("asset:mnist/lenet")
        self.class_names = self.network.class_names

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(_ASLEEP)
        logits: Tensor = self.network(images)
        return logits


_RECIPE = """
source: {kind: mnist, split: test, limit: 160}
classifier: {kind: module, target: "benchmarks.cluster:Asleep"}
generator: {kind: transform, image_size: 32}
oracle: {kind: clip, model: "asset:mnist/clip"}
perturb: {budget: 20, step_size: 0.15, slots: 4, control: 0}
output: {config: mnist, split: asleep, shard_size: 4}
"""


def _make(folder: str, processes: str, number: str) -> None:
    """One process of a real job, which begins when all are there."""
    from fmrgen import load_recipe
    from fmrgen.jobs.generate import make_split

    torch.set_num_threads(1)
    place = Path(folder)
    recipe = load_recipe(place / "recipe.yaml")
    recipe.build()  # what is imported and read once
    (place / f"ready-{number}").touch()
    while len(list(place.glob("ready-*"))) < int(processes):
        time.sleep(0.01)
    make_split(recipe, place / "out")


def _check() -> None:
    """Real processes, calibrated by one alone."""
    seconds = {}
    for processes in (_CALIBRATED, *_CHECKED):
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "recipe.yaml").write_text(_RECIPE)
            command = [sys.executable, "-m", __spec__.name, "check", "--one", name, str(processes)]
            jobs = [subprocess.Popen([*command, str(number)]) for number in range(processes)]
            if any(job.wait() for job in jobs):
                raise SystemExit("a job failed")
            written = json.loads((Path(name) / "out/provenance/mnist/asleep.json").read_text())
            seconds[processes] = max(run["seconds"] for run in written["runs"])  # from the first image on
            passes = _passes_of(f"{name}/out:mnist/asleep").tolist()
    base = Cluster(1, 4, slots=4, full_pass=_ASLEEP, smallest=1)
    scale = seconds[_CALIBRATED] / simulate(passes, base).seconds
    for processes in _CHECKED:
        expected = scale * simulate(passes, replace(base, processes=processes)).seconds
        print(
            f"{processes} processes: {seconds[processes]:.1f} s, simulated {expected:.1f} s "
            f"({100 * (seconds[processes] / expected - 1):+.1f} %)"
        )


if __name__ == "__main__":
    main()
