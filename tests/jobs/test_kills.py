"""Jobs that are killed, starved of disk or robbed of their folder go on as if nothing had been: with real processes."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import warm
from commands import fmrgen, wait_for
from object_store import BUCKET, object_store
from photos import six_shards
from PIL import Image
from stored import assert_same_rows, parts, rows

from fmrgen.errors import UserError
from fmrgen.jobs.generate import make_split
from fmrgen.jobs.verify_files import verify_files
from fmrgen.recipe.job import load_recipe
from fmrgen.storage.claims import Claims
from fmrgen.storage.paths import SplitPaths, rows_of_a_shard
from fmrgen.storage.store import Store

MNIST = ["generate", "mnist-lenet", "output.shard_size=4", "perturb.budget=20", "-q"]


class Place:
    """Where a job works: a folder, or one in an object store."""

    def __init__(self, kind, folder, store):
        self.is_bucket, self.folder, self.store = kind == "bucket", folder, store
        self.prefix = f"{folder.parent.name}/"
        self.output = f"s3://{BUCKET}/{folder.parent.name}" if self.is_bucket else folder
        self.runs = 0

    def environment(self):
        """Of processes on one machine; a bucket has another machine each time, with nothing on its disk."""
        self.runs += 1
        cache = {"FMRGEN_CACHE": str(self.folder.with_name(f"machine {self.runs}"))} if self.is_bucket else {}
        return os.environ | self.store.environment | cache | {"FMRGEN_LEASE_SECONDS": "2"}

    def parts(self):
        if not self.is_bucket:
            return parts(self.folder)
        return [key for key in self.store.keys(self.prefix) if key.endswith(".parquet")]

    def brought(self):
        """A folder on this machine with all files of it."""
        for key in self.store.keys(self.prefix) if self.is_bucket else ():
            (self.folder / key).parent.mkdir(parents=True, exist_ok=True)
            self.store.client.download_file(BUCKET, self.prefix + key, str(self.folder / key))
        return self.folder


@pytest.fixture(scope="module")
def store():
    with object_store(faults=0.05) as found:
        yield found


class Job:
    """The processes of one run, started without a launcher: nobody but they themselves ends them."""

    def __init__(self, arguments, processes, env=None):
        env = env or {**os.environ}
        self.processes = warm.start(processes, arguments, env) if processes > 1 else [warm.Process(arguments, env)]

    def wait(self, seconds=300):
        """The exit statuses and what was said."""
        deadline = time.monotonic() + seconds
        said = [process.communicate(timeout=max(0.1, deadline - time.monotonic()))[1] for process in self.processes]
        return [process.returncode for process in self.processes], said

    def end(self):
        for process in self.processes:
            process.kill()


def generating(output, images, processes, slots, env=None):
    return Job(["-m", "fmrgen", *MNIST, *images, f"perturb.slots={slots}", "-o", output], processes, env)


def pixels(row):
    return np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))).astype(int)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, pytestconfig):
    """The split that a job makes whom nobody kills, and how many shards it has."""
    shards = min(max(8, 4 * pytestconfig.getoption("--kills")), 250)  # of the thousand digits
    whole = tmp_path_factory.mktemp("undisturbed")
    assert fmrgen(*MNIST, "--limit", str(4 * shards), "-o", whole).returncode == 0
    return whole, shards


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", pytest.param("bucket", marks=pytest.mark.nightly)])
def test_killed_again_and_again(kind, undisturbed, tmp_path, pytestconfig, store):
    """SIGKILL at random moments, to all processes or to one that the others do without; then any other number goes on."""
    kills, dice = pytestconfig.getoption("--kills"), random.Random(pytestconfig.getoption("--kill-seed"))
    whole, shards = undisturbed
    images = ["--limit", str(4 * shards)]
    place = Place(kind, tmp_path / "out", store)
    killed = survived = attempts = 0
    while killed < kills and len(place.parts()) < shards:
        attempts += 1
        processes, slots = dice.choice([1, 2, 3]), dice.choice([16, 32, 48])
        before = len(place.parts())
        job = generating(place.output, images, processes, slots, place.environment())
        try:
            # Most moments fall into the work, some into its beginning; none waits for more than some shards.
            begun = dice.random() < 0.7
            deadline = time.monotonic() + 120
            while begun and len(place.parts()) == before and time.monotonic() < deadline:
                if all(process.poll() is not None for process in job.processes):
                    break
                time.sleep(0.02)
            time.sleep(dice.uniform(0, 0.4 if begun else 6))
            all_of_them = processes == 1 or len(place.parts()) == before or dice.random() < 0.5
            victims = job.processes if all_of_them else [dice.choice(job.processes)]
            if any(process.poll() is not None for process in victims):
                continue
            for process in victims:
                process.send_signal(signal.SIGKILL)
            killed += 1
            if len(victims) < processes:  # the others go on, until they are killed too
                there, deadline = len(place.parts()), time.monotonic() + 60
                others = [process for process in job.processes if process not in victims]
                while len(place.parts()) == there and all(process.poll() is None for process in others):
                    assert time.monotonic() < deadline, "nobody goes on"
                    time.sleep(0.02)
                survived += 1
            job.end()
            statuses, said = job.wait(60)
            assert {*statuses} <= {0, -signal.SIGKILL}, said
        finally:
            job.end()
    statuses, said = generating(place.output, images, 1, 48, place.environment()).wait(900)
    assert statuses == [0], said
    out = place.brought()
    found, expected = rows(out), rows(whole)
    lost = expected.keys() - found.keys()
    # On more cores processes have more threads than one alone: a gradient near zero may tip, and a row with it.
    unlike = [i for i in found if found[i]["image"] != expected[i]["image"]]
    by_one = [i for i in unlike if np.abs(pixels(found[i]) - pixels(expected[i])).max() <= 1]
    runs = json.loads((out / "provenance/mnist/lenet.json").read_text())["runs"]
    print(
        f"{killed} kills in {attempts} runs, {survived} of one process that others went on without; {len(runs)} runs on record; "
        f"{len(lost)} rows lost, {len(found) - len(expected)} doubled; of {len(found)} images {len(unlike)} differ, "
        f"{len(by_one)} of them by one level of a pixel"
    )
    assert not lost
    assert len(found) == len(expected)
    assert len(unlike) <= (0 if len(os.sched_getaffinity(0)) <= 3 else len(found) // 10)
    alike = found.keys() - unlike
    assert_same_rows({i: found[i] for i in alike}, {i: expected[i] for i in alike})
    assert killed == kills or len(place.parts()) == shards
    assert verify_files(str(out)).intact == shards
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
def test_of_two_processes_one_is_killed_and_the_job_ends_all_the_same(tmp_path):
    """Plain processes, without a launcher and without any word between them; one comes late."""
    out, images = tmp_path / "out", ["--limit", "80"]
    jobs = [generating(out, images, 1, 16)]
    try:
        wait_for(lambda: parts(out))
        jobs.append(generating(out, images, 1, 16))
        jobs[0].processes[0].kill()
        ends = [job.wait(240) for job in jobs]
        assert [statuses for statuses, _ in ends] == [[-signal.SIGKILL], [0]], ends
    finally:
        for job in jobs:
            job.end()
    assert sorted(rows(out)) == list(range(80))
    assert verify_files(str(out)).finished
    assert not [*out.rglob("*.tmp"), *out.glob("mnist/.*.claim.*")]
    runs = json.loads((out / "provenance/mnist/lenet.json").read_text())["runs"]
    assert [("finished" in run) for run in runs] == [False, True]


@pytest.mark.slow
def test_sigterm_ends_a_job_soon_with_143(tmp_path):
    job = generating(tmp_path / "out", ["--limit", "160"], 2, 16)
    try:
        wait_for(lambda: parts(tmp_path / "out"))
        started = time.monotonic()
        for process in job.processes:
            process.send_signal(signal.SIGTERM)
        statuses, said = job.wait(60)
        assert time.monotonic() - started < 30
        assert statuses == [143, 143]
        assert said[0].splitlines()[-1].startswith("fmrgen: ")
        assert "Traceback" not in "".join(said)
    finally:
        job.end()
    assert not list(tmp_path.rglob("*.tmp"))
    assert all(pq.read_table(tmp_path / "out" / path).num_rows == 4 for path in parts(tmp_path / "out"))


EVALUATE = """
import os, sys, time
from pathlib import Path
from torch import nn
from fmrgen.cli.exit import install_signal_handlers, exit_status_of
from fmrgen.jobs.evaluate import evaluate

