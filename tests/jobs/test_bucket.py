"""Splits in an object store: made by machines with nothing on their disks, checked whole, and told in a line."""

import io

import pyarrow.parquet as pq
import pytest
import torch
from commands import run
from object_store import BUCKET, object_store
from photos import six_shards

from fmrgen.errors import UserError
from fmrgen.jobs.generate import make_split
from fmrgen.recipe.job import load_recipe
from fmrgen.storage.bucket import open_store
from fmrgen.storage.claims import Claims
from fmrgen.storage.shard_claims import ShardClaims

SHARDS = [f"c/s-{number:05d}-of-00006.parquet" for number in range(6)]


class Stopped(BaseException):
    """As a kill."""


@pytest.fixture(scope="module")
def store():
    with object_store() as found:
        yield found


@pytest.fixture
def bucket(tmp_path, monkeypatch, store):
    """Makes the split on a new machine each time; the store's keys and rows are those below the output."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("fmrgen.storage.bucket.Bucket.poll", 0.1)
    monkeypatch.setenv("FMRGEN_LEASE_SECONDS", "1")
    file = six_shards(tmp_path)

    class Bucket:
        output = f"s3://{BUCKET}/{tmp_path.name}/out"
        machines = 0

        def make(self, *overrides, **options):
            self.machines += 1
            monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path / f"machine {self.machines}"))
            torch.manual_seed(0)
            return make_split(load_recipe(file, overrides), self.output, **options)

        def names(self):
            return store.keys(f"{tmp_path.name}/out/")

        def ask(self, call, key, **options):
            return call(Bucket=BUCKET, Key=f"{tmp_path.name}/out/{key}", **options)

        def read(self, key):
            return self.ask(store.client.get_object, key)["Body"].read()

        def put(self, key, content):
            self.ask(store.client.put_object, key, Body=content)

        def remove(self, key):
            self.ask(store.client.delete_object, key)

        def rows(self):
            return [row for key in SHARDS for row in pq.read_table(io.BytesIO(self.read(key))).to_pylist()]

    return Bucket()


@pytest.mark.slow
def test_a_split_in_a_bucket_is_that_of_a_folder(bucket, tmp_path, monkeypatch, notes):
    reserve = ShardClaims.reserve

    def reserved(self):
        assert "provenance/c/.s.begun.json" in bucket.names(), "it is there before a claim"
        return reserve(self)

    torch.manual_seed(0)
    expected = make_split(load_recipe(tmp_path / "r.yaml"), tmp_path / "out")
    monkeypatch.setattr(ShardClaims, "reserve", reserved)
    assert bucket.make() == expected
    small = ["README.md", "pictures/c/s.png", "provenance/c/s.json"]
    assert sorted(bucket.names()) == sorted([*SHARDS, *small])
    assert all(bucket.read(key) == (tmp_path / "out" / key).read_bytes() for key in SHARDS)
    assert not list(tmp_path.glob("machine 1/**/*.parquet"))  # nobody needs them there
    assert bucket.make() == expected
    assert f"{bucket.output}:c/s: is complete; there is nothing to do" in notes


@pytest.mark.slow
def test_another_machine_goes_on_where_one_was_lost(bucket, notes):
    def lose(progress):
        if progress.done - progress.resumed >= 5:
            raise Stopped

    with pytest.raises(Stopped):
        bucket.make("perturb.slots=2", on_progress=lose)
    there = [key for key in bucket.names() if key in SHARDS]
    before = {key: bucket.read(key) for key in there}
    assert 0 < len(there) < 6
    assert bucket.make().rows == 12
    assert any(f"resuming: {len(there)} of 6 shards are finished" in line for line in notes)
    assert {key: bucket.read(key) for key in there} == before
    assert sorted(row["id"] for row in bucket.rows()) == list(range(12))


@pytest.mark.slow
def test_a_shard_that_is_damaged_is_found_at_the_end_and_made_again(bucket):
    whole = bucket.make()
    rows = bucket.rows()
    unfinished = bucket.read("provenance/c/s.json").replace(b'"finished": true', b'"finished": false')
    bucket.put("provenance/c/.s.begun.json", unfinished)
    bucket.remove("provenance/c/s.json")
    bucket.put(SHARDS[2], bucket.read(SHARDS[2])[:-40])
    with pytest.raises(UserError, match=rf"{bucket.output}/c/s-00002-of-00006.parquet: is damaged .*; run the same"):
        bucket.make()
    assert "c/.s-00002-of-00006.parquet.damaged" in bucket.names()
    assert bucket.make() == whole
    assert bucket.rows() == rows


DEAD = b'{"token": "dead", "beat": 0, "lease": 1, "host": "far-away", "pid": 7, "machine": "far-away"}'


@pytest.mark.nightly
def test_a_job_that_was_killed_as_it_began_blocks_nobody(bucket, notes):
    bucket.put("c/.s-00000.claim.0", DEAD)
    whole = bucket.make()
    assert "took over the shards of far-away (process 7), of which nothing was heard" in notes
    for key in SHARDS:
        bucket.remove(key)
    bucket.put("c/.s-00001.claim.0", DEAD)
    assert bucket.make() == whole
    for key in SHARDS:
        bucket.remove(key)
    bucket.put("c/.s-00002.claim.0", DEAD)  # and the provenance of the recipe before
    assert bucket.make("perturb.budget=3").rows == 12


@pytest.mark.slow
def test_another_recipe_is_refused_also_while_a_job_has_just_begun(bucket):
    bucket.make()
    another = f"{bucket.output}:c/s was generated by another recipe: perturb.budget was 2, is 3"
    with pytest.raises(UserError, match=another):
        bucket.make("perturb.budget=3")
    for key in SHARDS:
        bucket.remove(key)
    store = open_store(bucket.output)
    claims = Claims(store)
    assert claims.take(store.root / "c/.s-00003.claim")
    with pytest.raises(UserError, match=another):
        bucket.make("perturb.budget=3")
    claims.release(store.root / "c/.s-00003.claim")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["generate", "mnist-lenet", "-o", "s3://b/p", "--part", "1/2"], "s3://b/p: machines that see this bucket"),
        (["generate", "mnist-lenet", "-o", "s3://b/p", "--push", "o/r"], "--push reads the split from this machine"),
        (["evaluate", "s3://b/p:mnist/lenet", "-c", "asset:mnist/lenet"], "s3://b/p:mnist/lenet: is in a bucket; copy"),
    ],
)
def test_what_needs_the_files_here_says_so(capsys, arguments, line):
    assert run(*arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"fmrgen: {line}")
    assert told.count("\n") == 1
