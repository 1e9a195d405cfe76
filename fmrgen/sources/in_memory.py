"""A dataset that was handed over as an object in Python: one of `datasets`, or any of torch that has a length."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
from PIL import Image
from pydantic import PrivateAttr

from fmrgen.config import called
from fmrgen.errors import UserError, one_line
from fmrgen.image_files import open_rgb
from fmrgen.labels import Labels, make_labels
from fmrgen.sources import datasets as of_datasets
from fmrgen.sources.base import RawExample, Source, SourceConfig, label_of_source

_READ_TWICE = 16  # examples, spread over a dataset, that show whether it gives the same images again
_COMPARED = 256  # examples of a large dataset whose images distinguish it from another
# Up to so many examples a dataset is not large: all its images are compared.
_MOST_DECODED = 2_000
_MOST_ENCODED = 20_000
_ARRAYS = ("data", "tensors", "images")  # attributes in which datasets hold their images, as torchvision's do


class Config(SourceConfig):
    """`target` is the class of the dataset, `examples` its length, `sample_sha256` the digest of its content.

    The digest is of all labels and of the images: of all if there are up to 20,000 in a `datasets.Dataset`, or 2,000
    elsewhere. Of larger datasets it is of 256 images that are spread over the dataset, and of the arrays that hold the
    images, if there are any. Changes of other images in a large dataset are not noticed; `sampling_note` says so.

    Give `of` a `datasets.Dataset` with a column of images and a column of labels, or anything with `len()` whose items
    are (image, label): images of PIL, uint8 arrays [H, W, 3], tensors [3, H, W] in [0, 1], or uint8 tensors.
    """

    PLACES = ()

    kind: str = "in_memory"
    target: str
    examples: int
    sample_sha256: str
    _held: Any = PrivateAttr(None)
    _is_sampled: bool = PrivateAttr(False)

    @classmethod
    def of(
        cls, dataset: Any, class_names: list[str] | None = None, else_names: Callable[[], list[str]] = list
    ) -> "Config":
        """Return the section of a `datasets.Dataset`, or of a dataset of torch that has a length.

        Its classes are called `class_names`, None to take the dataset's own names; `else_names` returns the names to
        use if neither is there. Raises UserError if it is not a dataset.
        """
        if class_names is None and not _names_its_classes(dataset):
            class_names = else_names() or None
        source = _open(dataset, class_names)
        section = cls(
            target=called(dataset),
            examples=len(source),
            sample_sha256=_content_sha256(source, dataset),
            classes=class_names,
        )
        section._held = source
        section._is_sampled = len(_compared_places(source)) < len(source) and not _arrays_of(dataset)
        return section

    def sampling_note(self) -> str | None:
        """Return a note if not all images went into the digest, else None."""
        if not self._is_sampled:
            return None
        return (
            f"source: {_COMPARED} of its {self.examples} images are compared between runs, and all labels; if you "
            "change any image, start a new output folder"
        )

    def build(self, device: object = "cpu") -> Source:
        if self._held is None:
            raise UserError(
                f"source: the {self.target} was an object in the memory of the process that generated the split; hand "
                "it over in Python"
            )
        return self._held


def _open(dataset: Any, class_names: list[str] | None) -> "of_datasets.StoredDataset | ItemsSource":
    """Return the source of a dataset. Raises UserError if it is a stream, several splits, or not a dataset."""
    import datasets

    if isinstance(dataset, datasets.Dataset):
        if dataset.format["type"] == "custom":
            raise UserError(
                "source: the dataset has a transform (with_transform, set_transform), which would be left out; apply it"
                " by map(), or take it off by with_format(None)"
            )
        section = of_datasets.Config(path=".", classes=class_names)  # its images may lie anywhere
        return cast(of_datasets.StoredDataset, section.open(dataset))
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
        text = datasets.Value("string")
        return any(isinstance(feature, datasets.ClassLabel) or feature == text for feature in dataset.features.values())
    return getattr(dataset, "classes", None) is not None


def _content_sha256(source: "of_datasets.StoredDataset | ItemsSource", dataset: Any) -> str:
    """Return a digest of the classes, of all labels, and of the images, as far as `Config` says.

    Raises UserError if images differ when they are read again.
    """
    for place in _spread(len(source), _READ_TWICE):
        if _content_at(source, place) != _content_at(source, place):
            raise UserError(
                "source: gives other images when it is read again; turn off what is random in it (augmentation)"
            )
    digest = hashlib.sha256(repr((len(source), source.labels, source.row_labels)).encode())
    places = _compared_places(source)
    if len(places) < len(source):
        for array in _arrays_of(dataset):
            digest.update(np.ascontiguousarray(array).data)
    for place in places:
        digest.update(_content_at(source, place, is_decoded=isinstance(source, ItemsSource)))
    return digest.hexdigest()


def _arrays_of(dataset: Any) -> list[Any]:
    """Return the arrays in which a dataset holds its images, as torchvision's do; [] if it holds none."""
    import datasets

    if isinstance(dataset, datasets.Dataset):  # its `data` is a table of files
        return []
    arrays = [getattr(dataset, name, None) for name in _ARRAYS]
    return [array for array in arrays if array is not None]


