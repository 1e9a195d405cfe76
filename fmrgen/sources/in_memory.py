"""A dataset that was handed over as an object in Python: one of `datasets`, or any of torch that has a length."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image
from pydantic import PrivateAttr

from fmrgen.config import called
from fmrgen.errors import UserError, one_line
from fmrgen.image_files import open_rgb
from fmrgen.labels import Labels, make_labels
from fmrgen.sources import datasets as of_datasets
from fmrgen.sources.base import RawExample, Source, SourceConfig, label_of_source

_SAMPLED = 16  # examples that tell one dataset from another


class Config(SourceConfig):
    """`target` is the class of the dataset, `examples` their number, `sample_sha256` the digest of some of them.

    Give `of` a `datasets.Dataset` with a column of images and one of labels, or anything with `len()` whose items are
    (image, label): images of PIL, uint8 arrays [H, W, 3], tensors [3, H, W] in [0, 1] or uint8 ones.
    """

    PLACES = ()

    kind: str = "in_memory"
    target: str
    examples: int
    sample_sha256: str
    _held: Any = PrivateAttr(None)

    @classmethod
    def of(
        cls, dataset: Any, class_names: list[str] | None = None, else_names: Callable[[], list[str]] = list
    ) -> "Config":
        """The section of a dataset, its labels called `class_names`, or as it calls them, or else `else_names`. Raises
        UserError where it is none."""
        if class_names is None and not _names_its_classes(dataset):
            class_names = else_names() or None
        source = _opened(dataset, class_names)
        section = cls(
            target=called(dataset),
            examples=len(source),
            sample_sha256=_sample_sha256(source),
            classes=class_names,
        )
        section._held = source
        return section

    def build(self, device: object = "cpu") -> Source:
        if self._held is None:
            raise UserError(
                f"source: the {self.target} was an object in the memory of the process that made the split; hand it "
                "over in Python"
            )
        return self._held


def _opened(dataset: Any, class_names: list[str] | None) -> Source:
    import datasets

    if isinstance(dataset, datasets.Dataset):
        return of_datasets.Config(path=".", classes=class_names).open(dataset)  # its images may lie anywhere
    kind = type(dataset).__name__
    if isinstance(dataset, datasets.IterableDataset | datasets.IterableDatasetDict):
        raise UserError(f"source: {kind} is a stream; give a datasets.Dataset, or name it in a recipe")
    if isinstance(dataset, dict):
        raise UserError(f"source: holds several splits, {', '.join(map(str, dataset))}; give one of them")
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise UserError(f"source: {kind} is not a dataset; give one with len() and items (image, label)")
    return ItemsSource(dataset, class_names)


def _names_its_classes(dataset: Any) -> bool:
    import datasets

    if isinstance(dataset, datasets.Dataset):
        features, words = dataset.features.values(), datasets.Value("string")
        return any(isinstance(feature, datasets.ClassLabel) or feature == words for feature in features)
    return getattr(dataset, "classes", None) is not None


def _sample_sha256(source: Source) -> str:
    """Of the classes and of examples from the whole source: to read all of a large one would take long.

    Raises UserError where these are others when they are read again.
    """
    places = sorted({place * len(source) // _SAMPLED for place in range(_SAMPLED)}) if len(source) else []
    digests = []
    for _ in range(2):
        digest = hashlib.sha256(repr((len(source), source.labels)).encode())
        for place in places:
            for example in source.read(place, place + 1):
                digest.update(f"{example.id} {example.label}".encode())
                digest.update(np.asarray(open_rgb(example.image)).tobytes())
        digests.append(digest.hexdigest())
    if digests[0] != digests[1]:
        raise UserError(
            "source: gives other images when it is read again; turn off what is random in it (augmentation)"
        )
    return digests[0]


class ItemsSource(Source):
    """A dataset whose items are (image, label); its ids are their places in it."""

    def __init__(self, dataset: Any, class_names: list[str] | None) -> None:
        self._dataset = dataset
        known = class_names or getattr(dataset, "classes", None)
        targets = getattr(dataset, "targets", None)
        given = targets if targets is not None and len(targets) == len(dataset) else self._labels_of_items()
        numbers = [_number(label, place) for place, label in enumerate(given)]
        names = known or [str(number) for number in range(max(numbers, default=-1) + 1)]
        self.labels: Labels = make_labels([str(name) for name in names], None)
        self._labels = [label_of_source(self.labels, n, i, key="the dataset's labels") for i, n in enumerate(numbers)]

    def _labels_of_items(self) -> list[Any]:
        return [self._item(place)[1] for place in range(len(self))]

    def _item(self, place: int) -> tuple[Any, Any]:
        try:
            image, label = self._dataset[place]
            return image, label
        except Exception as error:  # anyone's code stands there
            raise UserError(
                f"source: item {place} of the {type(self._dataset).__name__} is not (image, label), the label a "
                f"number: {type(error).__name__}: {one_line(error)}"
            ) from None

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, start: int, stop: int) -> Iterator[RawExample]:
        for place in range(start, min(stop, len(self))):
            label = self._labels[place]
            if label is not None:
                yield RawExample(place, _image(self._item(place)[0], place), label)


def _number(label: Any, place: int) -> int:
    """The class that an item's label is. Raises UserError for anything else."""
    try:
        value = label.item()  # of numpy and torch
    except (AttributeError, ValueError, RuntimeError):
        value = label
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_whole:
        text = " ".join(repr(value).split())[:40]
        raise UserError(f"source: the label of item {place} is {text}; give classes as numbers, from 0")
    return int(value)


def _image(given: Any, place: int) -> Image.Image:
    """The picture of an item. Raises UserError for numbers that are no pixels."""
    import torch

    if isinstance(given, Image.Image):
        return given
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        given = (given.permute(1, 2, 0) if given.ndim == 3 else given).numpy()
    pixels = np.asarray(given)
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"source: the image of item {place} has values from {low:.3g} to {high:.3g}; give images in [0, 1], "
                "before any normalisation (which belongs in the classifier)"
            )
        pixels = (pixels * 255).round().astype(np.uint8)
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise UserError(
            f"source: the image of item {place} is {pixels.dtype} of shape {list(pixels.shape)}; give a PIL image, a "
            "tensor [3, H, W], or an array [H, W, 3]"
        )
    return Image.fromarray(pixels)
