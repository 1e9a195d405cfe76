"""Any image file as 8-bit RGB at a wanted size."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fmrgen.errors import UserError, one_line, option
from fmrgen.files import is_inside, open_plain
from fmrgen.trust.recipes import is_on_the_hub

Fit = Literal["crop", "squash", "pad"]

LARGEST_SIDE = 2048  # in pixels, of the images of a split
MOST_BYTES = 1 << 28  # of an image's file
MOST_PIXELS = 8192 * 8192  # of an image that is decoded: some kilobytes can stand for more than any memory holds
_ORIENTATION = 0x0112  # in EXIF
_UPRIGHT = 1


def stored_image(image: dict[str, Any] | None) -> bytes | str:
    """The bytes of an undecoded image of `datasets`, or its file's path or address; no bytes where it is neither."""
    if image is None:
        return b""
    if isinstance(image, Image.Image):  # as datasets gives them of some repos, whatever it is asked for
        whole = option("download", "download=True")
        raise UserError(f"datasets decodes it before it can be checked; read it without streaming, or with {whole}")
    return image["bytes"] if image["bytes"] is not None else image["path"] or b""


def path_inside(text: str, is_inside: Callable[[str], bool]) -> str | None:
    """The place that the path or address `text` of an image leads to, None where that is not all inside.

    `is_inside` is asked of the file at the end of a chain, whose other links may only be members of zips. A path comes
    back as the very file that was asked about, with no links on its way.
    """
    *members, file = text.split("::")
    if not file or not is_inside(file) or not all(member.startswith("zip://") for member in members):
        return None
    return "::".join([*members, file if "://" in file else str(Path(file).resolve())])


def lies_in_repo(file: str, repo: str, revision: str | None = None) -> bool:
    """Whether a path or address is that of a file in the dataset `repo` on the Hub, or of its copy in the cache here.

    Of the commit `revision` where that is given.
    """
    if "://" in file:
        begin = f"hf://datasets/{repo}@{revision}/" if revision else f"hf://datasets/{repo}@"
        return is_on_the_hub(file) and file.startswith(begin)
    from datasets.config import EXTRACTED_DATASETS_PATH
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    copies = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="dataset")
    of_commit = revision is None or f"/snapshots/{revision}/" in file
    return (of_commit and is_inside(Path(file), copies)) or is_inside(Path(file), Path(EXTRACTED_DATASETS_PATH))


def read_image(image: str) -> bytes:
    """The bytes of the file at a path or address. Raises UserError for one without end, OSError, and whatever else the
    way to an address may raise."""
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
    """`image` (bytes, a path or address, or opened) as 8-bit RGB, a square of `size` pixels where that is given.

    EXIF rotation is applied, transparency laid on white, 16-bit greys are scaled to 8. What the file says of its size
    is looked at before a pixel is decoded. Raises UserError for a file that is not there, is no image, ends too early,
    or is too large.
    """
    try:
        if isinstance(image, str):
            image = read_image(image)
        opened: Image.Image = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
        if opened.format == "EPS":  # Pillow would hand it to Ghostscript
            raise UserError("an EPS is a program, and is not run; convert it")
        _check_size(opened.size, size)
        opened.load()
        if opened.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:
            opened = ImageOps.exif_transpose(opened)
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
    return opened if opened.mode == "RGB" else opened.convert("RGB")


def _check_size(found: tuple[int, int], wanted: int | None) -> None:
    shown = "×".join(map(str, found))
    if wanted is not None and found != (wanted, wanted):
        raise UserError(f"it has {shown} pixels, not {wanted}×{wanted}")
    if 0 in found:
        raise UserError(f"it has no pixels ({shown})")
    if found[0] * found[1] > MOST_PIXELS:
        raise UserError(f"it has {shown} pixels, and no more than {MOST_PIXELS:,} are decoded; make it smaller")


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
    """uint8 of values from 0 to `top`."""
    return np.clip(np.rint(values.astype(np.float64) / top * 255), 0, 255).astype(np.uint8)


def resize(image: Image.Image, size: int, fit: Fit) -> np.ndarray:
    """An RGB image as uint8 [size, size, 3]; bicubic, untouched where it already has that size."""
    if image.size != (size, size):
        if fit == "crop":
            image = ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)
        elif fit == "pad":
            image = ImageOps.pad(image, (size, size), method=Image.Resampling.BICUBIC)
        else:
            image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8)


def png_bytes(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as the file of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
