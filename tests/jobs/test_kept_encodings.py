"""Jobs whose generator encodes dearly: killed and gone on with, and for a second classifier."""

import os

import pytest
import warm
from helpers import TESTS, assert_same_rows, rows, wait_for
from safetensors.torch import load_file, save_file

from fmrgen.generators._denoisers import Diffusion
from fmrgen.jobs.generate import make_split
from fmrgen.recipe import load_recipe
from fmrgen.weights.assets import resolve_path

CHECKPOINT = TESTS / "data/golden/iddpm-small.state.safetensors"
GENERATOR = (
    f"generator={{kind: diffusion, checkpoint: {CHECKPOINT}, image_size: 32, heads: 4, qkv_order: head_qkv, "
    "noise_schedule: cosine, training_steps: 4000, rescale_times: true, start: 0.01, steps: 1, refinements: 1}"
)
RECIPE = (GENERATOR, "perturb.budget=2", "perturb.step_size=0.05", "output.shard_size=4", "perturb.slots=4")
COUNT = 16


@pytest.fixture
def encodes(monkeypatch, tmp_path):
    """How many rows were encoded, after the trial on a blank image."""
    monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FMRGEN_CACHE_GB", "1")
    counts = []
    plain = Diffusion.noised

    def counted(self, images, labels):
        if len(images) > 1:
            counts.append(len(images))
        return plain(self, images, labels)

    monkeypatch.setattr(Diffusion, "noised", counted)
    return counts


def made(folder, *overrides, notes=None):
    recipe = load_recipe("mnist-lenet", [f"source.limit={COUNT}", *RECIPE, *overrides])
    make_split(recipe, folder, on_note=(notes if notes is not None else []).append)
    return rows(folder, recipe.output.split)


def test_a_second_classifiers_split_encodes_nothing(tmp_path, encodes):
    notes = []
    first = made(tmp_path / "one", notes=notes)
    assert sum(encodes) == COUNT
    assert not any("encodings" in note for note in notes)
    encodes.clear()
    weights = load_file(resolve_path("asset:mnist/lenet/model.safetensors"))
    save_file({name: 1.01 * values for name, values in weights.items()}, tmp_path / "own.safetensors")
    made(tmp_path / "two", f"classifier.checkpoint={tmp_path}/own.safetensors", "output.split=own", notes=notes)
    assert not encodes
    assert f"16 of 16 encodings were kept in {tmp_path / 'cache/encodings'}" in notes
    again = made(tmp_path / "again")
    assert not encodes
    assert_same_rows(first, again)


def test_a_killed_job_goes_on_and_encodes_no_image_twice(tmp_path, encodes, monkeypatch):
    whole = made(tmp_path / "whole")
    monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path / "other"))
    folder = tmp_path / "killed"
    arguments = ("generate", "mnist-lenet", "--limit", COUNT, *RECIPE, "--output", folder)
    process = warm.Process(["-m", "fmrgen", *arguments, "-q"], {**os.environ})
    wait_for(lambda: process.poll() is not None or [*folder.rglob("*.parquet")])
    process.kill()
    process.wait()
    encodes.clear()
    before = len([*(tmp_path / "other").rglob("*.safetensors")])
    assert before >= 4
    assert_same_rows(made(folder), whole)
    assert sum(encodes) == COUNT - before
