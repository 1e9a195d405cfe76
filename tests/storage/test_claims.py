"""Who works on a shard, by the three kinds of claims: with real processes that are killed, stand still or come late."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from unittest.mock import Mock

import pytest
from object_store import BUCKET, object_store

from fmrgen.errors import UserError
from fmrgen.files import sha256_of
from fmrgen.locks import kind_that_works
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import read_provenance
from fmrgen.storage.shards import SplitFolder
from fmrgen.storage.shared_bucket import shared_folder

LEASE = 2.0  # seconds
MACHINE = """
import json, os, socket, sys, time
late, real = float(sys.argv[3]), time.time
time.time = lambda: real() + late
socket.gethostname = lambda: os.environ["FMRGEN_CACHE"]
from pathlib import Path
from fmrgen.storage.shared_bucket import shared_folder
shared, root = shared_folder(sys.argv[1], sys.argv[2])
def path(name):
    found = root / name
    found.parent.mkdir(parents=True, exist_ok=True)
    return found
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    what, name, *content = json.loads(line)
    if what == "write":
        path(name).write_text(content[0])
        answer = shared.publish(path(name))
    elif what == "read":
        with shared.open(path(name)) as file:
            answer = file.read().decode()
    elif what == "former_holders":
        answer = shared.former_holders
    else:
        answer = getattr(shared, what)(path(name))
    print(json.dumps(sorted(answer) if isinstance(answer, set) else answer), flush=True)
"""


class Machine:
    """A process with a clock and a cache of its own, which does as it is told."""

    def __init__(self, output, kind, place, env, late=0.0):
        env = {**os.environ, **env, "FMRGEN_LEASE_SECONDS": str(LEASE), "FMRGEN_CACHE": str(place)}
        command = [sys.executable, "-c", MACHINE, str(output), kind, str(late)]
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._answer() == "ready"

    def _answer(self):
        return json.loads(self.process.stdout.readline())

    def do(self, what, name, *content):
        self.process.stdin.write(json.dumps([what, name, *content]) + "\n")
        return self._answer()

    def send(self, number):
        self.process.send_signal(number)


@pytest.fixture(scope="module")
def store():
    with object_store() as found:
        yield found


@pytest.fixture(params=["lock", "lease", "bucket"])
def machines(request, tmp_path, store):
    """Starts machines that share one folder."""
    started = []
    output = f"s3://{BUCKET}/{tmp_path.name}" if request.param == "bucket" else tmp_path / "out"

    def start(late=0.0):
        kind = "auto" if request.param == "bucket" else request.param
        started.append(Machine(output, kind, tmp_path / f"machine {len(started)}", store.environment, late))
        return started[-1]

    start.kind = request.param
    yield start
    for machine in started:
        machine.process.kill()
        machine.process.communicate()


def until(holds, seconds=15 * LEASE):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_one_holds_a_claim_until_it_lets_go(machines):
    one, other = machines(late=-1800), machines(late=1800)  # clocks an hour apart
    assert one.do("take", "c/.s-00000.lock")
    assert not one.do("is_taken", "c/.s-00000.lock")
    assert not other.do("take", "c/.s-00000.lock")
    assert other.do("is_taken", "c/.s-00000.lock")
    assert other.do("take", "c/.s-00001.lock")
    time.sleep(2 * LEASE)  # whoever is there keeps it
    assert not other.do("take", "c/.s-00000.lock")
    assert ".s-00001.lock" in one.do("names", "c")
    one.do("release", "c/.s-00000.lock")
    until(lambda: other.do("take", "c/.s-00000.lock"))
    assert not one.do("take", "c/.s-00000.lock")


def test_what_a_killed_process_held_is_taken_over(machines):
    one, other = machines(late=1800), machines(late=-1800)
    assert one.do("take", "c/.s-00000.lock")
    assert not other.do("take", "c/.s-00000.lock")
    one.send(signal.SIGKILL)
    one.process.wait()
    until(lambda: other.do("take", "c/.s-00000.lock"))
    if machines.kind != "lock":
        assert re.search(rf"^.+ \(process {one.process.pid}\)$", other.do("former_holders", "")[0])
    late_comer = machines()
    assert not late_comer.do("take", "c/.s-00000.lock")


@pytest.mark.slow
def test_a_process_that_stands_still_keeps_a_lock_and_loses_a_lease(machines):
    one, other = machines(), machines()
    assert one.do("take", "c/.s-00000.lock")
    one.send(signal.SIGSTOP)
    if machines.kind == "lock":
        time.sleep(2 * LEASE)
        assert not other.do("take", "c/.s-00000.lock")
        return
    until(lambda: other.do("take", "c/.s-00000.lock"))
    one.send(signal.SIGCONT)
    one.do("write", "c/s-00000-of-00001.parquet", "rows")
    one.do("release", "c/.s-00000.lock")
    third = machines()
    assert third.do("exists", "c/s-00000-of-00001.parquet")
    assert not third.do("take", "c/.s-00000.lock")  # the other's claim is still the other's
    other.do("write", "c/s-00000-of-00001.parquet", "rows")
    assert third.do("read", "c/s-00000-of-00001.parquet") == "rows"


def test_who_is_killed_while_taking_a_lease_bars_nobody(machines):
    if machines.kind == "bucket":
        pytest.skip("an object is there with its content, or not at all")
    one, other = machines(), machines()
    one.do("write", "c/.s-00000.lock", "")
    until(lambda: other.do("take", "c/.s-00000.lock"))


def test_of_many_that_grasp_at_once_one_gets_it(machines):
    crowd = [machines() for _ in range(4)]
    for round_ in range(3):
        name = f"c/.s-0000{round_}.lock"
        for machine in crowd:
            machine.process.stdin.write(json.dumps(["take", name]) + "\n")
        assert sum(machine._answer() for machine in crowd) == 1


@pytest.mark.slow
def test_replies_that_are_lost_cost_nothing(tmp_path, monkeypatch):
    """A write whose reply was lost is found to be one's own; what was deleted is gone."""
    with object_store(faults=0.3, seed=1) as store:
        for name, value in (store.environment | {"FMRGEN_CACHE": str(tmp_path)}).items():
            monkeypatch.setenv(name, value)
        shared, root = shared_folder(f"s3://{BUCKET}/lost")
        for number in range(20):
            claim, shard = root / f"c/.s-{number:05d}.lock", root / f"c/s-{number:05d}-of-00020.parquet"
            assert shared.take(claim)
            shard.parent.mkdir(parents=True, exist_ok=True)
            shard.write_bytes(b"rows")
            shared.publish(shard)
            shared.release(claim)
        assert store.counts["failed"] > 10
        assert store.keys("lost/") == [f"c/s-{number:05d}-of-00020.parquet" for number in range(20)]


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_store_that_ignores_conditions_is_refused(tmp_path, monkeypatch, header):
    with object_store(ignores=[header, header.lower()]) as store:
        for name, value in (store.environment | {"FMRGEN_CACHE": str(tmp_path)}).items():
            monkeypatch.setenv(name, value)
        shared, root = shared_folder(f"s3://{BUCKET}/careless")
        with (
            pytest.raises(UserError, match=f"s3://{BUCKET}/careless: the store ignores {header}, so processes can't"),
            shared.alone(SplitPaths(root, "c", "s")),
        ):
            pass
        assert store.keys("careless/") == []


