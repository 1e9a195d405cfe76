"""Sparse masks: what the regression finds, what a masked generator moves, and the command."""

import json

import numpy as np
import pytest
import torch
from commands import run
from fakes import Fixture
from safetensors import safe_open
from safetensors.torch import save_file
from small_models import SIZE, tiny_vqgan

from fmrgen.apps.pilot.sparsify import fit_mask
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.errors import UserError
from fmrgen.generators._mask import masked
from fmrgen.recipe.job import load_recipe
from fmrgen.weights.digest import weights_sha256

BLANK = torch.full((1, 3, SIZE, SIZE), 0.5)


class Tinted(Generator):
    """Free colours of a 2×2 grid, over noise and the image as context."""

    image_size = SIZE

    def encode(self, images, labels):
        return Latents(images.new_zeros(len(images), 3, 2, 2), images + 0.01 * self.noise(images))

    def decode(self, latents):
        tint = torch.nn.functional.interpolate(latents.free, (SIZE, SIZE))
        return (latents.fixed + tint).clamp(0, 1)


@pytest.fixture
def with_mask(tmp_path):
    """Masks a generator by a file of its own."""

    def with_mask(generator, mask, blank=BLANK, **metadata):
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        save_file({"mask": mask}, file, metadata)
        return masked(generator, str(file), blank)

    return with_mask


@pytest.mark.parametrize("update", ["sign", "adam"])
@pytest.mark.parametrize("make", [tiny_vqgan, Tinted])
def test_a_mask_of_everything_changes_nothing_and_of_a_few_moves_those(make, update, double, with_mask):
    blank = BLANK.double()
    dense = Fixture(make(), 0.05)
    expected = dense.engine(slots=5, keep_latents=True, update=update)
    shape = expected[0].latents[0].shape
    dense.generator = with_mask(make(), torch.ones(shape, dtype=torch.bool), blank)
    for i, row in dense.engine(slots=5, update=update).items():
        assert (row.iterations, row.stop_reason) == (expected[i].iterations, expected[i].stop_reason)
        assert torch.equal(row.image, expected[i].image)
        assert row.latent_shift == pytest.approx(expected[i].latent_shift)

    few = torch.zeros(shape, dtype=torch.bool)
    few[1, 0, 1] = few[2, 1, 0] = True
    dense.generator = sparse = with_mask(make(), few, blank)
    rows = dense.engine(slots=5, keep_latents=True)
    assert any(row.iterations > 2 for row in rows.values())
    inner = make()
    for i, row in rows.items():
        start, end = row.latents
        assert start.shape == (2,)
        if not row.valid:
            continue
        assert (start != end).any()
        sparse.row_seeds = inner.row_seeds = [i]
        whole, fixed = inner.encode(row.original.unsqueeze(0) / 255.0, torch.tensor([row.label]))
        if make is tiny_vqgan:
            whole[0][few] = end
            image = inner.decode(Latents(whole, fixed))
            assert torch.equal((image[0] * 255).round().to(torch.uint8), row.image)


def test_kept_latents_are_those_of_the_stored_images(double):
    setting = Fixture(tiny_vqgan(), 0.05)
    rows = setting.engine(slots=4, keep_latents=True)
    assert all(row.latents is None for row in setting.engine(slots=4).values())
    for i, row in rows.items():
        start, end = row.latents
        assert torch.allclose(start, setting.generator.encode(setting.images[i : i + 1], torch.zeros(1)).free[0])
        assert row.latent_shift == pytest.approx((end - start).square().mean().sqrt().item())
        if row.valid:
            decoded = setting.generator.decode(Latents(end.unsqueeze(0)))[0]
            assert torch.equal((decoded * 255).round().to(torch.uint8), row.image)


def test_masks_go_with_bf16(with_mask):
    mask = torch.zeros(3, 8, 8, dtype=torch.bool)
    mask[1] = True
    setting = Fixture(with_mask(tiny_vqgan(), mask), 0.05)
    rows = setting.engine(slots=4, precision="bf16", keep_latents=True)
    assert any(row.valid for row in rows.values())
    assert all(end.shape == (64,) and end.dtype is torch.float32 for _, end in (row.latents for row in rows.values()))


