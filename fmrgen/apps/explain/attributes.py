"""What can be measured in an image and changed in it: strokes, place, light, sharpness. An attribute is one class."""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate, max_pool2d, pad

from fmrgen.config import import_object
from fmrgen.errors import UserError

_BATCH = 64
_FAINT = 0.1  # of the range of pixels: less than that is no ink


class Attribute(ABC):
    """Of images [B, 3, H, W] in [0, 1].

    Attributes:
        name: for tables.
        more, less: how an image looks that has more of it than its original, or less, as in "it fails on …".
        other: the same of either.
        is_of_waves: whether it is how strong waves of some lengths are, as sharpness is: any change with the same waves
            has it too, so that the control takes those of the image.
    """

    name: str
    more: str
    less: str
    other: str
    is_of_waves: bool = False

    @abstractmethod
    def measure(self, images: Tensor) -> Tensor:
        """How much of it images have, [B], in a unit of its own."""

    @abstractmethod
    def change(self, images: Tensor, amount: float) -> Tensor:
        """Images with more of it, or less where `amount`, from -1 to 1, is negative: at either end so much that people
        still see what an image shows, as a rule. 0 changes nothing; nothing in it is random."""


def ink(images: Tensor) -> tuple[Tensor, Tensor]:
    """How far pixels are from the background [B, 1, H, W], from -1 to 1, and what that is: the border's median
    [B, 1, 1, 1], of the mean over channels."""
    grey = images.mean(1, keepdim=True)
    border = torch.cat([grey[..., 0, :], grey[..., -1, :], grey[..., 0], grey[..., -1]], -1)
    background = border.flatten(1).median(1).values.view(-1, 1, 1, 1)
    return grey - background, background


def _strongest(values: Tensor) -> Tensor:
    """Of values [B, 1, H, W] the absolute one that is exceeded in two of a hundred pixels, [B]."""
    of_pixels = values.abs().flatten(1)
    return of_pixels.kthvalue(math.ceil(0.98 * of_pixels.shape[1])).values


def _weights(images: Tensor) -> Tensor:
    """How much ink is where, [B, H, W], in all 1; the same everywhere in an image without."""
    of_pixels = (ink(images)[0].abs()[:, 0] - _FAINT).clamp(min=0)
    total = of_pixels.sum((1, 2), keepdim=True)
    even = torch.full_like(of_pixels, 1 / (of_pixels.shape[1] * of_pixels.shape[2]))
    return torch.where(total > 0, of_pixels / total.clamp(min=1e-6), even)


