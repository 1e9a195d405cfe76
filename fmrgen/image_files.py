"""Image files of any kind, read as 8-bit RGB of a given size."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fmrgen.errors import UserError, one_line, option
from fmrgen.files import is_inside, open_plain
from fmrgen.trust.recipes import is_on_the_hub

Fit = Literal["crop", "squash", "pad"]

LARGEST_SIDE = 2048  # in pixels, of the images of a split
MOST_BYTES = 1 << 28  # of an image's file
MOST_PIXELS = 8192 * 8192  # of an image that is decoded: some kilobytes can stand for more than any memory holds


def stored_image(image: dict[str, Any] | None) -> bytes | str:
    """Return the bytes of an undecoded image of `datasets`, or its path or address; no bytes if it has neither."""
    if image is None:
        return b""
    if isinstance(image, Image.Image):  # datasets decodes the images of some repos, whatever it is asked for
        download = option("download", "download=True")
        raise UserError(f"datasets decodes it before it can be checked; read it without streaming, or with {download}")
    if image["bytes"] is not None:
        return image["bytes"]
    return image["path"] or b""


def path_inside(text: str, is_inside: Callable[[str], bool]) -> str | None:
    """Return the place that a path or address of an image leads to, None if any of it is not inside.

    `text` may be a chain: its last link is a file, and the others may only be members of zips. `is_inside` says whether
    that file is inside. A path is returned with links followed, so that it leads to the very file that was checked.
    """
    *members, file = text.split("::")
    if not file or not is_inside(file) or not all(member.startswith("zip://") for member in members):
        return None
    if "://" not in file:
        file = str(Path(file).resolve())
    return "::".join([*members, file])


def lies_in_repo(file: str, repo: str, revision: str | None = None) -> bool:
    """Return whether a path or address is that of a file in a dataset on the Hub, or of its copy in the local cache.

    `revision` is the commit; None for any.
    """
    if "://" in file:
        prefix = f"hf://datasets/{repo}@"
        if revision:
            prefix += f"{revision}/"
        return is_on_the_hub(file) and file.startswith(prefix)
    from datasets.config import EXTRACTED_DATASETS_PATH
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    copies = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="dataset")
    is_of_commit = revision is None or f"/snapshots/{revision}/" in file
    if is_of_commit and is_inside(Path(file), copies):
        return True
    return is_inside(Path(file), Path(EXTRACTED_DATASETS_PATH))


def read_image(image: str) -> bytes:
    """Return the bytes of the file at a path or address.

    Raises UserError if it is too large, OSError, and anything that opening an address may raise.
    """
    if "://" in image:
        from datasets.utils.file_utils import xopen

        opened = xopen(image, "rb")
    else:
        opened = open_plain(Path(image))
    with opened as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(f"it has more than {MOST_BYTES:,} bytes; make it smaller")
    return content


def open_rgb(image: bytes | str | Image.Image, size: int | None = None) -> Image.Image:
    """Return an image as 8-bit RGB: from bytes, a path or address, or an image that is open.

    EXIF rotation is applied, transparency laid on white, 16-bit greys are scaled to 8. The size in the file's header is
    checked before a pixel is decoded. With a `size`, the image must be a square of so many pixels. Raises UserError if
    the file is not there, is no image, ends too early, or is too large.
    """
    try:
        if isinstance(image, str):
            image = read_image(image)
        opened = _decoded(image, size)
    except UnidentifiedImageError:
        raise UserError("no image" if image else "no bytes") from None
    except UserError:
        raise
    except Exception as error:  # malformed bytes can fail anywhere in the decoders
        raise UserError(getattr(error, "strerror", None) or one_line(error)) from None
    if opened.mode.startswith("I;16") or opened.mode in ("I", "F"):
        opened = _to_8_bits(opened)
    if opened.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in opened.info:
        opened = opened.convert("RGBA")
        white = Image.new("RGBA", opened.size, "white")
        opened = Image.alpha_composite(white, opened)
    return opened if opened.mode == "RGB" else opened.convert("RGB")


def _decoded(image: bytes | Image.Image, size: int | None) -> Image.Image:
    """Return an image with its pixels decoded, upright. Raises any exception of the decoders."""
    opened: Image.Image = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
    if opened.format == "EPS":  # Pillow would pass it to Ghostscript
        raise UserError("an EPS is a program, and is not run; convert it")
    pixels = "×".join(map(str, opened.size))
    if size is not None and opened.size != (size, size):
        raise UserError(f"it has {pixels} pixels, not {size}×{size}")
    if 0 in opened.size:
        raise UserError(f"it has no pixels ({pixels})")
    if opened.width * opened.height > MOST_PIXELS:
        raise UserError(f"it has {pixels} pixels, and no more than {MOST_PIXELS:,} are decoded; make it smaller")
    opened.load()
    if opened.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # 1 is upright
        opened = ImageOps.exif_transpose(opened)
    return opened


def _to_8_bits(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    # Pillow opens 16-bit greys as I;16 or, from older files, as 32-bit I; floats are either 0..1 or 0..255.
    if image.mode == "F":
        pixels = np.nan_to_num(pixels)
        top = 1.0 if pixels.max(initial=0.0) <= 1.0 else 255.0
        return Image.fromarray(np.stack([_scaled(row, top) for row in pixels]))
    top = 65535.0 if image.mode.startswith("I;16") or pixels.max(initial=0) > 255 else 255.0
    return Image.fromarray(_scaled(np.arange(int(top) + 1), top)[pixels.clip(0, int(top))])


def _scaled(values: np.ndarray, top: float) -> np.ndarray:
    """Return values from 0 to `top` as uint8."""
    return np.clip(np.rint(values.astype(np.float64) / top * 255), 0, 255).astype(np.uint8)


def resize(image: Image.Image, size: int, fit: Fit) -> np.ndarray:
    """Return an RGB image as uint8 [size, size, 3]; bicubic, and untouched if it has that size already.

    `fit` says what to do with an image that is no square.
    """
    if image.size != (size, size):
        if fit == "crop":
            image = ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)
        elif fit == "pad":
            image = ImageOps.pad(image, (size, size), method=Image.Resampling.BICUBIC)
        else:
            image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8)


def webp_address(image: Image.Image, quality: int, *, lossless: bool = False) -> str:
    """Return an image as the `data:` address of a WebP, for a page."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, lossless=lossless)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def png_bytes(pixels: np.ndarray) -> bytes:
    """Return uint8 [H, W, 3] as the file of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