def test_conditions_are_tried_once_and_by_few_requests(tmp_path, monkeypatch, store):
    for name, value in (store.environment | {"FMRGEN_CACHE": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    shared, root = shared_folder(f"s3://{BUCKET}/careful")
    before = store.counts["requests"]
    shared.check_conditions()
    assert store.counts["requests"] - before <= 7  # two of them look at what another would have written
    with shared.alone(SplitPaths(root, "c", "s")):
        before = store.counts["requests"]
    with shared.alone(SplitPaths(root, "c", "s")):
        pass
    assert store.counts["requests"] - before < 7


def test_small_files_are_as_the_last_one_left_them_and_two_writers_are_told(tmp_path, monkeypatch, store):
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    places = []
    for number in range(2):
        monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path / str(number)))
        places.append(shared_folder(f"s3://{BUCKET}/small"))
    (one, here), (other, there) = places
    paths = [SplitPaths(root, "c", "s") for root in (here, there)]
    with one.alone(paths[0]):
        paths[0].provenance.parent.mkdir(parents=True, exist_ok=True)
        paths[0].provenance.write_text("1")
        (here / "README.md").write_text("card")
    with other.alone(paths[1]):
        assert (paths[1].provenance.read_text(), (there / "README.md").read_text()) == ("1", "card")
        paths[1].provenance.write_text("2")
        (there / "README.md").unlink()  # which is of no account: nobody removes small files
    with one.alone(paths[0]):
        assert (paths[0].provenance.read_text(), (here / "README.md").read_text()) == ("2", "card")

    def stand_still_for_too_long():
        with one.alone(paths[0]):
            paths[0].provenance.write_text("3")
            with monkeypatch.context() as patched:
                patched.setattr(other, "take", lambda path: True)
                with other.alone(paths[1]):
                    paths[1].provenance.write_text("4")

    with pytest.raises(UserError, match="c/s.json: was changed by another process; run the same command again"):
        stand_still_for_too_long()