class Slow(nn.Module):
    def forward(self, images):
        Path(sys.argv[2]).touch()
        time.sleep(3600 * int(os.environ["RANK"]))
        return images.flatten(1)[:, :10]

sys.exit(exit_status_of(lambda: evaluate([sys.argv[1]], {"slow": Slow()}), ""))
"""


@pytest.mark.slow
def test_an_evaluation_misses_a_process_that_dies(finished_split, tmp_path):
    job = Job(["-c", EVALUATE, finished_split, tmp_path / "begun"], 2)
    try:
        wait_for((tmp_path / "begun").exists)
        job.processes[1].kill()
        job.processes[1].wait()
        started = time.monotonic()
        statuses, said = job.wait(60)
        assert statuses == [2, -signal.SIGKILL]
        assert time.monotonic() - started < 40
        assert "fmrgen: another process of the job has stopped" in said[0]
    finally:
        job.end()


# --- in this process, on models without weights ---------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path):
    file = six_shards(tmp_path)

    def make(*overrides):
        torch.manual_seed(0)
        return load_recipe(file, overrides)

    return make


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of some size; skips where that is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(*options):
        return subprocess.run(["mount", *options, "-t", "tmpfs", "tmpfs", place], capture_output=True, text=True)

    if os.geteuid() != 0 or mount("-o", "size=80k").returncode != 0:
        pytest.skip("may not mount a file system here")
    yield place, lambda options: subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_plan_of_many_shards_is_made_of_the_source_alone(recipe, tmp_path):
    assert [rows_of_a_shard("auto", examples) for examples in (1, 1_000, 50_000, 1_281_167)] == [10, 10, 50, 500]
    assert rows_of_a_shard(7, 50_000) == 7
    assert make_split(recipe("output.shard_size=auto"), tmp_path / "out").rows == 12
    assert [pq.read_table(tmp_path / "out" / path).num_rows for path in parts(tmp_path / "out")] == [10, 2]
    assert verify_files(str(tmp_path / "out")).intact == 2


def test_a_full_disk_is_a_line_and_after_making_room_the_job_goes_on(recipe, small_disk):
    disk, remount = small_disk
    with pytest.raises(UserError, match=r"disk/out/.*: can't be written: No space left on device"):
        make_split(recipe(), disk / "out")
    kept = {path: (disk / "out" / path).read_bytes() for path in parts(disk / "out")}
    assert not list(disk.rglob("*.tmp"))
    remount("size=4m")
    assert make_split(recipe(), disk / "out").rows == 12
    assert kept
    assert {path: (disk / "out" / path).read_bytes() for path in kept} == kept


def test_a_read_only_folder_is_told_before_any_work(recipe, small_disk):
    disk, remount = small_disk
    remount("ro")
    with pytest.raises(UserError, match=r"disk/out: can't be written: .*/disk is read-only; choose another output="):
        make_split(recipe(), disk / "out")


@pytest.mark.parametrize("instead", [False, True], ids=["gone", "another in its place"])
def test_a_folder_that_vanishes_ends_the_job_and_brought_back_it_goes_on(recipe, tmp_path, instead):
    out, away = tmp_path / "out", tmp_path / "away"

    def move(progress):
        if parts(out) and not away.exists():
            out.rename(away)
            if instead:
                out.mkdir()

    gone = "out: is gone or was replaced; restore it, and run the same command again to continue"
    with pytest.raises(UserError, match=gone):
        make_split(recipe("perturb.slots=1"), out, on_progress=move)
    assert not parts(out)
    shutil.rmtree(out, ignore_errors=True)
    away.rename(out)
    assert make_split(recipe(), out).rows == 12


def test_a_job_of_another_recipe_is_refused_while_one_is_at_work(recipe, tmp_path):
    paths = SplitPaths(tmp_path / "out", "c", "s")

    def another_comes(progress):
        if not parts(tmp_path / "out"):
            with pytest.raises(UserError, match="out:c/s was generated by another recipe: perturb.budget was 2, is 3"):
                make_split(recipe("perturb.budget=3"), tmp_path / "out")

    assert make_split(recipe(), tmp_path / "out", on_progress=another_comes).rows == 12
    assert not paths.claims_among(os.listdir(paths.shards))


def test_an_error_is_not_rewritten_by_how_the_folder_is_spelled(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_split(recipe(), "a/")
    another = "^a:c/s was generated by another recipe: perturb.budget was 2, is 3; choose another "
    with pytest.raises(UserError, match=another):
        make_split(recipe("perturb.budget=3"), "a/")


def test_a_job_waits_for_shards_that_others_hold_and_takes_them_when_they_are_left(recipe, tmp_path):
    paths = SplitPaths(tmp_path / "out", "c", "s")
    make_split(recipe(), tmp_path / "whole")
    paths.provenance.parent.mkdir(parents=True)
    shutil.copy(SplitPaths(tmp_path / "whole", "c", "s").provenance, paths.provenance)
    paths.shards.mkdir(parents=True)
    other = Claims(Store(tmp_path / "out"))
    assert other.take(paths.shard_claim(3))
    seen = []

    def leave_it(progress):
        seen.append(progress.done)
        if seen.count(10) > 3:  # all but the shard that another one holds, and then it waits
            other.release(paths.shard_claim(3))

    assert make_split(recipe(), tmp_path / "out", on_progress=leave_it).rows == 12
    assert seen[-1] == 12
