"""What every generator has to show, whatever it is."""

import pytest
import torch
from families import AUTOENCODERS
from generator_checks import LABELS, check_engine_is_literal, check_mask, check_rows_and_gradient, pictures
from small_models import SIZE

from fmrgen.engine.interfaces import Latents

NOISED = ("ddpm", "adm", "iddpm", "consistency", "one step")
DIFFERENTIABLE = [*AUTOENCODERS, "taesd", *NOISED, "vdvae", "vdvae-logstd"]
SLOW = pytest.param("stylegan-xl", marks=pytest.mark.slow)
EVERY = pytest.mark.parametrize("family", [*DIFFERENTIABLE, SLOW], scope="module")


@EVERY
def test_rows_are_independent_and_the_gradient_is_that_of_differences(family, doubled):
    # Some of their layers compute in float32 whatever they are given: small differences drown in its noise.
    step, tolerance = (1e-3, 5e-3) if family in ("DC", "QwenImage", "Wan") else (1e-6, 1e-4)
    check_rows_and_gradient(doubled, step, tolerance)


@EVERY
def test_a_mask_lets_some_dimensions_move(built, tmp_path):
    check_mask(built, tmp_path)


@pytest.mark.parametrize("family", NOISED, scope="module")
def test_an_unmoved_image_is_exact_and_a_moved_one_another(family, built):
    images = pictures()
    built.row_seeds = range(len(images))
    with torch.no_grad():
        latents = built.encode(images, LABELS)
        torch.testing.assert_close(built.decode(latents), images, atol=1e-5, rtol=0)
        moved = Latents(latents.free + 0.05 * latents.free.sign(), latents.fixed)
        assert (built.decode(moved) - images).abs().mean() > 1e-3
    kept = built.project(moved, latents.free)
    torch.testing.assert_close(kept.flatten(1).norm(dim=1), latents.free.flatten(1).norm(dim=1))
    assert latents.free.shape == ((3, 4, SIZE // 2, SIZE // 2) if family == "one step" else images.shape)
    assert latents.fixed.shape == (3, 4 if built.classes else 3, *images.shape[2:])


ONE_AT_A_TIME = {"slots": 9, "every": 4, "count": 9}  # which takes long


@pytest.mark.parametrize(
    ("family", "step_size", "options"),
    [
        *[(name, 0.05, {}) for name in ("KLFlux2", "DC", "RAE", "QwenImage", "Cosmos")],
        ("vdvae", 0.1, {"every": 4}),
        ("vdvae-logstd", 0.1, {"every": 4}),
        *[pytest.param(name, 0.05, ONE_AT_A_TIME, marks=pytest.mark.slow) for name in ("ddpm", "adm")],
        *[pytest.param(name, 0.1, {}, marks=pytest.mark.slow) for name in ("consistency", "one step")],
        pytest.param("stylegan-xl", 0.1, {"every": 5, "budget": 5, "count": 6}, marks=pytest.mark.nightly),
    ],
    scope="module",
)
def test_the_engine_equals_the_literal_algorithm(doubled, step_size, options):
    rows = check_engine_is_literal(doubled, step_size, **options)
    assert len({row.stop_reason for row in rows.values()}) >= 2
