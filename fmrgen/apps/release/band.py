"""How far apart the boundaries of two networks lie: for a conversion, in which few images fall between them.

A network that was converted, to int8 or half precision for example, disagrees with the first one in a band thinner than
a step. So each original is moved against OLD until that one is wrong, and on the straight line there, in pixels, both
networks are asked, by bisection, where each of them changes its answer. NEW needs no gradient for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.apps.explain.rows import JudgedImages
from fmrgen.apps.release.conditions import differences, right_by_both
from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Generator
from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.perturb import perturb
from fmrgen.metrics.intervals import Estimate, proportion
from fmrgen.records import Example, Perturbed

_HALVINGS = 14  # of the way: a band is measured to a 10,000th of it
_FARTHEST = 1.5  # of the way to OLD's first mistake: a NEW that is right until there has no boundary near
_GREY_LEVELS = 255
_MOST = 0.9  # of the bands that are no wider than the widest that is reported


@dataclass(frozen=True)
class Band:
    """Where two networks change their answers on the way from originals to OLD's first mistake.

    Shifts and widths are root mean squares over the pixels, in grey levels of 255.

    Attributes:
        originals: for which there is such a way: both networks have them right.
        crossed: for which NEW, too, changes its answer on it.
        old_shift: where OLD changes its answer, the median.
        new_shift: where NEW does.
        latent_shift: at OLD's first mistake, the median, in the generator's units.
        width: between the two changes, the median.
        widest: of nine in ten bands.
        broke: share of originals for which OLD is right and NEW wrong in the middle of the band, on an image that the
            oracle accepts, in percent; None for no originals.
        fixed: the reverse.
    """

    originals: int
    crossed: int
    old_shift: float
    new_shift: float
    latent_shift: float
    width: float
    widest: float
    broke: Estimate | None
    fixed: Estimate | None


def has_gradient(network: nn.Module, images: Tensor) -> bool:
    """Return whether gradients of the network's logits reach images, [B, 3, H, W] in [0, 1]."""
    leaf = images.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            logits = network(leaf)
            if not logits.requires_grad:
                return False
            (gradient,) = torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
    except (RuntimeError, NotImplementedError):  # of an operation without a backward pass
        return False
    return gradient is not None


def band_between(rows: JudgedImages, old: nn.Module, generator: Generator, options: PerturbOptions) -> Band:
    """Return how far apart the boundaries of two networks lie.

    Args:
        rows: originals, judged by NEW and the oracle.
        old: the network that they are moved against; it needs a gradient.
        generator: that moves them.
        options: of the steps.

    Raises:
        UserError: what the engine raises.
    """
    options = replace(options, objective="margin", keep="first")
    new_rows, old_rows = right_by_both(rows, old)
    examples = []
    for example_id, image, label in zip(new_rows.ids, new_rows.originals, new_rows.labels.tolist(), strict=True):
        examples.append(Example(example_id, image, label))
    moved: dict[int, Perturbed] = {}
    for row in perturb(examples, old, generator, rows.judges.oracle, options, device=rows.originals.device):
        if row.valid and row.margin > 0:
            moved[row.id] = row
    ways = np.flatnonzero(np.isin(new_rows.columns["id"], list(moved)))
    new_rows, old_rows = new_rows.at(ways), old_rows.at(ways)
    if not len(new_rows):
        nothing = float("nan")
        return Band(0, 0, nothing, nothing, nothing, nothing, nothing, None, None)
    ends = torch.stack([moved[example_id].image for example_id in new_rows.ids])
    ends = ends.to(new_rows.originals) / _GREY_LEVELS
    return _band(new_rows, old_rows, ends, [moved[example_id].latent_shift for example_id in new_rows.ids])


@torch.no_grad()
def _band(new: JudgedImages, old: JudgedImages, ends: Tensor, latent_shifts: Sequence[float]) -> Band:
    """Return the band on the ways from originals to `ends`, [N, 3, H, W] in [0, 1]."""

    def images_at(shares: np.ndarray) -> Tensor:
        places = torch.from_numpy(shares).to(ends).view(-1, 1, 1, 1)
        return (new.originals + places * (ends - new.originals)).clamp(0, 1)

    def change_of(rows: JudgedImages) -> np.ndarray:
        low, high = np.zeros(len(rows)), np.full(len(rows), _FARTHEST)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            is_right = rows.answers(images_at(middle)) == rows.labels
            low, high = np.where(is_right, middle, low), np.where(is_right, high, middle)
        is_never = (high == _FARTHEST) & (rows.answers(images_at(high)) == rows.labels)
        return np.where(is_never, np.nan, high)

    old_change, new_change = change_of(old), change_of(new)
    crossed = np.isfinite(old_change) & np.isfinite(new_change)
    middles = (np.nan_to_num(old_change, nan=_FARTHEST) + np.nan_to_num(new_change, nan=_FARTHEST)) / 2
    broke, fixed = differences(new, old, on_byte_grid(images_at(middles)))
    length = _GREY_LEVELS * (ends - new.originals).flatten(1).square().mean(1).sqrt().cpu().numpy()
    widths = (length * np.abs(new_change - old_change))[crossed]
    return Band(
        originals=len(new),
        crossed=int(crossed.sum()),
        old_shift=_median((length * old_change)[crossed]),
        new_shift=_median((length * new_change)[crossed]),
        latent_shift=_median(np.array(latent_shifts)),
        width=_median(widths),
        widest=float(np.quantile(widths, _MOST)) if len(widths) else float("nan"),
        broke=proportion(broke),
        fixed=proportion(fixed),
    )


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")
