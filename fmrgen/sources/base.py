"""The source (X, Y): examples with stable ids, in a fixed order, readable from any position."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from itertools import islice
from numbers import Integral
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field

from fmrgen.config import NAMES_OR_FILE, ComponentConfig
from fmrgen.errors import UserError
from fmrgen.image_files import Fit, open_rgb, resize
from fmrgen.labels import Classes, Labels
from fmrgen.records import Example

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


class SourceConfig(ComponentConfig):
    """The options of every source."""

    classes: Annotated[Classes | None, NAMES_OR_FILE] = Field(
        None, description="names for the classes (or a file of them), or a mapping of name to class ranges"
    )
    shuffle_seed: int | None = Field(None, ge=0, description="shuffle the examples with this seed")
    per_class: int | None = Field(None, ge=1, le=10**12, description="use only this many examples of each class")
    limit: int | None = Field(
        None,
        ge=1,
        le=10**12,
        description="use only this many examples: the first, or spread over all if those would lack classes",
    )
    license: str | None = Field(
        None, pattern=r"^[a-z0-9][a-z0-9.+-]*$", description="licence of its images, as on the Hub: cc-by-4.0, other, …"
    )
    on_error: Literal["fail", "skip"] = Field("fail", description="what to do about an unreadable image")
    fit: Fit = Field(
        "crop", description="crop: shorter side to size, then the centre; squash to a square; or pad with black"
    )

    def whole(self) -> Self:
        """Return the source with all its images: real ones cost a tested network little, so no limit is set to them."""
        return self.model_copy(update={"limit": None, "per_class": None})


class RawExample(NamedTuple):
    """An example as its source holds it.

    Attributes:
        id: stable id within the source.
        image: the open image, or the bytes, path or address of its file.
        label: its label in the job.
        accepted: all true labels of the image, if the source knows several.
        extra: what else the source knows of it, by the names in `Source.columns`; None if those are none.
    """

    id: int
    image: "bytes | str | Image.Image"
    label: int
    accepted: tuple[int, ...] | None = None
    extra: Mapping[str, Any] | None = None


class LoadedExample(NamedTuple):
    """An example at the generator's size.

    Attributes:
        id: stable id within the source.
        image: uint8 RGB, [size, size, 3].
        label: its label in the job.
        accepted: all labels that are true of it, if the source knows several.
        extra: what else the source knows of it, as in `RawExample`.
    """

    id: int
    image: "np.ndarray"
    label: int
    accepted: tuple[int, ...] | None = None
    extra: Mapping[str, Any] | None = None

    def for_engine(self, *, controlled: bool = False) -> Example:
        """Return the example with a float image [3, size, size] in [0, 1]; a `controlled` one also gets a control."""
        from fmrgen.engine.images import to_batch  # brings torch, which a source does not need

        return Example(self.id, to_batch(self.image[None])[0], self.label, controlled, self.accepted)


class SkippedExample(NamedTuple):
    """An example that could not be read, and why."""

    id: int
    reason: str


def label_of_source(labels: Labels, value: Any, example_id: int, key: str = "source.label_column") -> int | None:
    """Return the job's label of a stored label, a class's number or name; None if no group holds it.

    Raises UserError if the value is not a class; `key` is the recipe's key that says where labels are, for that error.
    """
    where = f"source: id {example_id}"
    if isinstance(value, str):
        if labels.groups is None and value in labels.names:
            return labels.names.index(value)
        raise UserError(
            f"{where}: label {value!r} is not one of the {len(labels)} classes; list them under source.classes"
        )
    if value is None:
        raise UserError(f"{where}: has no label; choose a split with labels")
    if not isinstance(value, Integral):
        raise UserError(f"{where}: label {value!r} is not a class index; set {key}")
    try:
        return labels.from_source(int(value))
    except UserError as error:
        raise UserError(f"{where}: {error}, or set {key} to what holds class indices") from None


class Source(ABC):
    """Examples in a fixed order: position i is the same example, with the same id, each time.

    `len(source)` is the number of examples in the job.

    Attributes:
        labels: the labels of the job.
        accepts_several: whether every example has `accepted`, all its true labels.
        columns: what else every example has, in `extra`, and its type: `int64`, `float64` or `string`. Splits store it
            under the same names.
        fit: how images are resized; set from the config when a job builds the source.
        on_error: what to do with an unreadable image; likewise.
    """

    labels: Labels
    accepts_several: bool = False
    columns: Mapping[str, str] = {}
    fit: Fit = "crop"
    on_error: Literal["fail", "skip"] = "fail"

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, start: int, stop: int) -> Iterator[RawExample]:
        """Yield the examples at positions start ≤ i < stop, labelled with `self.labels`."""

    def load(self, start: int, stop: int, size: int) -> Iterator[LoadedExample | SkippedExample]:
        """Yield the examples of `read` with their images as uint8 RGB of `size`×`size` pixels.

        Args:
            start: the first position.
            stop: the position after the last.
            size: side of the images in pixels.

        Yields:
            The examples; a SkippedExample for an image that can't be decoded or is too small, if `on_error` is `skip`.

        Raises:
            UserError: an image can't be decoded or is too small, and `on_error` is `fail`; names its id.
        """
        for example in self.read(start, stop):
            try:
                image = resize(large_enough(open_rgb(example.image)), size, self.fit)
            except UserError as error:
                if self.on_error == "fail":
                    file = f" ({example.image})" if isinstance(example.image, str) else ""
                    raise UserError(
                        f"source: image of id {example.id}{file} is unreadable ({error}); "
                        "repair it, or set source.on_error=skip"
                    ) from None
                yield SkippedExample(example.id, str(error))
            else:
                yield LoadedExample(example.id, image, example.label, example.accepted, example.extra)

    def load_all(self, size: int) -> Iterator[Example]:
        """Yield all examples whose images can be read, in the engine's form."""
        for loaded in self.load(0, len(self), size):
            if isinstance(loaded, LoadedExample):
                yield loaded.for_engine()


