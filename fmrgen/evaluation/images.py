"""The images of a split, decoded once for all classifiers that come after each other."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fmrgen.distributed.launch import Sharing
from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb
from fmrgen.sources.base import RawExample
from fmrgen.split.classify import Batch, LazyPixels, Pixels, decode_own

_SHARE_OF_DISK = 0.5  # of what is free, at most, for decoded images
_FEWEST_SPREAD = 16  # images, spread over a set, by which a classifier is recognised


@dataclass(frozen=True)
class CachedImages:
    """Images [N] of one kind, decoded once for all classifiers as far as they fit on the disk."""

    name: str  # what they are called in the batches
    numbers: np.ndarray  # of their rows, [N], as they come
    sha256: str  # of the numbers, and of the images' pixels and sizes
    path: Path | None  # the file of the decoded pixels, [N, H, W, 3]; None where they are of several sizes, or too many
    spread: Mapping[int, Pixels]  # some of the whole set, the first among them, [h, w, 3] each, by their places in it
    read: Callable[[], Iterator[Batch]] | None = None  # draws batches of them that are still to be decoded
    pixels: np.ndarray | None = None  # the file's content; it may then be deleted

    @property
    def first(self) -> Pixels:
        """The first of the images, [H, W, 3]."""
        return self.spread[0]

    def opened(self, read: Callable[[], Iterator[Batch]]) -> "CachedImages":
        """Return the set with its file mapped; `read` draws batches of what has none."""
        pixels = None
        if self.path is not None:
            pixels = np.memmap(self.path, np.uint8, "r", shape=(len(self.numbers), *self.first.shape))
        return replace(self, pixels=pixels, read=read)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the images in batches of `size`, or where they are decoded anew of the size in which they were read."""
        if self.pixels is None:
            assert self.read is not None
            yield from self.read()
            return
        for start in range(0, len(self.pixels), size):
            images = {self.name: list[LazyPixels](self.pixels[start : start + size])}
            yield Batch(self.numbers[start : start + size], images.copy)


class _Kept:
    """One kind of images as they come: hashed, and written to a file as long as they are of one size and fit."""

    def __init__(self, path: Path, left_free: float) -> None:
        self.path, self.left_free = path, left_free  # bytes of the disk that stay free, whatever else is written to it
        self.digest, self.numbers = hashlib.sha256(), list[int]()
        self.spread: dict[int, Pixels] = {}
        self.distance = 1  # between two of these
        self.file = path.open("wb")

    def add(self, number: int, image: Pixels) -> None:
        # Each image is kept at first, then each second one, fourth one, and so on: how many come is not known.
        place = len(self.numbers)
        if place % self.distance == 0 and len(self.spread) == 2 * _FEWEST_SPREAD:
            self.distance *= 2
            self.spread = {place: image for place, image in self.spread.items() if place % self.distance == 0}
        if place % self.distance == 0:
            self.spread[place] = image
        pixels = np.ascontiguousarray(image)
        self.digest.update(f"{number} {pixels.shape}".encode())
        self.digest.update(pixels.data)
        self.numbers.append(number)
        if self.file.closed:
            return
        has_room = shutil.disk_usage(self.path.parent).free - pixels.nbytes >= self.left_free
        is_kept = image.shape == self.spread[0].shape and has_room
        try:
            if is_kept:
                self.file.write(pixels.data)
        except OSError:  # the disk is fuller than it was
            is_kept = False
        if not is_kept:
            self.give_up()

    def give_up(self) -> None:
        """Keep no file: the images are decoded anew."""
        with suppress(OSError):
            self.file.close()
        self.path.unlink(missing_ok=True)

    def set_of(self, name: str) -> CachedImages:
        try:
            self.file.close()
        except OSError:
            self.give_up()
        path = self.path if self.path.exists() else None
        return CachedImages(name, np.array(self.numbers), self.digest.hexdigest(), path, self.spread)


def decode_once(
    batches: Iterator[Batch], folder: Path, device: torch.device, on_rows: Callable[[int], None]
) -> dict[str, CachedImages]:
    """Decode all images of `batches`, keep what fits in files of `folder`, and return each kind of images by its name.

    The batches are drawn once; without rows there is no kind. Each file is called as its images are; all share half of
    what is free in the folder. The `device` of the classifiers to come says how many threads decode; `on_rows` is
    called with a number of rows as they go by. Raises UserError if an image can't be decoded.
    """
    left_free = (1 - _SHARE_OF_DISK) * shutil.disk_usage(folder).free
    files: dict[str, _Kept] = {}
    for rows, decoded in decode_own(batches, Sharing(), device):
        assert decoded is not None
        for name, images in decoded.result().items():
            if name not in files:
                files[name] = _Kept(folder / name, left_free)
            for number, image in zip(rows.tolist(), images, strict=True):
                files[name].add(number, image if isinstance(image, np.ndarray) else image())
        on_rows(len(rows))
    return {name: file.set_of(name) for name, file in files.items()}


def batches_of_examples(
    examples: Iterator[tuple[int, RawExample]], size: int, name: str, finish: Callable[[Image.Image], Pixels]
) -> Iterator[Batch]:
    """Yield the images of examples, each with its row, as `finish` returns them, under a name in batches of `size`."""

    def decode(part: Sequence[RawExample]) -> dict[str, list[LazyPixels]]:
        return {name: [pixels_of(example, finish) for example in part]}

    for part in iter(lambda: list(islice(examples, size)), []):
        rows, of_rows = zip(*part, strict=True)
        yield Batch(np.array(rows), partial(decode, of_rows))


def pixels_of(example: RawExample, finish: Callable[[Image.Image], Pixels] = np.asarray) -> Pixels:
    """Return the image of an example, as `finish` returns it. Raises UserError if it can't be read."""
    try:
        return finish(open_rgb(example.image))
    except UserError as error:
        raise UserError(f"source: image of id {example.id} is unreadable ({error})") from None
