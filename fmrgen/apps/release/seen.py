"""Which test images a network has seen in training: the same ones, saved or scaled anew."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fmrgen.apps.explain.attributes import Attribute, measured_photos
from fmrgen.apps.release.on_images import opened_images
from fmrgen.split.rows import Split

_LOOK_SIDE = 16  # pixels, at which images are compared
# Of the contrast of an image: by how much copies of it differ at most, as a root mean square. Of copies of signs and
# digits at 16 to 56 pixels, of 32, 98 % differ by less, and the nearest of other images differs by 0.11.
_SAME = 0.1
_LEAST_CONTRAST = 4.0  # grey levels: what is flatter is compared as if it had so much
_MEASURED_SIDES = 32, 224  # pixels: images are measured at the side of the first, within these
_BATCH = 64
_CHUNK = 2048  # images that are compared at a time


def looks_of(opened: Split, column: str) -> np.ndarray:
    """Return small grey copies of images, each with a mean of 0 and a deviation of 1, float32 [N, 256]."""
    looks = [_look(pixels) for pixels in _pixels(opened, column)]
    return np.stack(looks) if looks else np.zeros((0, _LOOK_SIDE**2), dtype=np.float32)


def _look(pixels: np.ndarray) -> np.ndarray:
    # By a filter that is alike at all sizes, as that of whole pixels is not.
    small = Image.fromarray(pixels).convert("L").resize((_LOOK_SIDE, _LOOK_SIDE), Image.Resampling.BICUBIC)
    look: np.ndarray = np.asarray(small, dtype=np.float32).ravel()
    look = look - look.mean()
    return look / max(float(look.std()), _LEAST_CONTRAST)


def measures_of_images(opened: Split, column: str, attribute: Attribute) -> np.ndarray:
    """Return what an attribute measures in each image, float64 [N], at the side of the first image."""
    pixels = _pixels(opened, column)
    first = next(pixels)
    side = int(np.clip(min(first.shape[:2]), *_MEASURED_SIDES))
    photos = map(Image.fromarray, chain([first], pixels))
    return measured_photos([attribute], photos, side)[0]


def _pixels(opened: Split, column: str) -> Iterator[np.ndarray]:
    """Yield the images of a column, uint8 [H, W, 3]."""
    for batch in opened.images([column], size=_BATCH):
        for image in batch.decode()[column]:
            yield image() if callable(image) else image


def looks_of_all(place: Any) -> list[np.ndarray]:
    """Return the looks of images, with labels or without; of a split those of its originals and of its images.

    Raises UserError if they can't be read.
    """
    opened = opened_images(place)
    return [looks_of(opened, column) for column in opened.image_columns]


def nearly_among(looks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which images [N, D] are nearly one of the others [M, D], bool [N], by their looks."""
    is_near = np.zeros(len(looks), dtype=bool)
    for start in range(0, len(others), _CHUNK):
        chunk = others[start : start + _CHUNK]
        squares = (looks**2).sum(1)[:, None] + (chunk**2).sum(1)[None] - 2 * looks @ chunk.T
        is_near |= squares.min(1) / looks.shape[1] <= _SAME**2
    return is_near


def first_of_each(looks: np.ndarray) -> np.ndarray:
    """Return which images are the first of those that look exactly like them, bool [N]."""
    is_first = np.zeros(len(looks), dtype=bool)
    is_first[np.unique(looks, axis=0, return_index=True)[1]] = True
    return is_first


def images_of_training(classifier: Any, *, trust: bool) -> list[Any]:
    """Return what a folder of `fmrgen train` was trained on: its source and its copies; nothing for other classifiers.

    Args:
        classifier: as it was given.
        trust: let its recipe read the places that it names.

    Raises:
        UserError: the recipe of the folder can't be read, or needs trust.
    """
    from fmrgen.apps.release.retraining import recipe_of_folder

    if not isinstance(classifier, str | Path):
        return []
    recipe = recipe_of_folder(classifier, trust=trust)
    if recipe is None:
        return []
    return [recipe.source, *([recipe.copies] if recipe.copies else [])]
