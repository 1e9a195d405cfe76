"""Who works on a shard, in a folder and in a bucket: with real processes that are killed, stand still or come late."""

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
from fmrgen.storage.bucket import open_store
from fmrgen.storage.claims import Claims
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import read_provenance
from fmrgen.storage.shards import SplitFolder
from fmrgen.storage.store import check_creates_once, mirror

LEASE = 2.0  # seconds
MACHINE = """
import json, os, socket, sys, time
late, real = float(sys.argv[2]), time.time
time.time = lambda: real() + late
socket.gethostname = lambda: os.environ["FMRGEN_CACHE"]
from pathlib import Path
from fmrgen.storage.bucket import open_store
from fmrgen.storage.claims import Claims
from fmrgen.storage.store import read
store = open_store(sys.argv[1])
claims = Claims(store)
(store.root / "c").mkdir(parents=True, exist_ok=True)
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    what, name, *content = json.loads(line)
    path = store.root / name
    if what == "create":
        answer = store.create(path, content[0].encode())
    elif what == "read":
        answer = read(store, path).decode()
    elif what == "former_holders":
        answer = claims.former_holders
    elif what == "state":
        answer = claims.state(path, store.names(path.parent))
    elif what == "names":
        answer = sorted(store.names(path))
    else:
        answer = getattr(claims, what)(path)
    print(json.dumps(answer), flush=True)
"""


class Machine:
    """A process with a clock and a cache of its own, which does as it is told."""

    def __init__(self, output, place, env, late=0.0):
        env = {**os.environ, **env, "FMRGEN_LEASE_SECONDS": str(LEASE), "FMRGEN_CACHE": str(place)}
        command = [sys.executable, "-c", MACHINE, str(output), str(late)]
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


@pytest.fixture
def enter(tmp_path, monkeypatch):
    """Opens a folder of the bucket as a machine does that has its cache in `cache`."""

    def use(store, name, cache="cache"):
        for variable, value in (store.environment | {"FMRGEN_CACHE": str(tmp_path / cache)}).items():
            monkeypatch.setenv(variable, value)
        return open_store(f"s3://{BUCKET}/{name}")

    return use


@pytest.fixture(params=["folder", "bucket"])
def machines(request, tmp_path, store):
    """Starts machines that share one folder."""
    started = []
    output = f"s3://{BUCKET}/{tmp_path.name}" if request.param == "bucket" else tmp_path / "out"

    def start(late=0.0, of=None):
        place = tmp_path / f"machine {len(started) if of is None else started.index(of)}"
        started.append(Machine(output, place, store.environment, late))
        return started[-1]

    yield start
    for machine in started:
        machine.process.kill()
        machine.process.communicate()


def until(holds, seconds=15 * LEASE):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


CLAIM, OTHER, SHARD = "c/.s-00000.claim", "c/.s-00001.claim", "c/s-00000-of-00001.parquet"


def test_one_holds_a_claim_until_it_lets_go(machines):
    one, other = machines(late=-1800), machines(late=1800)  # clocks an hour apart
    assert one.do("take", CLAIM)
    assert one.do("state", CLAIM) == "free"  # of others
    assert not other.do("take", CLAIM)
    assert other.do("take", OTHER)
    time.sleep(2 * LEASE)  # whoever is there keeps it
    assert not other.do("take", CLAIM)
    assert other.do("state", CLAIM) == "held"
    assert ".s-00001.claim.0" in one.do("names", "c")
    one.do("release", CLAIM)
    until(lambda: other.do("take", CLAIM))
    assert not one.do("take", CLAIM)


def test_what_a_killed_process_held_is_taken_over(machines):
    one, other = machines(late=1800), machines(late=-1800)
    assert one.do("take", CLAIM)
    assert other.do("state", CLAIM) == "silent"
    one.send(signal.SIGKILL)
    one.process.wait()
    until(lambda: other.do("take", CLAIM))
    assert re.search(rf"^.+ \(process {one.process.pid}\)$", other.do("former_holders", "")[0])
    late_comer = machines()
    assert not late_comer.do("take", CLAIM)


def test_on_the_same_machine_it_is_taken_over_at_once(machines):
    one = machines()
    other = machines(of=one)
    assert one.do("take", CLAIM)
    assert other.do("state", CLAIM) == "held"
    one.send(signal.SIGKILL)
    one.process.wait()
    started = time.monotonic()
    until(lambda: other.do("take", CLAIM))
    assert time.monotonic() - started < LEASE


@pytest.mark.slow
def test_a_process_that_stands_still_loses_its_claim_and_harms_nothing(machines):
    one = machines()
    other = machines(of=one)
    assert one.do("take", CLAIM)
    one.send(signal.SIGSTOP)
    until(lambda: other.do("take", CLAIM))
    one.send(signal.SIGCONT)
    assert one.do("create", SHARD, "rows")
    time.sleep(LEASE)
    one.do("release", CLAIM)
    third = machines()
    assert not third.do("take", CLAIM)  # the other's claim is still the other's
    assert not other.do("create", SHARD, "others")
    assert third.do("read", SHARD) == "rows"


def test_a_claim_of_which_nothing_can_be_read_is_free_after_a_lease(machines):
    one, other = machines(), machines()
    one.do("create", f"{CLAIM}.0", "")
    one.do("create", f"{OTHER}.0", '{"lease": "long", "pid": "x"}')
    assert not other.do("take", CLAIM)
    until(lambda: other.do("take", CLAIM))
    until(lambda: other.do("take", OTHER))


