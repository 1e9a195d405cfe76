"""Small images side by side on sheets: a page decodes a sheet when the first of its images is seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from fmrgen.image_files import webp_address

_ACROSS = 8  # thumbnails across a sheet, and down
_SIDES = (320, 224, 160, 128, 112, 96, 80, 64, 48, 32, 24)  # pixels; the largest that fits is taken
_AS_STORED = 96  # pixels; images up to this side keep every pixel, without loss, if that fits
_QUALITY = 80  # of WebP, in percent; without loss it is the effort, and 100 takes six times as long for 0.2 % less
_MOST_BYTES = 250_000_000  # of images that are not encoded yet
_TRIED = 64  # thumbnails, of which the size of all is estimated


@dataclass(frozen=True)
class Sheets:
    """Thumbnails in squares of one side, from left to right and from top to bottom, sheet after sheet."""

    side: int  # of each square, in pixels
    across: int  # squares across each sheet, and down
    addresses: list[str]  # of the sheets, `data:` addresses of WebP


@dataclass(frozen=True)
class _Form:
    """How thumbnails are encoded."""

    side: int
    is_lossless: bool


def most_side(count: int) -> int:
    """Return the side in pixels that so many images may have, to be kept in memory before they are encoded."""
    side = int((_MOST_BYTES / 3 / max(1, count)) ** 0.5)
    return min(_SIDES[0], max(_SIDES[-3], side))


def make_sheets(images: Sequence[Image.Image], most_letters: float) -> Sheets:
    """Return sheets of RGB images of any sizes: as large as they are, if they fit, or else smaller.

    `most_letters` is about the most that the addresses may take.
    """
    if not images:
        return Sheets(1, _ACROSS, [])
    return _sheets(images, _best_form(images, most_letters / len(images)))


def _best_form(images: Sequence[Image.Image], most_letters: float) -> _Form:
    """Return the best form of which a thumbnail takes `most_letters` on average, or else the smallest one."""
    largest = max(max(image.size) for image in images)
    tried = images[:: max(1, len(images) // _TRIED)]
    forms = []
    if largest <= _AS_STORED:
        forms = [_Form(largest, True), _Form(largest, False)]
    elif largest <= _SIDES[0]:
        forms = [_Form(largest, False)]
    forms += [_Form(side, False) for side in _SIDES if side < largest]
    for form in forms:
        letters = sum(map(len, _sheets(tried, form).addresses))
        if letters / len(tried) <= most_letters:
            return form
    return forms[-1]


def _sheets(images: Sequence[Image.Image], form: _Form) -> Sheets:
    """Return sheets of images in one form."""
    size = _ACROSS * _ACROSS
    addresses = []
    for start in range(0, len(images), size):
        addresses.append(_address(images[start : start + size], form))
    return Sheets(form.side, _ACROSS, addresses)


def _address(images: Sequence[Image.Image], form: _Form) -> str:
    """Return one sheet; an image that is no square lies in the middle of one that is clear around it."""
    has_gaps = any(image.width != image.height for image in images)
    down = -(-len(images) // _ACROSS)  # rounded up
    sheet = Image.new("RGBA" if has_gaps else "RGB", (_ACROSS * form.side, down * form.side))
    for place, image in enumerate(images):
        row, column = divmod(place, _ACROSS)
        scale = form.side / max(image.size)
        size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
        thumbnail = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
        left = column * form.side + (form.side - size[0]) // 2
        top = row * form.side + (form.side - size[1]) // 2
        sheet.paste(thumbnail, (left, top))
    return webp_address(sheet, _QUALITY, lossless=form.is_lossless)
