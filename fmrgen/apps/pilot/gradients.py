"""A reader of images that is no network: a support vector machine on histograms of oriented gradients."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

_SIDE = 32  # pixels, grey
_CELLS, _ANGLES = 8, 8
_CLIPPED = 0.2  # the largest share of a block
_COMPONENTS = 200


class GradientReader:
    """Names the classes of images. What fools a network by its gradient hardly fools it.

    Args:
        examples: RGB images of any size, of which one is in memory at a time, with their labels.

    Attributes:
        taught: how many images there were.
    """

    def __init__(self, examples: Iterable[tuple[Image.Image, int]]) -> None:
        from sklearn.decomposition import PCA
        from sklearn.pipeline import make_pipeline
        from sklearn.svm import SVC

        rows, labels = [], []
        for image, label in examples:
            rows.append(histograms(image))
            labels.append(label)
        self.taught = len(rows)
        seen = np.stack(rows)
        components = min(_COMPONENTS, *seen.shape)
        self._machine: Any = make_pipeline(PCA(components, random_state=0), SVC(C=3)).fit(seen, labels)

    def read(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return the label that it sees in each image, int [N]."""
        answers: np.ndarray = self._machine.predict(np.stack([histograms(image) for image in images]))
        return answers


def histograms(image: Image.Image) -> np.ndarray:
    """Return histograms of oriented gradients in overlapping blocks of cells (Dalal and Triggs 2005)."""
    grey = np.sqrt(np.asarray(image.convert("L").resize((_SIDE, _SIDE)), dtype=np.float32))
    down, across = np.gradient(grey)
    strength = np.hypot(down, across)
    angle = np.arctan2(down, across) % np.pi / np.pi * _ANGLES
    lower = np.floor(angle).astype(int) % _ANGLES
    share = angle - np.floor(angle)
    y, x = np.indices(grey.shape) // (_SIDE // _CELLS)
    histogram = np.zeros((_CELLS, _CELLS, _ANGLES), dtype=np.float32)
    np.add.at(histogram, (y, x, lower), strength * (1 - share))
    np.add.at(histogram, (y, x, (lower + 1) % _ANGLES), strength * share)
    blocks = []
    for row in range(_CELLS - 1):
        for column in range(_CELLS - 1):
            block = _unit(histogram[row : row + 2, column : column + 2].ravel())
            blocks.append(_unit(np.minimum(block, _CLIPPED)))
    return np.concatenate(blocks)


def _unit(block: np.ndarray) -> np.ndarray:
    unit: np.ndarray = block / np.sqrt(np.square(block).sum() + 1e-2)
    return unit
