"""What every generator has to show, whatever it is."""

import pytest
import torch
from fakes import BUDGET, COUNT, Fixture
from safetensors.torch import save_file

from fmrgen.engine.interfaces import Latents
from fmrgen.generators._mask import masked


def check_rows_and_gradient(generator, images, labels, step=1e-6, tolerance=1e-4, at=1.0):
    """In float64: a row is decoded as it is alone, and the gradient is that of differences.

    `at` scales the latent at which the gradient is taken, to be away from where images are clipped.
    """
    with torch.no_grad():
        free, fixed = generator.encode(images, labels)
        together = generator.decode(Latents(free, fixed))
        for row in range(len(images)):
            context = None if fixed is None else fixed[row : row + 1]
            torch.testing.assert_close(generator.decode(Latents(free[row : row + 1], context)), together[row : row + 1])
    context = None if fixed is None else fixed[:1]
    start = (free[:1] * at).requires_grad_(True)
    weights = torch.rand(images.shape[1:], dtype=images.dtype, generator=torch.Generator().manual_seed(3))
    (generator.decode(Latents(start, context)) * weights).sum().backward()
    direction = torch.rand(start.shape, dtype=images.dtype, generator=torch.Generator().manual_seed(4)) - 0.5
    with torch.no_grad():
        ends = [(generator.decode(Latents(start + s * step * direction, context)) * weights).sum() for s in (1, -1)]
    difference = float(ends[0] - ends[1]) / (2 * step)
    assert float((start.grad * direction).sum()) == pytest.approx(difference, rel=tolerance, abs=1e-6)
    assert start.grad.abs().sum() > 0


def check_engine_is_literal(generator, step_size, slots=3, every=1, budget=BUDGET, count=COUNT, **options):
    """In float64: the engine makes, byte for byte, what Algorithm 1 makes of one image at a time."""
    setting = Fixture(generator, step_size)
    rows = setting.engine(count, slots=slots, budget=budget, **options)
    for i in range(0, count, every):
        row, literal = rows[i], setting.reference(i, budget=budget)
        found = (row.valid, row.iterations, row.stop_reason)
        assert found == (literal.valid, literal.iterations, literal.stop_reason)
        assert torch.equal(row.image, literal.image)
    return rows


def check_mask(generator, images, labels, folder):
    """A sparse generator decodes as the whole one does, and leaves alone what may not move."""
    generator.row_seeds = range(len(images))
    with torch.no_grad():
        whole = generator.encode(images, labels)
        shape = whole.free.shape[1:]
        mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.3
        save_file({"mask": mask}, folder / "mask.safetensors")
        sparse = masked(generator, str(folder / "mask.safetensors"), images[:1])
        sparse.row_seeds = generator.row_seeds
        latents = sparse.encode(images, labels)
        assert latents.free.shape == (len(images), int(mask.sum()))
        torch.testing.assert_close(sparse.decode(latents), generator.decode(whole))
        moved = whole.free + 0.01 * mask
        torch.testing.assert_close(
            sparse.decode(Latents(latents.free + 0.01, latents.fixed)), generator.decode(Latents(moved, whole.fixed))
        )
        kept = generator.project(Latents(moved, whole.fixed), whole.free)[:, mask]
        torch.testing.assert_close(sparse.project(Latents(latents.free + 0.01, latents.fixed), latents.free), kept)
