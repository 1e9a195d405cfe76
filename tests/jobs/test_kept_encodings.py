"""Jobs whose generator encodes dearly: killed and gone on with, and for a second classifier."""

import importlib
import json
import os

import pytest
import torch
import warm
from commands import wait_for
from diffusers import DDIMScheduler, UNet2DModel
from places import TESTS
from safetensors.torch import load_file, save_file
from stored import assert_same_rows, rows

from fmrgen.generators._denoisers import Diffusion
from fmrgen.jobs.generate import make_split
from fmrgen.recipe.job import load_recipe
from fmrgen.weights.assets import resolve_path

CHECKPOINT = TESTS / "data/golden/iddpm-small.state.safetensors"
GENERATOR = (
    f"generator={{kind: diffusion, checkpoint: {CHECKPOINT}, image_size: 32, heads: 4, qkv_order: head_qkv, "
    "noise_schedule: cosine, training_steps: 4000, rescale_times: true, start: 0.01, steps: 1, refinements: 1}"
)
RECIPE = ("perturb.budget=2", "perturb.step_size=0.05", "output.shard_size=4", "perturb.slots=4")
COUNT = 16


@pytest.fixture
def encodes(monkeypatch, tmp_path):
    """How many rows were encoded, after the trial on a blank image."""
    monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FMRGEN_CACHE_GB", "1")
    counts = []
    plain = Diffusion.noised

    def counted(self, images, labels):
        counts.extend([len(images)] * (len(images) > 1))
        return plain(self, images, labels)

    monkeypatch.setattr(Diffusion, "noised", counted)
    return counts


def made(folder, *overrides, generator=GENERATOR):
    recipe = load_recipe("_mnist", [f"source.limit={COUNT}", generator, *RECIPE, *overrides])
    make_split(recipe, folder)
    return rows(folder, recipe.output.split)


@pytest.mark.nightly
def test_a_second_classifiers_split_encodes_nothing(tmp_path, encodes, notes):
    first = made(tmp_path / "one")
    assert sum(encodes) == COUNT
    assert not any("encodings" in note for note in notes)
    encodes.clear()
    weights = load_file(resolve_path("asset:mnist/lenet/model.safetensors"))
    save_file({name: 1.01 * values for name, values in weights.items()}, tmp_path / "own.safetensors")
    made(tmp_path / "two", f"classifier.checkpoint={tmp_path}/own.safetensors", "output.split=own")
    assert not encodes
    assert f"16 of 16 encodings were kept in {tmp_path / 'cache/encodings'}" in notes
    again = made(tmp_path / "again")
    assert not encodes
    assert_same_rows(first, again)


@pytest.mark.nightly
def test_of_the_same_weights_under_another_configuration_nothing_is_taken(tmp_path, encodes):
    folder = tmp_path / "ddpm"
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    UNet2DModel(
        sample_size=32, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, **blocks
    ).save_pretrained(folder / "unet")
    DDIMScheduler(num_train_timesteps=100).save_pretrained(folder / "scheduler")
    generator = f"generator={{kind: diffusion, model: {folder}, image_size: 32, steps: 1, refinements: 1}}"
    made(tmp_path / "one", generator=generator)
    encodes.clear()
    made(tmp_path / "same", generator=generator)
    assert not encodes
    config = json.loads((folder / "unet/config.json").read_text())
    (folder / "unet/config.json").write_text(json.dumps(config | {"norm_eps": 0.1}))
    made(tmp_path / "other", generator=generator)
    assert sum(encodes) == COUNT


def test_of_a_users_own_generator_nothing_is_kept(tmp_path, encodes, monkeypatch):
    """What its code depends on can't be told: a module that it imports, a file, the time."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_helper.py").write_text("OFFSET = 0.0\n")
    (tmp_path / "own_generator.py").write_text(OWN_GENERATOR)
    generator = "generator={kind: 'own_generator:Config', image_size: 32}"
    steps = ("perturb.budget=1", "perturb.step_size=0.01", "source.limit=4")
    first = made(tmp_path / "one", *steps, generator=generator)
    own_helper = importlib.import_module("own_helper")
    monkeypatch.setattr(own_helper, "OFFSET", 0.2)
    changed = made(tmp_path / "two", *steps, generator=generator)
    assert [row["image"] for row in first.values()] != [row["image"] for row in changed.values()]
    assert not [*(tmp_path / "cache").rglob("*.latents")]


OWN_GENERATOR = """
import torch
import own_helper
from fmrgen import ComponentConfig, Generator, Latents

class Config(ComponentConfig):
    kind: str = "own_generator:Config"
    image_size: int = 32

    def build(self, device="cpu"):
        return Own(self.image_size)

    def code_it_runs(self):
        return []

    def places_it_reads(self):
        return []

class Own(Generator):
    encode_is_slow = True

    def __init__(self, image_size):
        self.image_size, self.weight = image_size, torch.ones(1)

    def encode(self, images, labels):
        return Latents(images + own_helper.OFFSET)

    def decode(self, latents):
        return latents.free.clamp(0, 1)
"""


@pytest.mark.slow
def test_a_killed_job_goes_on_and_encodes_no_image_twice(tmp_path, encodes, monkeypatch):
    whole = made(tmp_path / "whole")
    monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path / "other"))
    folder = tmp_path / "killed"
    arguments = ("generate", "_mnist", "--limit", COUNT, GENERATOR, *RECIPE, "--output", folder)
    process = warm.Process(["-m", "fmrgen", *arguments, "-q"], {**os.environ})
    wait_for(lambda: process.poll() is not None or [*folder.rglob("*.parquet")])
    process.kill()
    process.wait()
    encodes.clear()
    before = len([*(tmp_path / "other").rglob("*.latents")])
    assert before >= 4
    assert_same_rows(made(folder), whole)
    assert sum(encodes) == COUNT - before
