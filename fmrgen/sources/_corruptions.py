"""Corruptions of digits in five severities, in the manner of MNIST-C (Mu and Gilmer 2019).

An image's corruption depends on its id alone: it is the same each time the image is read.
"""

import zlib
from collections.abc import Callable

import numpy as np
import scipy  # its ndimage is imported on first use

SEVERITIES = 5
_STRIPE_MARGIN = 8  # pixels left and right, so that the stripe crosses the digit


def corrupted(image: np.ndarray, name: str, severity: int, image_id: int) -> np.ndarray:
    """Return a corrupted digit, uint8 [H, W].

    Args:
        image: the digit, uint8 [H, W].
        name: one of `CORRUPTIONS`.
        severity: from 1 to 5.
        image_id: seeds the random draws, together with the name.
    """
    random = np.random.default_rng([image_id, zlib.crc32(name.encode())])
    changed = CORRUPTIONS[name](image / 255.0, severity, random)
    pixels: np.ndarray = (255 * changed.clip(0, 1)).round().astype(np.uint8)
    return pixels


def _moved(image: np.ndarray, matrix: np.ndarray, shift: np.ndarray | None = None) -> np.ndarray:
    """Return the image under a matrix [2, 2] about its centre, then moved by `shift` pixels [2]."""
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - matrix @ (centre if shift is None else centre + shift)
    moved: np.ndarray = scipy.ndimage.affine_transform(image, matrix, offset, order=1)
    return moved


def _sign(random: np.random.Generator) -> float:
    """Draw -1 or 1."""
    return float(random.choice([-1.0, 1.0]))


def _gaussian_noise(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    return image + random.normal(0, 0.08 * severity, image.shape)


def _impulse_noise(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    is_hit = random.random(image.shape) < 0.03 * severity
    is_white = random.random(image.shape) < 0.5
    return np.where(is_hit, is_white, image)


def _blur(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    return np.asarray(scipy.ndimage.gaussian_filter(image, 0.4 * severity))


def _motion_blur(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    angle = random.uniform(0, 180)
    turned = scipy.ndimage.rotate(image, angle, reshape=False, order=1)
    blurred = scipy.ndimage.uniform_filter1d(turned, 1 + 2 * severity, axis=1)
    return np.asarray(scipy.ndimage.rotate(blurred, -angle, reshape=False, order=1))


def _contrast(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    return 0.5 + (image - 0.5) * (1 - 0.16 * severity)


def _pixelate(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    side = max(image.shape) / (1 + 0.5 * severity)
    small = scipy.ndimage.zoom(image, side / max(image.shape), order=1)
    return np.asarray(scipy.ndimage.zoom(small, np.array(image.shape) / small.shape, order=0))


def _stripe(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    width = severity  # pixels
    start = int(random.integers(_STRIPE_MARGIN, image.shape[1] - _STRIPE_MARGIN - width))
    striped = image.copy()
    striped[:, start : start + width] = 1 - striped[:, start : start + width]
    return striped


def _spatter(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    drops = scipy.ndimage.gaussian_filter(random.normal(size=image.shape), 1.2)
    return np.where(drops > np.quantile(drops, 1 - 0.03 * severity), 0.9, image)


def _rotate(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    angle = np.radians(8 * severity) * _sign(random)
    matrix = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return _moved(image, np.array(matrix))


def _shear(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    return _moved(image, np.array([[1, 0], [0.15 * severity * _sign(random), 1]]))


def _scale(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    factor = 1 + 0.09 * severity
    if _sign(random) < 0:
        factor = 1 / factor
    return _moved(image, np.eye(2) * factor)


def _translate(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    angle = random.uniform(0, 2 * np.pi)
    direction = np.array([np.sin(angle), np.cos(angle)])
    return _moved(image, np.eye(2), 1.2 * severity * direction)


CORRUPTIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "gaussian_noise": _gaussian_noise,
    "impulse_noise": _impulse_noise,
    "blur": _blur,
    "motion_blur": _motion_blur,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "stripe": _stripe,
    "spatter": _spatter,
    "rotate": _rotate,
    "shear": _shear,
    "scale": _scale,
    "translate": _translate,
}