def test_a_store_that_refuses_is_a_line(tmp_path, monkeypatch, store):
    for name, value in (store.environment | {"FMRGEN_CACHE": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    shared, root = shared_folder("s3://of-nobody/out")
    with pytest.raises(UserError, match="s3://of-nobody/out: there is no such bucket; make it first"):
        shared.take(root / "c/.s-00000.lock")
    for address in ("s3://", "hf://buckets/only", "az://x"):
        with pytest.raises(
            UserError, match=rf"^{address[:2]}.*: is no address of a bucket \(.*\); say s3://BUCKET/PREFIX, gs"
        ) as caught:
            shared_folder(address)
        assert "Debug" not in str(caught.value)
    for address in (
        *("hf://buckets/o/n/../../z", "hf://buckets/../name/x", "hf://buckets/o/n/a//b", "s3://b/../../x", "gs://b/.."),
        *("s3://b/%2e%2E/x", "s3://b/./x", "s3://b//x", "s3://b/x?sig=SECRET", "s3://b/x#SECRET", "s3://k:SECRET@b/x"),
    ):
        with pytest.raises(UserError, match=r"is no address of a bucket \(it has .*\); say s3://BUCKET") as caught:
            shared_folder(address)
        assert "SECRET" not in str(caught.value)
    for address in ("hf://datasets/me/out", "ftp://there/out"):
        with pytest.raises(UserError, match=f"{address}: can't be written to; give a folder, or s3://BUCKET/PREFIX"):
            shared_folder(address)


def test_leases_where_locks_are_kept_to_one_machine(tmp_path, monkeypatch):
    import psutil

    kind_that_works.cache_clear()
    assert kind_that_works(tmp_path / "new") == "lock"
    for fstype, options, kind in (
        ("nfs4", "rw,vers=4.2,local_lock=none", "lock"),
        ("nfs", "rw,nolock,vers=3,local_lock=all", "lease"),
        ("nfs", "rw,vers=3,local_lock=flock", "lease"),
        ("lustre", "rw,flock", "lock"),
        ("lustre", "rw,localflock", "lease"),
        ("fuse.gcsfuse", "rw", "lease"),
    ):
        kind_that_works.cache_clear()
        mount = psutil._ntuples.sdiskpart("device", str(tmp_path), fstype, options)
        monkeypatch.setattr(psutil, "disk_partitions", lambda all, mount=mount: [mount])
        assert kind_that_works(tmp_path) == kind, (fstype, options)
    kind_that_works.cache_clear()


@pytest.mark.parametrize("links", [True, False])
def test_a_writer_that_comes_late_replaces_no_finished_shard(split, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError))
    paths = SplitPaths(split, "mnist", "lenet")
    provenance = read_provenance(paths)
    folder = SplitFolder.of(paths, provenance)
    before = folder.shard_path(1).read_bytes()
    folder.write_shard(1, [], [], provenance.row_schema, provenance.fingerprint)
    assert folder.shard_path(1).read_bytes() == before
    assert sha256_of(folder.shard_path(1)) == provenance.files[folder.name_of(1)]
    folder.shard_path(1).unlink()
    folder.write_shard(1, [], [], provenance.row_schema, provenance.fingerprint)
    assert folder.shard_path(1).read_bytes() != before
    assert not list(split.glob("mnist/.*.tmp"))


def test_a_store_by_http_is_a_line_that_says_how(monkeypatch, store):
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(UserError, match="AWS_ENDPOINT_URL begins with http://; set AWS_ALLOW_HTTP=true if keys may go"):
        shared_folder(f"s3://{BUCKET}/out")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_conflicts_that_never_end_are_a_line(tmp_path, monkeypatch, method):
    monkeypatch.setattr("fmrgen.storage.shared_bucket._PAUSE", 0.01)
    monkeypatch.setattr("fmrgen.storage.shared_bucket.SharedBucket.poll", 0.01)
    with object_store() as store:
        for name, value in (store.environment | {"FMRGEN_CACHE": str(tmp_path)}).items():
            monkeypatch.setenv(name, value)
        shared, root = shared_folder(f"s3://{BUCKET}/quarrel")
        paths = SplitPaths(root, "c", "s")
        with shared.alone(paths):
            shard = paths.shard(0, 1)
            shard.write_bytes(b"rows")
        store.conflicts.add(method)
        calls = {
            "GET": lambda: shared.names(root),
            "HEAD": lambda: shared.exists(shard),
            "PUT": lambda: shared.publish(shard),
        }
        with pytest.raises(UserError, match=r"splits/quarrel: the store (reports a conflict|fails: .* 409 Conflict$)"):
            calls[method]()
        if method != "HEAD":
            with pytest.raises(UserError, match="409"), shared.alone(paths):
                pass