def test_of_many_that_grasp_at_once_one_gets_it(machines):
    crowd = [machines() for _ in range(4)]
    for round_ in range(3):
        name = f"c/.s-0000{round_}.claim"
        for machine in crowd:
            machine.process.stdin.write(json.dumps(["take", name]) + "\n")
        assert sum(machine._answer() for machine in crowd) == 1


@pytest.mark.slow
def test_replies_that_are_lost_cost_nothing(enter):
    """A write whose reply was lost is found to be one's own; what was deleted is gone."""
    with object_store(faults=0.3, seed=1) as store:
        folder = enter(store, "lost")
        claims = Claims(folder)
        for number in range(20):
            claim, shard = folder.root / f"c/.s-{number:05d}.claim", folder.root / f"c/s-{number:05d}-of-00020.parquet"
            assert claims.take(claim)
            assert folder.create(shard, b"rows")
            claims.release(claim)
        assert store.counts["failed"] > 10
        assert store.keys("lost/") == [f"c/s-{number:05d}-of-00020.parquet" for number in range(20)]


def test_a_store_that_ignores_conditions_is_refused(enter):
    with object_store(ignores=["If-None-Match", "if-none-match"]) as store:
        folder = enter(store, "careless")
        with pytest.raises(UserError, match=f"s3://{BUCKET}/careless: creates files that exist already, so processes"):
            check_creates_once(folder, folder.root)
        assert store.keys("careless/") == []


def test_small_files_are_mirrored_as_they_are(enter, store):
    one, other = enter(store, "small", "one"), enter(store, "small", "other")
    for name in ("README.md", "provenance/c/.s.begun.json", "provenance/c/s.json"):
        assert one.create(one.root / name, name.encode())
    assert one.create(one.root / "c/s-00000-of-00001.parquet", b"rows")
    mirror(other)
    assert (other.root / "provenance/c/.s.begun.json").read_text() == "provenance/c/.s.begun.json"
    assert not (other.root / "c").exists()
    one.remove(one.root / "provenance/c/.s.begun.json")
    one.write(one.root / "README.md", b"card")
    mirror(other)
    assert (other.root / "README.md").read_text() == "card"
    assert not (other.root / "provenance/c/.s.begun.json").exists()


def test_a_store_that_refuses_is_a_line(enter, store):
    enter(store, "out")
    folder = open_store("s3://of-nobody/out")
    with pytest.raises(UserError, match="s3://of-nobody/out: there is no such bucket; make it first"):
        Claims(folder).take(folder.root / "c/.s-00000.claim")
    for address in ("s3://", "hf://buckets/only", "az://x"):
        with pytest.raises(
            UserError, match=r": is no address of a bucket \(.*\); say s3://BUCKET/PREFIX, gs"
        ) as caught:
            open_store(address)
        assert str(caught.value).startswith(address[:2])
        assert "Debug" not in str(caught.value)
    for address in (
        *("hf://buckets/o/n/../../z", "hf://buckets/../name/x", "hf://buckets/o/n/a//b", "s3://b/../../x", "gs://b/.."),
        *("s3://b/%2e%2E/x", "s3://b/./x", "s3://b//x", "s3://b/x?sig=SECRET", "s3://b/x#SECRET", "s3://k:SECRET@b/x"),
    ):
        with pytest.raises(UserError, match=r"is no address of a bucket \(it has .*\); say s3://BUCKET") as caught:
            open_store(address)
        assert "SECRET" not in str(caught.value)
    for address in ("hf://datasets/me/out", "ftp://there/out"):
        with pytest.raises(UserError, match=f"{address}: can't be written to; give a folder, or s3://BUCKET/PREFIX"):
            open_store(address)


@pytest.mark.parametrize("links", [True, False])
def test_a_writer_that_comes_late_replaces_no_finished_shard(split, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError))
    paths = SplitPaths(split, "mnist", "lenet")
    provenance = read_provenance(paths)
    folder = SplitFolder.of(paths, provenance)
    before = folder.shard_path(1).read_bytes()
    folder.write_shard(1, [], [], provenance)
    assert folder.shard_path(1).read_bytes() == before
    assert sha256_of(folder.shard_path(1)) == provenance.files[folder.name_of(1)]
    folder.shard_path(1).unlink()
    folder.write_shard(1, [], [], provenance)
    assert folder.shard_path(1).read_bytes() != before
    assert not list(split.glob("mnist/.*.tmp"))


def test_a_store_by_http_is_a_line_that_says_how(enter, monkeypatch, store):
    enter(store, "out")
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(UserError, match="AWS_ENDPOINT_URL begins with http://; set AWS_ALLOW_HTTP=true if keys may go"):
        open_store(f"s3://{BUCKET}/out")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_conflicts_that_never_end_are_a_line(enter, monkeypatch, method):
    monkeypatch.setattr("fmrgen.storage.bucket._PAUSE", 0.01)
    with object_store() as store:
        folder = enter(store, "quarrel")
        shard = folder.root / "c/s-00000-of-00001.parquet"
        assert folder.create(shard, b"rows")
        store.conflicts.add(method)
        calls = {
            "GET": lambda: folder.names(folder.root),
            "HEAD": lambda: folder.open(shard),
            "PUT": lambda: folder.create(shard.with_name("other"), b"rows"),
        }
        with pytest.raises(UserError, match=r"splits/quarrel: the store (reports a conflict|fails: .* 409 Conflict$)"):
            calls[method]()