def large_enough(image: "Image.Image") -> "Image.Image":
    """Return the image. Raises UserError if it is too small to show anything.

    Placeholders of 1×1 pixels and strips of 5000×3 show no class, however they are resized.
    """
    if min(image.size) < 4:
        raise UserError(f"it has {image.width}×{image.height} pixels; each side needs 4 or more")
    return image


class StreamedSource(Source):
    """Examples that come one after another.

    Position i is reached by reading past the examples before it, only once as long as reads go upwards.
    """

    called = ("the stream ends", "examples")  # words of the error if there are fewer examples than `length`

    def __init__(self, labels: Labels, length: int, accepts_several: bool = False) -> None:
        self.labels = labels
        self.accepts_several = accepts_several
        self.all_count = labels.groups is None and not accepts_several  # every row is an example
        self._length = length
        self._position = 0  # of the next example of `_stream`
        self._stream: Iterator[RawExample] | None = None

    def __len__(self) -> int:
        return self._length

    @abstractmethod
    def _examples(self, start: int) -> Iterator[RawExample]:
        """Yield the examples from the row `start` of the stream on."""

    def read(self, start: int, stop: int) -> Iterator[RawExample]:
        if self._stream is None or start < self._position:
            # If not every row is an example, only reading tells at which row an example is.
            self._position = start if self.all_count else 0
            self._stream = self._examples(self._position)
        stream = self._stream
        try:
            for _ in islice(stream, start - self._position):
                self._position += 1
            while self._position < min(stop, self._length):
                example = next(stream, None)
                if example is None:
                    ends, them = self.called
                    raise UserError(f"source.limit: {ends} after {self._position} {them}; start again with that limit")
                self._position += 1
                yield example
        except UserError:
            self._stream = None  # the iterator has ended: reading again must give the same error
            raise
