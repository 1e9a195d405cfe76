"""Small images side by side on sheets: a page decodes a sheet when the first of its images is seen."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from fmrgen.image_files import webp_address

_ACROSS = 8  # thumbnails across a sheet, and down
_SIDES = (320, 224, 160, 128, 112, 96, 80, 64, 48, 32, 24)  # pixels; the largest that fits is taken
_AS_STORED = 96  # pixels; images up to this side keep every pixel, without loss, if that fits
_QUALITY = 80  # of WebP, in percent; without loss it is the effort, and 100 takes six times as long for 0.2 % less
_TRIED = 64  # thumbnails, of which the size of all is estimated


def most_side(count: int) -> int:
    """Return the side in pixels that so many images may have, to be kept in memory before they are encoded."""
    side = int((250_000_000 / 3 / max(1, count)) ** 0.5)  # bytes, three for each pixel
    return min(_SIDES[0], max(_SIDES[-3], side))


def make_sheets(images: Sequence[Image.Image], most_letters: float) -> dict[str, Any]:
    """Return sheets of RGB images of any sizes: as large as they are, if they fit, or else smaller.

    The images are in squares, from left to right and from top to bottom, sheet after sheet: `side` is that of each
    square in pixels, `across` how many are across a sheet and down, and `addresses` are those of the sheets, `data:` of
    WebP. `most_letters` is about the most that the addresses may take.
    """
    if not images:
        return {"side": 1, "across": _ACROSS, "addresses": []}
    largest = max(max(image.size) for image in images)
    forms = [(side, False) for side in _SIDES if side < largest]  # sides, and whether without loss; the best first
    if largest <= _SIDES[0]:
        forms.insert(0, (largest, False))
    if largest <= _AS_STORED:
        forms.insert(0, (largest, True))
    tried = images[:: max(1, len(images) // _TRIED)]
    for side, is_lossless in forms:
        letters = sum(map(len, _addresses(tried, side, is_lossless)))
        if letters / len(tried) <= most_letters / len(images):
            break  # else it is the smallest form
    return {"side": side, "across": _ACROSS, "addresses": _addresses(images, side, is_lossless)}


def _addresses(images: Sequence[Image.Image], side: int, is_lossless: bool) -> list[str]:
    """Return the sheets of images in squares of `side` pixels."""
    size = _ACROSS * _ACROSS
    starts = range(0, len(images), size)
    return [_address(images[start : start + size], side, is_lossless) for start in starts]


def _address(images: Sequence[Image.Image], side: int, is_lossless: bool) -> str:
    """Return one sheet; an image that is no square lies in the middle of one that is clear around it."""
    has_gaps = any(image.width != image.height for image in images)
    down = -(-len(images) // _ACROSS)  # rounded up
    sheet = Image.new("RGBA" if has_gaps else "RGB", (_ACROSS * side, down * side))
    for place, image in enumerate(images):
        row, column = divmod(place, _ACROSS)
        scale = side / max(image.size)
        size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
        thumbnail = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
        left = column * side + (side - size[0]) // 2
        top = row * side + (side - size[1]) // 2
        sheet.paste(thumbnail, (left, top))
    return webp_address(sheet, _QUALITY, lossless=is_lossless)
