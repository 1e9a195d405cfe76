"""What a generator has to show, and what says in one line that it can't be built."""

import pytest
import torch
from fakes import BUDGET, COUNT, Fixture, check_literal
from safetensors.torch import save_file
from small_models import SIZE

from fmrgen.engine.interfaces import Latents
from fmrgen.errors import UserError
from fmrgen.generators._mask import masked

LABELS = torch.tensor([0, 1, 2])


def pictures():
    return torch.rand(3, 3, SIZE, SIZE, dtype=torch.float32, generator=torch.Generator().manual_seed(1))


def check_rows_and_gradient(generator, step=1e-6, tolerance=1e-4):
    """In float64: a row is decoded as it is alone, and the gradient is that of differences."""
    images = pictures().double()
    generator.row_seeds = range(len(images))
    with torch.no_grad():
        free, fixed = generator.encode(images, LABELS)
        together = generator.decode(Latents(free, fixed))
        for row in range(len(images)):
            context = None if fixed is None else fixed[row : row + 1]
            torch.testing.assert_close(generator.decode(Latents(free[row : row + 1], context)), together[row : row + 1])
    context = None if fixed is None else fixed[:1]
    start = (free[:1] * 0.9).requires_grad_(True)  # away from where images are clipped
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
    check_literal(rows, {i: setting.reference(i, budget=budget) for i in range(0, count, every)})
    return rows


def check_mask(generator, folder):
    """A sparse generator decodes as the whole one does, and leaves alone what may not move."""
    images = pictures()
    generator.row_seeds = range(len(images))
    with torch.no_grad():
        whole = generator.encode(images, LABELS)
        mask = torch.rand(whole.free.shape[1:], generator=torch.Generator().manual_seed(0)) < 0.3
        save_file({"mask": mask}, folder / "mask.safetensors")
        sparse = masked(generator, str(folder / "mask.safetensors"), images[:1])
        sparse.row_seeds = range(len(images))
        latents = sparse.encode(images, LABELS)
        assert latents.free.shape == (len(images), int(mask.sum()))
        torch.testing.assert_close(sparse.decode(latents), generator.decode(whole))
        moved = latents._replace(free=latents.free + 0.01)
        moved_whole = whole._replace(free=whole.free + 0.01 * mask)
        torch.testing.assert_close(sparse.decode(moved), generator.decode(moved_whole))
        kept = generator.project(moved_whole, whole.free)[:, mask]
        torch.testing.assert_close(sparse.project(moved, latents.free), kept)


def bytes_kept(computed):
    """What autograd keeps of a computation for its gradient."""
    sizes = []

    def keep(tensor):
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        computed()
    return sum(sizes)


def check_refused(build, message):
    """What can't be built is refused in one line."""
    with pytest.raises((UserError, ValueError)) as caught:
        build()
    assert message in str(caught.value)
    assert not isinstance(caught.value, UserError) or "\n" not in str(caught.value)
