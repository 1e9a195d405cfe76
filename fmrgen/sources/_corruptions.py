"""Corruptions of digits in five severities, in the manner of MNIST-C (Mu and Gilmer 2019); the same for each image
whenever it is read."""

import zlib
from collections.abc import Callable

import numpy as np
import scipy  # whose ndimage is imported where it is first used

SEVERITIES = 5


def corrupted(image: np.ndarray, name: str, severity: int, image_id: int) -> np.ndarray:
    """A digit uint8 [H, W], changed by one of `CORRUPTIONS` at a severity from 1 to 5."""
    random = np.random.default_rng([image_id, zlib.crc32(name.encode())])
    changed = CORRUPTIONS[name](image / 255.0, severity, random)
    found: np.ndarray = (255 * changed.clip(0, 1)).round().astype(np.uint8)
    return found


def _moved(image: np.ndarray, matrix: np.ndarray, shift: np.ndarray | None = None) -> np.ndarray:
    """The image through a matrix [2, 2] about its centre, then moved by `shift` pixels."""
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - matrix @ (centre + (0 if shift is None else shift))
    found: np.ndarray = scipy.ndimage.affine_transform(image, matrix, offset, order=1)
    return found


def _sign(random: np.random.Generator) -> float:
    return float(random.choice([-1.0, 1.0]))


def _gaussian_noise(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    return image + random.normal(0, 0.08 * severity, image.shape)


def _impulse_noise(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    drawn = random.random(image.shape)
    hit = drawn < 0.03 * severity
    return np.where(hit, random.random(image.shape) < 0.5, image)


def _blur(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    found: np.ndarray = scipy.ndimage.gaussian_filter(image, 0.4 * severity)
    return found


def _motion_blur(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    turned = scipy.ndimage.rotate(image, angle := random.uniform(0, 180), reshape=False, order=1)
    found: np.ndarray = scipy.ndimage.rotate(
        scipy.ndimage.uniform_filter1d(turned, 1 + 2 * severity, axis=1), -angle, reshape=False, order=1
    )
    return found


def _contrast(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    return 0.5 + (image - 0.5) * (1 - 0.16 * severity)


def _pixelate(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    side = max(image.shape) / (1 + 0.5 * severity)
    small = scipy.ndimage.zoom(image, side / max(image.shape), order=1)
    return np.asarray(scipy.ndimage.zoom(small, np.array(image.shape) / small.shape, order=0))


def _stripe(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    found, width = image.copy(), severity
    start = int(random.integers(8, image.shape[1] - 8 - width))
    found[:, start : start + width] = 1 - found[:, start : start + width]
    return found


def _spatter(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    drops = scipy.ndimage.gaussian_filter(random.normal(size=image.shape), 1.2)
    return np.where(drops > np.quantile(drops, 1 - 0.03 * severity), 0.9, image)


def _rotate(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    angle = np.radians(8 * severity) * _sign(random)
    return _moved(image, np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]))


def _shear(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    return _moved(image, np.array([[1, 0], [0.15 * severity * _sign(random), 1]]))


def _scale(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    by = 1 + 0.09 * severity
    return _moved(image, np.eye(2) * (by if _sign(random) > 0 else 1 / by))


def _translate(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    angle = random.uniform(0, 2 * np.pi)
    return _moved(image, np.eye(2), 1.2 * severity * np.array([np.sin(angle), np.cos(angle)]))


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
