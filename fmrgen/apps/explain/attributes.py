"""Attributes of images that can be measured and changed: strokes, place, light, sharpness. Each is one class."""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate, pad

from fmrgen.config import import_object
from fmrgen.errors import UserError

_BATCH = 64


class Attribute(ABC):
    """A property of images [B, 3, H, W] in [0, 1] that can be measured and changed.

    Attributes:
        name: for tables.
        more, less: describes images with more of the attribute than their originals, or less, as in "it fails on …".
        other: describes images with a different amount of it.
        is_of_waves: whether it measures the strength of some spatial frequencies, as sharpness does. A control with the
            spectrum of the change would change it too, so the control has the spectrum of the image.
    """

    name: str
    more: str
    less: str
    other: str
    is_of_waves: bool = False

    @abstractmethod
    def measure(self, images: Tensor) -> Tensor:
        """Return the amount in each image, [B], in any unit."""

    @abstractmethod
    def change(self, images: Tensor, amount: float) -> Tensor:
        """Return images with more of it, or less if `amount` is negative. Must be deterministic.

        Args:
            images: [B, 3, H, W] in [0, 1].
            amount: from -1 to 1; 0 changes nothing. At either end people should usually still recognise the image.
        """


def ink(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far pixels are from the background [B, 1, H, W], from -1 to 1, and the background [B, 1, 1, 1].

    Both are of the mean over channels; the background is the median of the border.
    """
    grey = images.mean(1, keepdim=True)
    border = torch.cat([grey[..., 0, :], grey[..., -1, :], grey[..., 0], grey[..., -1]], -1)
    background = border.flatten(1).median(1).values.view(-1, 1, 1, 1)
    return grey - background, background


def _strongest(values: Tensor) -> Tensor:
    """Return the absolute value that two of a hundred pixels of `values` [B, 1, H, W] exceed, [B]: no outliers."""
    pixels = values.abs().flatten(1)
    return pixels.kthvalue(math.ceil(0.98 * pixels.shape[1])).values


def _moments(images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the ink's mean x and y [B] and its variances xx, yy and xy, in half widths and heights from the middle."""
    pixels = (ink(images)[0].abs()[:, 0] - 0.1).clamp(min=0)  # what is fainter is no ink
    total = pixels.sum((1, 2), keepdim=True)
    uniform = 1 / (pixels.shape[1] * pixels.shape[2])  # in an image without ink
    weights = torch.where(total > 0, pixels / total.clamp(min=1e-6), uniform)
    y = torch.linspace(-1, 1, weights.shape[1], device=images.device).view(1, -1, 1)
    x = torch.linspace(-1, 1, weights.shape[2], device=images.device).view(1, 1, -1)
    mean_x, mean_y = (weights * x).sum((1, 2)), (weights * y).sum((1, 2))
    dx, dy = x - mean_x.view(-1, 1, 1), y - mean_y.view(-1, 1, 1)
    xx = (weights * (dx * dx)).sum((1, 2))
    yy = (weights * (dy * dy)).sum((1, 2))
    xy = (weights * (dx * dy)).sum((1, 2))
    return mean_x, mean_y, xx, yy, xy


def _warped(images: Tensor, matrix: list[list[float]]) -> Tensor:
    """Return images whose pixel at (x, y) is the original's at `matrix` [2, 3] times (x, y, 1); edges are stretched."""
    grid = affine_grid(images.new_tensor(matrix).expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False).clamp(0, 1)


class Thickness(Attribute):
    """The mean width of strokes in pixels: their area divided by half the length of their edges."""

    name, more, less, other = "thickness", "thicker strokes", "thinner strokes", "strokes of another thickness"

    def measure(self, images: Tensor) -> Tensor:
        strokes = ink(images)[0].abs()[:, 0]
        # Steps across and up, summed, are 4 / pi as long as an edge is, averaged over directions.
        edges = (strokes.diff(dim=1).abs().sum((1, 2)) + strokes.diff(dim=2).abs().sum((1, 2))) * 0.785
        return 2 * strokes.sum((1, 2)) / edges.clamp(min=1e-6)

    def change(self, images: Tensor, amount: float) -> Tensor:
        """Return images whose strokes grow, or shrink, by up to one pixel on each side for every 28 of the image.

        Small images are enlarged for that, so that strokes grow by quarters of a pixel.
        """
        contrast, background = ink(images)
        sign = contrast.sum((1, 2, 3), keepdim=True).sign()  # 1: light strokes on dark
        growth = max(1, round(images.shape[-1] / 28))
        scale = -(-4 // growth)
        direction = math.copysign(1, amount)
        fine = interpolate(sign * (images - background), scale_factor=scale, mode="bilinear") * direction
        whole, part = divmod(abs(amount) * growth * scale, 1)
        grown = _dilated(fine, int(whole))
        if part:
            grown = grown.lerp(_dilated(fine, int(whole) + 1), part)
        change = avg_pool2d((grown - fine) * direction, scale)
        return (images + sign * change).clamp(0, 1)


def _dilated(images: Tensor, radius: int) -> Tensor:
    """Return at each pixel the brightest value that is at most `radius` pixels away, across and up."""
    rows = pad(images, [radius] * 4, mode="replicate").unfold(2, 2 * radius + 1, 1).amax(-1)
    return rows.unfold(3, 2 * radius + 1, 1).amax(-1)


class Slant(Attribute):
    """The lean of shapes to the right: by how much the ink moves there for each step upwards."""

    name, more, less = "slant", "shapes that lean to the right", "shapes that lean to the left"
    other = "shapes that lean"

    def measure(self, images: Tensor) -> Tensor:
        _, _, _, yy, xy = _moments(images)
        return -xy / yy.clamp(min=1e-6)

    def change(self, images: Tensor, amount: float) -> Tensor:
        return _warped(images, [[1, 0.5 * amount, 0], [0, 1, 0]])


class Size(Attribute):
    """The size of shapes: the ink's root mean square distance from its middle, in half widths."""

    name, more, less, other = "size", "larger shapes", "smaller shapes", "shapes of another size"

    def measure(self, images: Tensor) -> Tensor:
        _, _, xx, yy, _ = _moments(images)
        return (xx + yy).sqrt()

    def change(self, images: Tensor, amount: float) -> Tensor:
        scale = 1.4**-amount
        return _warped(images, [[scale, 0, 0], [0, scale, 0]])


class PositionAcross(Attribute):
    """The position of shapes from left to right."""

    name, more, less = "position across", "shapes further right", "shapes further left"
    other = "shapes moved to the side"

    def measure(self, images: Tensor) -> Tensor:
        return _moments(images)[0]

    def change(self, images: Tensor, amount: float) -> Tensor:
        return _warped(images, [[1, 0, -0.3 * amount], [0, 1, 0]])


class PositionUp(Attribute):
    """The position of shapes from bottom to top."""

    name, more, less, other = "position up", "shapes further up", "shapes further down", "shapes moved up or down"

    def measure(self, images: Tensor) -> Tensor:
        return -_moments(images)[1]

    def change(self, images: Tensor, amount: float) -> Tensor:
        return _warped(images, [[1, 0, 0], [0, 1, 0.3 * amount]])


class Contrast(Attribute):
    """The contrast: how far the ink that stands out most is from the background."""

    name, more, less, other = "contrast", "higher contrast", "lower contrast", "another contrast"

    def measure(self, images: Tensor) -> Tensor:
        return _strongest(ink(images)[0])

    def change(self, images: Tensor, amount: float) -> Tensor:
        """Return images whose distance from the background is up to twice as large, or down to a third."""
        background = ink(images)[1]
        strength = 1 if amount > 0 else 0.67
        return (background + (images - background) * (1 + amount * strength)).clamp(0, 1)


class Brightness(Attribute):
    """The mean of all pixels."""

    name, more, less, other = "brightness", "brighter images", "darker images", "another brightness"

    def measure(self, images: Tensor) -> Tensor:
        return images.flatten(1).mean(1)

    def change(self, images: Tensor, amount: float) -> Tensor:
        """Return images under a gamma curve: black and white stay."""
        return images.clamp(0, 1) ** (2.2**-amount)


class Background(Attribute):
    """The brightness of the background."""

    name, more, less, other = "background", "a brighter background", "a darker background", "another background"

    def measure(self, images: Tensor) -> Tensor:
        return ink(images)[1].flatten()

    def change(self, images: Tensor, amount: float) -> Tensor:
        """Return images whose pixels change by up to 0.4, the more the less they stand out."""
        contrast = ink(images)[0].abs()
        ground = 1 - contrast / contrast.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
        return (images + 0.4 * amount * ground).clamp(0, 1)


class Sharpness(Attribute):
    """The steepness of the steepest edges from pixel to pixel, as a share of the contrast."""

    name, more, less = "sharpness", "sharper images", "blurred images"
    other, is_of_waves = "sharpened or blurred images", True

    def measure(self, images: Tensor) -> Tensor:
        grey = images.mean(1, keepdim=True)
        steps = torch.maximum(grey.diff(dim=2).abs()[..., :-1], grey.diff(dim=3).abs()[..., :-1, :])
        return _strongest(steps) / _strongest(ink(images)[0]).clamp(min=1e-6)

    def change(self, images: Tensor, amount: float) -> Tensor:
        if amount == 0:
            return images
        from torchvision.transforms.functional import gaussian_blur  # slow to import, and a gate may not need it

        sigma = 1.5 * images.shape[-1] / 32 * (1 if amount > 0 else -amount)
        blurred = gaussian_blur(images, 2 * round(2 * sigma) + 1, sigma)
        return (images + amount * (images - blurred)).clamp(0, 1) if amount > 0 else blurred


class Colour(Attribute):
    """The strength of colours: how far the channels are apart, on average."""

    name, more, less, other = "colour", "stronger colours", "paler colours", "stronger or paler colours"

    def measure(self, images: Tensor) -> Tensor:
        return (images.amax(1) - images.amin(1)).flatten(1).mean(1)

    def change(self, images: Tensor, amount: float) -> Tensor:
        from torchvision.transforms.functional import adjust_saturation

        return adjust_saturation(images, 1 + amount)


class Corner(Attribute):
    """Marks in the corners: the mean ink of the corner that has most."""

    name, more, less, other = "corner", "a mark in the corner", "an empty corner", "corners that are marked or emptied"

    def measure(self, images: Tensor) -> Tensor:
        contrast = ink(images)[0].abs()[:, 0]
        corners = _corners(contrast, _corner_side(images))
        return torch.stack([corner.flatten(1).mean(1) for corner in corners]).amax(0)

    def change(self, images: Tensor, amount: float) -> Tensor:
        """Return images with a black or white square in the upper left, or with all four corners emptied.

        The square has the colour that is further from the background.
        """
        background = ink(images)[1]
        side = _corner_side(images)
        changed = images.clone()
        if amount > 0:
            mark = (background < 0.5).to(images)
            changed[..., 1 : 1 + side, 1 : 1 + side] = images[..., 1 : 1 + side, 1 : 1 + side].lerp(mark, amount)
            return changed
        for corner in _corners(changed, side + 1):
            corner.lerp_(background, -amount)
        return changed


def _corner_side(images: Tensor) -> int:
    return max(2, images.shape[-1] // 8)


def _corners(images: Tensor, side: int) -> list[Tensor]:
    """Return views of the four corners of images [..., H, W], with a side of so many pixels."""
    top, bottom = images[..., :side, :], images[..., -side:, :]
    return [top[..., :side], top[..., -side:], bottom[..., :side], bottom[..., -side:]]


class Symmetry(Attribute):
    """The cosine of the angle between the ink and its mirror image, left for right."""

    name, more, less = "symmetry", "more symmetrical images", "less symmetrical images"
    other = "images of another symmetry"

    def measure(self, images: Tensor) -> Tensor:
        contrast = ink(images)[0]
        product, square = contrast * contrast.flip(3), contrast * contrast
        return product.sum((1, 2, 3)) / square.sum((1, 2, 3)).clamp(min=1e-6)

    def change(self, images: Tensor, amount: float) -> Tensor:
        """Return images half way towards the mean of each and its mirror image, or as far away from it."""
        return (images + 0.25 * amount * (images.flip(3) - images)).clamp(0, 1)


class Waves(Attribute):
    """The root mean square of the waves in a band of frequencies, from `least` to below `most`, in waves across."""

    is_of_waves = True

    def __init__(self, name: str, least: float, most: float) -> None:
        self.name, self.more, self.less = name, f"stronger {name}", f"weaker {name}"
        self.other, self.band = f"stronger or weaker {name}", (least, most)

    def measure(self, images: Tensor) -> Tensor:
        return self._part(images).flatten(1).square().mean(1).sqrt()

    def change(self, images: Tensor, amount: float) -> Tensor:
        """Return images in which these waves are up to twice as strong, or down to a fifth."""
        strength = amount if amount > 0 else 0.8 * amount
        return (images + strength * self._part(images)).clamp(0, 1)

    def _part(self, images: Tensor) -> Tensor:
        """Return the part of images [B, 3, H, W] that these waves make up."""
        if not len(images):  # some FFT libraries refuse an empty batch
            return images
        height, width = images.shape[-2:]
        up = torch.fft.fftfreq(height, 1 / height, device=images.device)[:, None]
        across = torch.fft.rfftfreq(width, 1 / width, device=images.device)[None]
        frequency = (up**2 + across**2).sqrt()
        least, most = self.band
        inside = ((frequency >= least) & (frequency < most)).to(images.dtype)
        part: Tensor = torch.fft.irfft2(torch.fft.rfft2(images) * inside, s=(height, width))
        return part


ATTRIBUTES: tuple[Attribute, ...] = (
    Thickness(),
    Slant(),
    Size(),
    PositionAcross(),
    PositionUp(),
    Contrast(),
    Brightness(),
    Background(),
    Sharpness(),
    Colour(),
    Corner(),
    Symmetry(),
    Waves("coarse structure", 0.5, 2.5),
    Waves("fine structure", 8, math.inf),
)
BY_NAME = {attribute.name: attribute for attribute in ATTRIBUTES}


def measured(attribute: Attribute, images: Tensor) -> np.ndarray:
    """Return what an attribute measures in images [N, 3, H, W], a batch at a time, float64 [N]."""
    return np.concatenate([attribute.measure(part).double().cpu().numpy() for part in images.split(_BATCH)])


def load_attribute(path: str) -> Attribute:
    """Return the attribute at `module:Name`, a class or an object. Raises UserError if there is none."""
    attribute = import_object(path)
    if isinstance(attribute, type):
        attribute = attribute()
    if not isinstance(attribute, Attribute):
        raise UserError(f"{path}: is no attribute; derive it from fmrgen.Attribute")
    return attribute
