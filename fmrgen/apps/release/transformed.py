"""Randomly transformed originals: does NEW lose where images are rotated, shifted, darker, or partly covered?

Accuracy on the originals may show nothing of a regression that only such images bring out: a checkpoint that never saw
a shifted digit in training is right on all that are centred.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F
from torchvision.transforms.v2.functional import InterpolationMode

from fmrgen.apps.explain.rows import DrawnRows
from fmrgen.apps.release.evidence import Evidence, evidence_of
from fmrgen.apps.release.flips import groups_tested
from fmrgen.engine.images import on_byte_grid

ORIGINALS = 300  # that are transformed, where there are as many
_BATCH = 64


def _geometric(image: Tensor, draw: np.random.Generator) -> Tensor:
    """Return an image [3, H, W] rotated, scaled, sheared or shifted; its edge is repeated."""
    side, kind = image.shape[-1], draw.integers(4)
    angle = draw.uniform(-40, 40) if kind == 0 else 0.0
    scale = np.exp(draw.uniform(-0.5, 0.5)) if kind == 1 else 1.0
    shear = draw.uniform(-26, 26) if kind == 2 else 0.0
    length, direction = draw.uniform(0, 0.2 * side), draw.uniform(0, 2 * np.pi)
    shift = [length * np.cos(direction), length * np.sin(direction)] if kind == 3 else [0.0, 0.0]
    wide = F.pad(image, [side // 2] * 4, padding_mode="edge")
    moved = F.affine(wide, angle, shift, scale, [shear, 0.0], interpolation=InterpolationMode.BILINEAR)
    return F.center_crop(moved, [side, side])


def _photometric(image: Tensor, draw: np.random.Generator) -> Tensor:
    """Return an image [3, H, W] of another brightness, contrast or gamma."""
    kind, amount = draw.integers(3), draw.uniform(-1, 1)
    if kind == 0:
        return (image + 0.4 * amount).clamp(0, 1)
    if kind == 1:
        return ((image - 0.5) * np.exp(amount) + 0.5).clamp(0, 1)
    return F.adjust_gamma(image, np.exp(amount))


def _occluding(image: Tensor, draw: np.random.Generator) -> Tensor:
    """Return an image [3, H, W] with a grey square, or a grey stripe from top to bottom."""
    side = image.shape[-1]
    is_square = draw.integers(2) == 0
    width = round(draw.uniform(0, 0.4 if is_square else 0.25) * side)
    left, top = (int(draw.integers(side - width + 1)) for _ in range(2))
    height = width if is_square else side
    return F.erase(image, top if is_square else 0, left, height, width, image.new_full((1, 1, 1), 0.5))


# By family: the transformation, what it is in words, and the points by which trainings of one recipe that differ in
# their seed alone may be apart beyond chance (docs/results/diff.md). A user's margin is added to these.
_FAMILIES: dict[str, tuple[Callable[[Tensor, np.random.Generator], Tensor], str, float]] = {
    "geometric": (_geometric, "rotation, scale, shear, shift", 5.0),
    "photometric": (_photometric, "brightness, contrast, gamma", 30.0),
    "occluding": (_occluding, "square, stripe", 10.0),
}


def on_transformed_originals(
    rows: DrawnRows, old: nn.Module, class_names: Sequence[str], *, margin: float
) -> list[Evidence]:
    """Compare two networks on originals transformed at random, ten times in each of three families.

    Returns the evidence for each family, and for the class that geometric transformations break most surely. An
    original is a negative flip if OLD is right and NEW wrong on one of its ten images that the oracle accepts. Each
    original has its own transformations, which are the same for all networks and in every run.

    `rows` are the originals, judged by the new network and the oracle; `old` answers in the same labels. The new
    network may lose `margin` points, besides those that another seed may cost.
    """
    before = rows.judged_by(old)
    labels = np.array(class_names)[rows.labels]
    evidence = []
    for family, (transform, words, of_another_seed) in _FAMILIES.items():
        negative, positive = (np.zeros(len(rows), dtype=bool) for _ in range(2))
        for places, images in _transformed(rows, transform, family):
            worse, better = _differences(rows.at(places), before.at(places), images)
            negative[places] |= worse
            positive[places] |= better
        name = f"transformed at random ({words})"
        evidence.append(evidence_of("transformed", f"originals {name}", negative, positive, margin, of_another_seed))
        if family == "geometric":  # by ten points: in the others trainings are too far apart to tell by class
            of_class = f"originals of class {{name}} {name}"
            evidence += groups_tested(labels, negative, positive, of_class, margin, 10.0)[1]
    return evidence


def _transformed(
    rows: DrawnRows, transform: Callable[[Tensor, np.random.Generator], Tensor], family: str
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield places [B] of originals, with their images [B, 3, H, W] after one transformation each."""
    family_number = list(_FAMILIES).index(family)
    for start in range(0, len(rows), _BATCH):
        places = np.arange(start, min(start + _BATCH, len(rows)))
        part = rows.at(places)
        for copy in range(10):
            images = []
            for example_id, image in zip(part.ids, part.originals, strict=True):
                images.append(transform(image, np.random.default_rng([example_id, copy, family_number])))
            yield places, on_byte_grid(torch.stack(images))


def _differences(new: DrawnRows, old: DrawnRows, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return which images OLD alone has right, and which NEW alone, bool [N] each, as far as the oracle accepts them.

    `new` and `old` are the originals, judged by each network. The images, one of each, are [N, 3, H, W] in [0, 1].
    """
    new_right = new.predictions(images) == new.labels
    old_right = old.predictions(images) == old.labels
    differs = np.flatnonzero(new_right != old_right)
    counts = np.zeros(len(images), dtype=bool)
    if len(differs):
        counts[differs] = new.at(differs).accepts(images[torch.from_numpy(differs).to(images.device)])
    return counts & old_right, counts & new_right
