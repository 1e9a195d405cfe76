"""Any image file as 8-bit RGB at a wanted size."""

import io
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fmrgen.errors import UserError, one_line

Fit = Literal["crop", "squash"]


def stored_image(image: dict[str, Any] | None) -> bytes | str:
    """The bytes of an undecoded image of `datasets`, or its file's path or address; no bytes where it is neither."""
    if image is None:
        return b""
    return image["bytes"] if image["bytes"] is not None else image["path"] or b""


def open_rgb(image: bytes | str | Image.Image) -> Image.Image:
    """`image` (bytes, a path or address, or opened) as 8-bit RGB.

    EXIF rotation is applied, transparency laid on white, 16-bit greys are scaled to 8. Raises UserError for a file that
    is not there, is no image, or ends too early.
    """
    try:
        if isinstance(image, str):
            from datasets.utils.file_utils import xopen

            with xopen(image, "rb") as file:
                return open_rgb(file.read())
        opened: Image.Image = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
        if opened.format == "EPS":  # Pillow would hand it to Ghostscript
            raise UserError("an EPS is a program, and is not run; convert it")
        opened = ImageOps.exif_transpose(opened)
        opened.load()
    except UnidentifiedImageError:
        raise UserError("no image" if image else "no bytes") from None
    except UserError:
        raise
    except Exception as error:  # anyone's bytes can fail anywhere in the decoders
        raise UserError(getattr(error, "strerror", None) or one_line(error)) from None
    if opened.mode.startswith("I;16") or opened.mode in ("I", "F"):
        opened = _to_8_bits(opened)
    if opened.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in opened.info:
        opened = opened.convert("RGBA")
        white = Image.new("RGBA", opened.size, "white")
        opened = Image.alpha_composite(white, opened)
    return opened.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).astype(np.float64)
    # Pillow opens 16-bit greys as I;16 or, from older files, as 32-bit I; floats are either 0..1 or 0..255.
    if image.mode == "F":
        top = 1.0 if pixels.max(initial=0.0) <= 1.0 else 255.0
    else:
        top = 65535.0 if image.mode.startswith("I;16") or pixels.max(initial=0.0) > 255 else 255.0
    return Image.fromarray(np.clip(np.rint(pixels / top * 255), 0, 255).astype(np.uint8))


def resize(image: Image.Image, size: int, fit: Fit) -> np.ndarray:
    """An RGB image as uint8 [size, size, 3]; bicubic, untouched where it already has that size."""
    if image.size != (size, size):
        if fit == "crop":
            image = ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)
        else:
            image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8)
