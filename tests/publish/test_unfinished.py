"""Splits on a (real, small) Hub while they are made: by machines that are lost with their disks, one after another."""

import json
import os
import re
import shutil
import signal

import pytest
import warm
from commands import fmrgen, python, wait_for
from stored import assert_same_rows, rows

REPO = "someone/digits"
JOB = [
    "generate",
    "mnist-lenet",
    "--limit",
    "64",
    "output.shard_size=4",
    "perturb.budget=20",
    "perturb.slots=1",
    "-q",
]  # each image alone, as it is where others are missing
LOAD = """
import json, sys
from datasets import load_dataset
rows = load_dataset(sys.argv[1], "mnist", split="lenet")
print(json.dumps([len(rows), rows.features["label"].names[:2], sorted(rows["id"])]))
"""


def shards(hub):
    return [path for path in hub.world().files(REPO) if path.endswith(".parquet")] if REPO in hub.world().repos else []


def generate(hub, machine, *more):
    """Starts the job on a machine with nothing on its disk."""
    environment = {**hub.environment, "HF_HOME": str(machine / "home")}
    arguments = [*JOB, "-o", machine / "out", "--push", REPO, "--push-every", "0.5", *more]
    return warm.Process(["-m", "fmrgen", *arguments], {**os.environ, **environment})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    whole = tmp_path_factory.mktemp("undisturbed")
    assert fmrgen(*JOB, "-o", whole).returncode == 0
    return rows(whole)


@pytest.mark.slow
def test_a_job_goes_on_from_the_hub_on_new_machines(hub, undisturbed, tmp_path, pytestconfig):
    kills, made = 1 + pytestconfig.getoption("--kills"), 0
    for number in range(kills):
        job, before = generate(hub, tmp_path / str(number)), len(shards(hub))
        try:
            wait_for(lambda before=before, job=job: len(shards(hub)) > before or job.poll() is not None, 120)
            assert job.poll() is None, job.communicate()
        finally:
            job.send_signal(signal.SIGKILL)
            job.communicate(60)
        made += len(list((tmp_path / str(number)).glob("out/mnist/*.parquet"))) - before
        shutil.rmtree(tmp_path / str(number))
    there = shards(hub)
    assert 0 < len(there) < 16
    card = python(
        hub, "import sys; from huggingface_hub import DatasetCard; print(DatasetCard.load(sys.argv[1]).text)", REPO
    )
    assert f"**In the making:** {len(there)} of 16 shards are here, with {4 * len(there)} of 64 rows" in card
    count, names, ids = json.loads(python(hub, LOAD, REPO))
    assert (count, names) == (4 * len(there), ["0", "1"])
    assert len({*ids}) == count
    result = fmrgen("evaluate", REPO, "-c", "asset:mnist/lenet", **hub.environment)
    assert result.stderr == f"fmrgen: {REPO}: not finished; run the same generate command again\n"
    last = generate(hub, tmp_path / "last")
    _, said = last.communicate(240)
    assert last.returncode == 0, said
    assert f"{REPO}: {len(there)} of 16 shards were brought from there" in said
    assert_same_rows(rows(tmp_path / "last" / "out"), undisturbed)
    history = hub.world().history(REPO)
    sent = [message for message in history if re.fullmatch(r"\d+ of 16 shards of mnist/lenet", message)]
    print(
        f"{kills} machines lost; {len(history)} commits, {len(sent)} of them of unfinished splits; {made} shards made by those lost"
    )
    assert len(sent) >= kills
    assert len(history) <= len(sent) + 2  # the first one of the repo, and that of the whole split
    assert json.loads(python(hub, LOAD, REPO))[0] == 64
    runs = json.loads((tmp_path / "last/out/provenance/mnist/lenet.json").read_text())["runs"]
    assert len(runs) == kills + 1


@pytest.mark.slow
def test_a_job_that_is_told_to_end_sends_what_it_has(hub, tmp_path):
    job = generate(hub, tmp_path, "--push-every", "1h")
    try:
        wait_for(lambda: list(tmp_path.glob("out/mnist/*.parquet")) or job.poll() is not None)
        job.send_signal(signal.SIGTERM)
        assert job.wait(60) == 143
    finally:
        job.kill()
    made = {str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/mnist/*.parquet")}
    assert made
    assert made <= {*shards(hub)}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--push-every", "10m"], "--push-every only applies with --push REPO"),
        (["--push", REPO, "--push-every", "soon"], "--push-every soon: must be a time, as in 90s, 10m or 1h"),
        (["--push", REPO, "--push-every", "0"], "--push-every 0: must be a time, as in 90s, 10m or 1h"),
    ],
)
def test_mistakes_are_a_line(options, line):
    result = fmrgen("generate", "mnist-lenet", *options)
    assert (result.returncode, result.stderr) == (2, f"fmrgen: {line}\n")


@pytest.mark.slow
def test_another_recipes_shards_are_never_sent(hub, tmp_path):
    """A folder of another job is refused, and what is in it stays there; on the Hub another split is not written over."""
    job = generate(hub, tmp_path, "--push-every", "1h")
    try:
        wait_for(lambda: list(tmp_path.glob("out/mnist/*.parquet")) or job.poll() is not None)
    finally:
        job.send_signal(signal.SIGKILL)
        job.communicate(60)
    assert REPO not in hub.world().repos
    other = generate(hub, tmp_path, "perturb.budget=21")
    assert other.wait(120) == 2
    assert "was made by another recipe: perturb.budget was 20, is 21" in other.communicate()[1]
    assert REPO not in hub.world().repos
    first = generate(hub, tmp_path)
    assert first.wait(240) == 0
    kept = hub.world().files(REPO)
    refused = generate(hub, tmp_path / "new", "perturb.budget=21")
    assert refused.wait(120) == 2
    assert f"{REPO}: already contains another mnist/lenet" in refused.communicate()[1]
    assert hub.world().files(REPO) == kept
    replaced = generate(hub, tmp_path / "new", "perturb.budget=21", "output.shard_size=16", "--replace")
    wait_for(lambda: hub.world().files(REPO) != kept or replaced.poll() is not None, 120)
    there = [path for path in hub.world().files(REPO) if path.endswith(".parquet")]
    assert all("-of-00004" in path for path in there), there  # never of two recipes
    assert replaced.wait(240) == 0