def _moments(images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of the ink, in half widths and heights from the middle: mean x and y [B], and variances xx, yy and xy."""
    weights = _weights(images)
    y = torch.linspace(-1, 1, weights.shape[1], device=images.device).view(1, -1, 1)
    x = torch.linspace(-1, 1, weights.shape[2], device=images.device).view(1, 1, -1)
    mean_x, mean_y = (weights * x).sum((1, 2)), (weights * y).sum((1, 2))
    dx, dy = x - mean_x.view(-1, 1, 1), y - mean_y.view(-1, 1, 1)
    xx, yy, xy = ((weights * product).sum((1, 2)) for product in (dx * dx, dy * dy, dx * dy))
    return mean_x, mean_y, xx, yy, xy


def _warped(images: Tensor, matrix: list[list[float]]) -> Tensor:
    """Images whose pixel at (x, y) is that of the original at `matrix` [2, 3] times (x, y, 1); edges are stretched."""
    grid = affine_grid(images.new_tensor(matrix).expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False).clamp(0, 1)


class Thickness(Attribute):
    name, more, less = "thickness", "thicker strokes", "thinner strokes"
    other = "strokes of another thickness"

    def measure(self, images: Tensor) -> Tensor:
        """The mean width of strokes in pixels: their area by half the length of their edges."""
        strokes = ink(images)[0].abs()[:, 0]
        edges = (strokes.diff(dim=1).abs().sum((1, 2)) + strokes.diff(dim=2).abs().sum((1, 2))) * 0.785
        return 2 * strokes.sum((1, 2)) / edges.clamp(min=1e-6)

    def change(self, images: Tensor, amount: float) -> Tensor:
        """Strokes grow, or wear off, by up to one pixel on each side for every 28 of the image: by quarters of a pixel
        where it is small."""
        away, background = ink(images)
        sign = away.sum((1, 2, 3), keepdim=True).sign()
        most = max(1, round(images.shape[-1] / 28))
        finer = -(-4 // most)
        fine = interpolate(sign * (images - background), scale_factor=finer, mode="bilinear") * math.copysign(1, amount)
        whole, part = divmod(abs(amount) * most * finer, 1)
        grown = _grown(fine, int(whole)).lerp(_grown(fine, int(whole) + 1), part) if part else _grown(fine, int(whole))
        change = avg_pool2d((grown - fine) * math.copysign(1, amount), finer)
        return (images + sign * change).clamp(0, 1)


def _grown(images: Tensor, radius: int) -> Tensor:
    """The brightest that is at most so many pixels away, across and up."""
    side = 2 * radius + 1
    rows = max_pool2d(pad(images, [radius] * 4, mode="replicate"), (side, 1), 1)
    return max_pool2d(rows, (1, side), 1)  # in two passes: each pixel is compared with 2 x side others, not side x side


class Slant(Attribute):
    name, more, less = "slant", "shapes that lean to the right", "shapes that lean to the left"
    other = "shapes that lean"

    def measure(self, images: Tensor) -> Tensor:
        """By how much the ink moves to the right for each step upwards."""
        _, _, _, yy, xy = _moments(images)
        return -xy / yy.clamp(min=1e-6)

    def change(self, images: Tensor, amount: float) -> Tensor:
        return _warped(images, [[1, 0.5 * amount, 0], [0, 1, 0]])


class Size(Attribute):
    name, more, less = "size", "larger shapes", "smaller shapes"
    other = "shapes of another size"

    def measure(self, images: Tensor) -> Tensor:
        """The ink's root mean square distance from its middle, in half widths."""
        _, _, xx, yy, _ = _moments(images)
        return (xx + yy).sqrt()

    def change(self, images: Tensor, amount: float) -> Tensor:
        scale = 1.4**-amount
        return _warped(images, [[scale, 0, 0], [0, scale, 0]])


class PositionAcross(Attribute):
    name, more, less = "position, across", "shapes further right", "shapes further left"
    other = "shapes moved to the side"

    def measure(self, images: Tensor) -> Tensor:
        return _moments(images)[0]

    def change(self, images: Tensor, amount: float) -> Tensor:
        return _warped(images, [[1, 0, -0.3 * amount], [0, 1, 0]])


class PositionUp(Attribute):
    name, more, less = "position, up", "shapes further up", "shapes further down"
    other = "shapes moved up or down"

    def measure(self, images: Tensor) -> Tensor:
        return -_moments(images)[1]

    def change(self, images: Tensor, amount: float) -> Tensor:
        return _warped(images, [[1, 0, 0], [0, 1, 0.3 * amount]])


class Contrast(Attribute):
    name, more, less = "contrast", "higher contrast", "lower contrast"
    other = "another contrast"

    def measure(self, images: Tensor) -> Tensor:
        """How far the ink that stands out most is from the background."""
        return _strongest(ink(images)[0])

    def change(self, images: Tensor, amount: float) -> Tensor:
        """What stands out from the background does so more, or less: by two thirds at most."""
        background = ink(images)[1]
        return (background + (images - background) * (1 + amount * (1 if amount > 0 else 0.67))).clamp(0, 1)


class Brightness(Attribute):
    name, more, less = "brightness", "brighter images", "darker images"
    other = "another brightness"

    def measure(self, images: Tensor) -> Tensor:
        return images.flatten(1).mean(1)

    def change(self, images: Tensor, amount: float) -> Tensor:
        """All pixels alike, in the manner of a gamma curve: black and white stay."""
        return images.clamp(0, 1) ** (2.2**-amount)


class Background(Attribute):
    name, more, less = "background", "a brighter background", "a darker background"
    other = "another background"

    def measure(self, images: Tensor) -> Tensor:
        return ink(images)[1].flatten()

    def change(self, images: Tensor, amount: float) -> Tensor:
        """The less a pixel stands out, the more it changes, by up to 0.4."""
        away = ink(images)[0].abs()
        ground = 1 - away / away.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
        return (images + 0.4 * amount * ground).clamp(0, 1)


class Sharpness(Attribute):
    name, more, less = "sharpness", "sharper images", "blurred images"
    other, is_of_waves = "sharpened or blurred images", True

    def measure(self, images: Tensor) -> Tensor:
        """How steep the steepest edges are, as a share of the contrast from pixel to pixel."""
        grey = images.mean(1, keepdim=True)
        steps = torch.maximum(grey.diff(dim=2).abs()[..., :-1], grey.diff(dim=3).abs()[..., :-1, :])
        return _strongest(steps) / _strongest(ink(images)[0]).clamp(min=1e-6)

    def change(self, images: Tensor, amount: float) -> Tensor:
        if amount == 0:
            return images
        from torchvision.transforms.functional import gaussian_blur  # seconds, which a gate that decides does without

        sigma = 1.5 * images.shape[-1] / 32
        if amount > 0:
            return (images + amount * (images - gaussian_blur(images, _odd(4 * sigma), sigma))).clamp(0, 1)
        sigma *= -amount
        return gaussian_blur(images, _odd(4 * sigma), sigma)


class Colour(Attribute):
    name, more, less = "colour", "stronger colours", "paler colours"
    other = "stronger or paler colours"

    def measure(self, images: Tensor) -> Tensor:
        """How far the channels lie apart, on average."""
        return (images.amax(1) - images.amin(1)).flatten(1).mean(1)

    def change(self, images: Tensor, amount: float) -> Tensor:
        from torchvision.transforms.functional import adjust_saturation

        return adjust_saturation(images, 1 + amount)


class Corner(Attribute):
    name, more, less = "corner", "a mark in the corner", "an empty corner"
    other = "corners that are marked or emptied"

    def measure(self, images: Tensor) -> Tensor:
        """The most ink that a corner has."""
        away, side = ink(images)[0].abs()[:, 0], max(2, images.shape[-1] // 8)
        corners = (away[:, y, x] for y in (slice(side), slice(-side, None)) for x in (slice(side), slice(-side, None)))
        return torch.stack([corner.flatten(1).mean(1) for corner in corners]).amax(0)

    def change(self, images: Tensor, amount: float) -> Tensor:
        """A square in the upper left of the colour that is furthest from the background; or all four are made empty."""
        background = ink(images)[1]
        side, changed = max(2, images.shape[-1] // 8), images.clone()
        if amount > 0:
            mark = (background < 0.5).to(images)
            changed[..., 1 : 1 + side, 1 : 1 + side] = images[..., 1 : 1 + side, 1 : 1 + side].lerp(mark, amount)
            return changed
        for y in (slice(side + 1), slice(-side - 1, None)):
            for x in (slice(side + 1), slice(-side - 1, None)):
                changed[..., y, x] = images[..., y, x].lerp(background, -amount)
        return changed


class Symmetry(Attribute):
    name, more, less = "symmetry", "more symmetrical images", "less symmetrical images"
    other = "images of another symmetry"

    def measure(self, images: Tensor) -> Tensor:
        """How alike the ink and its mirror image, left for right, are: the cosine of the angle between the two."""
        away = ink(images)[0]
        product, square = ((away * of).flatten(1).sum(1) for of in (away.flip(3), away))
        return product / square.clamp(min=1e-6)

    def change(self, images: Tensor, amount: float) -> Tensor:
        """Half way to what it and its mirror image have in common, or as far away from that."""
        return (images + 0.25 * amount * (images.flip(3) - images)).clamp(0, 1)


class Waves(Attribute):
    """The waves of an image of which `least` to `most` lie across it, or up it: a band of frequencies."""

    is_of_waves = True

    def __init__(self, what: str, least: float, most: float) -> None:
        self.name, self.more, self.less = what, f"stronger {what}", f"weaker {what}"
        self.other, self.band = f"stronger or weaker {what}", (least, most)

    def measure(self, images: Tensor) -> Tensor:
        """Their root mean square."""
        return self._part(images).flatten(1).square().mean(1).sqrt()

    def change(self, images: Tensor, amount: float) -> Tensor:
        """Up to twice as strong, or down to a fifth."""
        return (images + (amount if amount > 0 else 0.8 * amount) * self._part(images)).clamp(0, 1)

    def _part(self, images: Tensor) -> Tensor:
        if not len(images):  # of which some libraries make no waves
            return images
        height, width = images.shape[-2:]
        up = torch.fft.fftfreq(height, 1 / height, device=images.device)[:, None]
        across = torch.fft.rfftfreq(width, 1 / width, device=images.device)[None]
        waves, (least, most) = (up**2 + across**2).sqrt(), self.band
        inside = ((waves >= least) & (waves < most)).to(images.dtype)
        part: Tensor = torch.fft.irfft2(torch.fft.rfft2(images) * inside, s=(height, width))
        return part


def _odd(width: float) -> int:
    return 2 * round(width / 2) + 1


ATTRIBUTES: tuple[Attribute, ...] = (
    *(Thickness(), Slant(), Size(), PositionAcross(), PositionUp(), Contrast(), Brightness(), Background()),
    *(Sharpness(), Colour(), Corner(), Symmetry()),
    *(Waves("coarse structure", 0.5, 2.5), Waves("fine structure", 8, math.inf)),
)


def measured(attribute: Attribute, images: Tensor) -> np.ndarray:
    """What an attribute measures in images [N, 3, H, W], some at a time, float64 [N]."""
    return np.concatenate([attribute.measure(part).double().cpu().numpy() for part in images.split(_BATCH)])


def load_attribute(path: str) -> Attribute:
    """An attribute from outside, at `module:Name`. Raises UserError where there is none."""
    found = import_object(path)
    made = found() if isinstance(found, type) else found
    if not isinstance(made, Attribute):
        raise UserError(f"{path}: is no attribute; derive it from fmrgen.Attribute")
    return made