def test_a_mask_and_reencode_exclude_each_other():
    with pytest.raises(UserError, match="perturb.reencode moves all of the latent, generator.mask lets only a part"):
        load_recipe("mnist-lenet", ["generator.mask=mask.safetensors", "perturb.reencode=true"])


def test_the_mask_counts_among_the_weights(with_mask):
    found = {weights_sha256(tiny_vqgan())}
    for dimension in (0, 1):
        mask = torch.arange(3 * 8 * 8).view(3, 8, 8) == dimension
        found.add(weights_sha256(with_mask(tiny_vqgan(), mask)))
    assert len(found) == 3


def test_a_mask_of_other_weights_is_refused(with_mask):
    with pytest.raises(UserError, match="^generator.mask: .*belongs to other weights; create one with fmrgen sparsify"):
        with_mask(tiny_vqgan(), torch.ones(3, 8, 8, dtype=torch.bool), generator_sha256="0" * 64)


def made_up_pairs():
    """Latents of 5×8 dimensions of which three move, one way, by little more than they vary."""
    rng = np.random.default_rng(0)
    originals = rng.normal(2, 1, (200, 5, 8)).astype(np.float32)
    shifts = np.zeros(40, dtype=np.float32)
    shifts[[3, 17, 29]] = (1.5, -1.5, 1.5)
    perturbed = originals + shifts.reshape(5, 8) + rng.normal(0, 0.05, originals.shape).astype(np.float32)
    return originals, perturbed


def test_the_dimensions_that_move_are_found():
    found = fit_mask(*made_up_pairs())
    assert set(found.mask.flatten().nonzero().flatten().tolist()) == {3, 17, 29}
    assert found.sparsity == pytest.approx(37 / 40)
    assert 0.8 < found.test_score < 1
    assert found.images == 200
    assert found.tells_apart
    again = fit_mask(*made_up_pairs(), found.regularization)
    assert torch.equal(again.mask, found.mask)
    assert again.test_score == found.test_score
    assert fit_mask(*made_up_pairs(), 0.5).sparsity < found.sparsity  # weaker: more dimensions
    with pytest.raises(UserError, match="no dimension is left at regularization 1e\\+06; choose a smaller one"):
        fit_mask(*made_up_pairs(), 1e6)


def test_nothing_to_find_scores_like_a_coin():
    """Both latents of an image are in the same part: else those in training would give their twins away."""
    rng = np.random.default_rng(1)
    originals = rng.normal(0, 1, (300, 40)).astype(np.float32)
    found = fit_mask(originals, originals + rng.normal(0, 0.05, originals.shape).astype(np.float32))
    assert 0.3 < found.test_score < 0.7
    assert not found.tells_apart


@pytest.mark.slow
def test_a_mask_is_made_and_a_sparse_split_is_true(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    job = ("mnist-lenet", "perturb.budget=4", "source.split=train")
    assert run("sparsify", *job, "--samples", 48, "-o", tmp_path / "mask.safetensors") == 0, capsys.readouterr().err
    found = capsys.readouterr().out
    assert "sparsity" in found
    assert "test score" in found
    with safe_open(tmp_path / "mask.safetensors", "pt") as file:
        told, mask = file.metadata(), file.get_tensor("mask")
    assert 0 < mask.sum() < mask.numel()
    assert float(told["sparsity"]) == 1 - int(mask.sum()) / mask.numel()
    assert json.loads(told["recipe"])["source"]["limit"] == 48
    assert told["fingerprint"] == load_recipe(job[0], ["source.limit=48", *job[1:]]).fingerprint

    sparse = ("mnist-lenet", "--limit", "12", "perturb.budget=4", "generator.mask=mask.safetensors")
    assert run("generate", *sparse) == 0, capsys.readouterr().err
    assert run("verify", "out") == 0
    assert "12 of 12 rows match" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/provenance/mnist/lenet.json").read_text())["recipe"]["generator"]["mask"]
    for more, message in (
        (["generator.mask=mask.safetensors"], "generator.mask: this recipe is sparse already; leave it out to find"),
        ([], "mask.safetensors: already exists; choose another --output, or delete it"),
    ):
        assert run("sparsify", *job, *more) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1, told
        assert message in told
