"""A finished split is recognised by its files, and by no less than what its rows depend on."""

import os

import pytest

from fmrgen import load_recipe
from fmrgen.jobs.finished import finished_summary, models_read
from fmrgen.storage.paths import SplitPaths

OVERRIDES = ["source.limit=120", "output.shard_size=40", "perturb.budget=8", "perturb.step_size=0.1"]
LENET = "{kind: lenet, checkpoint: net.safetensors}"
MODULE = "kind: outside_components:SmallNetConfig"


def touched(paths):
    shard = paths.shard(1, 3)
    later = paths.provenance.stat().st_mtime_ns + 1
    os.utime(shard, ns=(later, later))


def cut(paths):
    shard = paths.shard(1, 3)
    before = shard.stat()
    shard.write_bytes(shard.read_bytes()[:-1])
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))


def without(name):
    return lambda paths: (getattr(paths, name) if isinstance(name, str) else paths.shard(*name)).unlink()


def test_it_is_recognised_with_its_figures(split, notes):
    summary = finished_summary(load_recipe("_mnist", OVERRIDES), split)
    assert summary.rows == 120
    assert notes[0] == f"{split}:mnist/lenet: is complete; there is nothing to do"


@pytest.mark.parametrize("change", [touched, cut, without((2, 3)), without("picture"), without("provenance")])
def test_the_job_looks_closer_where_a_file_changed(split, change):
    change(SplitPaths(split, "mnist", "lenet"))
    assert finished_summary(load_recipe("_mnist", OVERRIDES), split) is None


def test_another_recipe_is_no_finished_one(split):
    assert finished_summary(load_recipe("_mnist", [*OVERRIDES, "perturb.seed=1"]), split) is None


def test_another_file_of_weights_is_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digests = set()
    for content in (b"one", b"another"):
        (tmp_path / "net.safetensors").write_bytes(content)
        digests.add(models_read(load_recipe("_mnist", [f"classifier={LENET}"]).classifier))
    assert len(digests) == 2
    assert None not in digests


def test_another_commit_on_the_hub_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    recipe = load_recipe("_mnist", ["classifier={kind: transformers, model: owner/net}"])
    assert models_read(recipe.classifier) is None  # nothing was downloaded yet
    repo = tmp_path / "models--owner--net"
    (repo / "refs").mkdir(parents=True)
    digests = set()
    for commit in ("1" * 40, "2" * 40):
        (repo / "refs/main").write_text(commit)
        digests.add(models_read(recipe.classifier))
    assert len(digests) == 2
    (repo / "snapshots" / ("1" * 40)).mkdir(parents=True)
    pinned = load_recipe("_mnist", [f"classifier={{kind: transformers, model: owner/net, revision: '{'1' * 40}'}}"])
    assert models_read(pinned.classifier) in digests


def test_what_code_of_others_reads_is_unknown():
    assert models_read(load_recipe("_mnist", [f"classifier={{{MODULE}}}"]).classifier) is None


def test_random_weights_are_in_no_file():
    assert models_read(load_recipe("_mnist", ["classifier={kind: lenet, checkpoint: null}"]).classifier) is None
