"""A finished split is recognised by its files, and by no less than what its rows depend on."""

import os

import pytest

from fmrgen import load_recipe
from fmrgen.jobs.finished import finished_summary, models_read
from fmrgen.storage.paths import SplitPaths

OVERRIDES = ["source.limit=120", "output.shard_size=40", "perturb.budget=8", "perturb.step_size=0.1"]


def touched(paths):
    shard = paths.shard(1, 3)
    later = paths.provenance.stat().st_mtime_ns + 1
    os.utime(shard, ns=(later, later))


def cut(paths):
    shard = paths.shard(1, 3)
    before = shard.stat()
    shard.write_bytes(shard.read_bytes()[:-1])
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_it_is_recognised_with_its_figures(split, notes):
    summary = finished_summary(load_recipe("_mnist", OVERRIDES), split)
    assert summary.rows == 120
    assert notes[0] == f"{split}:mnist/lenet: is complete; there is nothing to do"
    assert finished_summary(load_recipe("_mnist", [*OVERRIDES, "perturb.seed=1"]), split) is None  # another recipe


@pytest.mark.parametrize(
    "change",
    [
        touched,
        cut,
        lambda paths: paths.shard(2, 3).unlink(),
        lambda paths: paths.picture.unlink(),
        lambda paths: paths.provenance.unlink(),
    ],
)
def test_the_job_looks_closer_where_a_file_changed(split, change):
    change(SplitPaths(split, "mnist", "lenet"))
    assert finished_summary(load_recipe("_mnist", OVERRIDES), split) is None


def read_of(section):
    return models_read(load_recipe("_mnist", [f"classifier={section}"]).classifier)


def test_another_file_of_weights_is_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digests = {None}
    for content in (b"one", b"another"):
        (tmp_path / "net.safetensors").write_bytes(content)
        digests.add(read_of("{kind: lenet, checkpoint: net.safetensors}"))
    assert len(digests) == 3


def test_another_commit_on_the_hub_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    section = "{kind: transformers, model: owner/net}"
    assert read_of(section) is None  # nothing was downloaded yet
    repo = tmp_path / "models--owner--net"
    (repo / "refs").mkdir(parents=True)
    digests = set()
    for commit in ("1" * 40, "2" * 40):
        (repo / "refs/main").write_text(commit)
        (repo / "snapshots" / commit).mkdir(parents=True)
        digests.add(read_of(section))
    assert len(digests) == 2
    assert read_of(section.replace("}", f", revision: '{'1' * 40}'}}")) in digests


@pytest.mark.parametrize(
    "section", ["{kind: outside_components:SmallNetConfig}", "{kind: lenet, checkpoint: null}"], ids=["code", "random"]
)
def test_what_code_of_others_reads_is_unknown_and_random_weights_are_in_no_file(section):
    assert read_of(section) is None