def _compared_places(source: "of_datasets.StoredDataset | ItemsSource") -> list[int]:
    """Return the places whose images go into the digest: all, or of a large dataset 256."""
    most = _MOST_DECODED if isinstance(source, ItemsSource) else _MOST_ENCODED
    return _spread(len(source), len(source) if len(source) <= most else _COMPARED)


def _spread(examples: int, most: int) -> list[int]:
    """Return up to `most` places that are spread over so many examples."""
    if not examples:
        return []
    return sorted({index * examples // most for index in range(most)})


def _content_at(source: Source, place: int, *, is_decoded: bool = True) -> bytes:
    """Return the id, the label and the image at a place: 8-bit RGB if it `is_decoded`, else the bytes of its file.

    Empty if the label is not in the job. Raises UserError if the image is unreadable.
    """
    content = b""
    for example in source.read(place, place + 1):
        image = example.image
        if is_decoded or not isinstance(image, bytes):
            try:
                image = open_rgb(image).tobytes()
            except UserError as error:
                raise UserError(f"source: image of id {example.id} is unreadable ({error}); repair it") from None
        content = f"{example.id} {example.label} ".encode() + image
    return content


class ItemsSource(Source):
    """A dataset whose items are (image, label); the place of an item is its id.

    `row_labels` are the labels of all items, in their order; None for an item of no class of the job.
    """

    def __init__(self, dataset: Any, class_names: list[str] | None) -> None:
        self._dataset = dataset
        stored_labels = self._targets()
        if stored_labels is None:
            stored_labels = [self._item(place)[1] for place in range(len(self))]
        self._numbers = [_number(label, place) for place, label in enumerate(stored_labels)]
        names = class_names or getattr(dataset, "classes", None)
        if not names:
            names = range(max(self._numbers, default=-1) + 1)
        self.labels: Labels = make_labels([str(name) for name in names], None)
        numbers = enumerate(self._numbers)
        key = "the dataset's labels"
        self.row_labels = [label_of_source(self.labels, number, place, key) for place, number in numbers]

    def _targets(self) -> Any:
        """Return the labels that the dataset lists, which saves reading all items; None if its items have others.

        torchvision lists its labels as they are before `target_transform`.
        """
        targets = getattr(self._dataset, "targets", None)
        if targets is None or len(targets) != len(self):
            return None
        transforms = getattr(self._dataset, "transforms", None)  # of torchvision: both transforms, or one of the pair
        pair_transform = getattr(transforms, "target_transform", transforms)
        if pair_transform is not None or getattr(self._dataset, "target_transform", None) is not None:
            return None
        for place in _spread(len(self), _READ_TWICE):
            if _number(targets[place], place) != _number(self._item(place)[1], place):
                return None
        return targets

    def _item(self, place: int) -> tuple[Any, Any]:
        """Return the image and the label at a place. Raises UserError if the dataset does not give them."""
        try:
            image, label = self._dataset[place]
            return image, label
        except Exception as error:  # the dataset may run any code
            raise UserError(
                f"source: item {place} of the {type(self._dataset).__name__} is not (image, label), the label a "
                f"number: {type(error).__name__}: {one_line(error)}"
            ) from None

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, start: int, stop: int) -> Iterator[RawExample]:
        for place in range(start, min(stop, len(self))):
            label = self.row_labels[place]
            if label is None:
                continue
            image, stored_label = self._item(place)
            if _number(stored_label, place) != self._numbers[place]:
                raise UserError(
                    f"source: item {place} has the label {stored_label}, and the dataset's targets say "
                    f"{self._numbers[place]}; remove its attribute targets, or correct it"
                )
            yield RawExample(place, _image(image, place), label)


def _number(label: Any, place: int) -> int:
    """Return an item's label as the number of a class. Raises UserError if it is not a whole number."""
    try:
        value = label.item()  # of numpy and torch
    except (AttributeError, ValueError, RuntimeError):
        value = label
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_whole:
        text = " ".join(repr(value).split())[:40]
        raise UserError(f"source: the label of item {place} is {text}; give classes as numbers, from 0")
    return int(value)


def _image(image: Any, place: int) -> Image.Image:
    """Return an item's image as one of PIL. Raises UserError if its numbers are not pixels."""
    import torch

    if isinstance(image, Image.Image):
        return image
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        if image.ndim == 3:
            image = image.permute(1, 2, 0)
        image = image.numpy()
    pixels = np.asarray(image)
    if pixels.size == 0:
        raise UserError(f"source: the image of item {place} has no pixels (shape {list(pixels.shape)}); leave it out")
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"source: the image of item {place} has values from {low:.3g} to {high:.3g}; give images in [0, 1], "
                "before any normalisation (which belongs in the classifier)"
            )
        pixels = (pixels * 255).round().astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise UserError(
            f"source: the image of item {place} is {pixels.dtype} of shape {list(pixels.shape)}; give a PIL image, a "
            "tensor [3, H, W], or an array [H, W, 3]"
        )
    return Image.fromarray(pixels)
