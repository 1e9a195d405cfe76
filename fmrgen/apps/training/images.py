"""The images of a training run, read as they are needed, in an order that depends on seed and step alone."""

from collections.abc import Iterator
from itertools import count

import numpy as np
import torch
from torch import Tensor

from fmrgen.errors import UserError
from fmrgen.sources.base import LoadedExample, Source, StreamedSource

_WINDOW_BYTES = 256 * 2**20  # of decoded images in memory; twice as many if a batch lies in two windows
_MAX_ORDERS = 4  # in memory
_Window = tuple[Tensor, Tensor, Tensor]  # uint8 [N, 3, H, W], labels [N] and ids [N]


class TrainingImages:
    """Endless batches of a source, with each example once in an epoch. Images have a side of `size` pixels.

    The source is cut into windows of consecutive examples. An epoch takes the windows in random order (those of a
    stream in the stream's order), and the examples of a window in random order. So at most two windows are in memory,
    and the batch of any step can be found without the batches before it.
    """

    def __init__(self, source: Source, size: int, seed: int) -> None:
        if not len(source):
            raise UserError("source: contains no examples to train on")
        self.source, self.size, self.seed = source, size, seed
        window = max(1, _WINDOW_BYTES // (3 * size * size))
        starts = range(0, len(source), window)
        self.windows = [range(start, min(start + window, len(source))) for start in starts]
        self._loaded: dict[int, _Window] = {}
        self._orders: dict[tuple[int, int, int], np.ndarray] = {}

    def batches(self, first: int, size: int, rank: int, processes: int) -> Iterator[_Window]:
        """Yield one process's share of the batch of each step: uint8 [B, 3, H, W], labels [B] and ids [B].

        `first` is the first step, and `size` that of a whole batch.
        """
        for step in count(first):
            places = range(step * size + rank, (step + 1) * size, processes)
            yield _stacked([self._example(*self._position(place)) for place in places])

    def sample(self, rows: int) -> _Window:
        """Return some of the images, drawn by torch's global state: uint8 [N, 3, H, W], labels [N] and ids [N]."""
        chosen = torch.randperm(len(self.source))[:rows].tolist()
        window_size = len(self.windows[0])
        # In the order of the source, so that each window is read once.
        examples = [self._example(*divmod(position, window_size)) for position in sorted(chosen)]
        return _stacked([examples[row] for row in torch.randperm(len(examples)).tolist()])

    def _position(self, place: int) -> tuple[int, int]:
        """Return the window, and the row in it, of the example at a place in the endless order."""
        epoch, place = divmod(place, len(self.source))
        for window in self._order_of_windows(epoch):
            rows = len(self.windows[window])
            if place < rows:
                return window, int(self._shuffled(rows, epoch, window)[place])
            place -= rows
        raise AssertionError

    def _order_of_windows(self, epoch: int) -> list[int]:
        if isinstance(self.source, StreamedSource):
            return list(range(len(self.windows)))
        return [int(window) for window in self._shuffled(len(self.windows), epoch, -1)]

    def _shuffled(self, rows: int, epoch: int, window: int) -> np.ndarray:
        """Return a random order of `rows` rows, the same for each epoch and window; the latest are cached."""
        key = (rows, epoch, window)
        if key not in self._orders:
            if len(self._orders) >= _MAX_ORDERS:
                self._orders.clear()
            self._orders[key] = np.random.default_rng([self.seed, epoch, window + 1]).permutation(rows)
        return self._orders[key]

    def _example(self, window: int, row: int) -> _Window:
        if window not in self._loaded:
            while len(self._loaded) > 1:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[window] = load_images(self.source, self.windows[window], self.size)
        images, labels, ids = self._loaded[window]
        return images[row].clone(), labels[row], ids[row]  # a view would keep the whole window


def _stacked(examples: list[_Window]) -> _Window:
    images, labels, ids = zip(*examples, strict=True)
    return torch.stack(images), torch.stack(labels), torch.stack(ids)


def load_images(source: Source, positions: range, size: int) -> _Window:
    """Return decoded examples of `size` × `size` pixels: uint8 [N, 3, H, W], labels [N] and ids [N].

    An example that can't be read is replaced by the next one that can, so that there are as many as positions. Raises
    UserError if none of them can be read, or one can't and `source.on_error` is `fail`.
    """
    examples: list[LoadedExample] = []
    missing = 0
    for loaded in source.load(positions.start, positions.stop, size):
        if isinstance(loaded, LoadedExample):
            examples += [loaded] * (1 + missing)
            missing = 0
        else:
            missing += 1
    if not examples:
        raise UserError("source: none of its images can be read; see source.on_error")
    examples += [examples[-1]] * missing
    images = torch.from_numpy(np.stack([example.image for example in examples])).permute(0, 3, 1, 2)
    labels = torch.tensor([example.label for example in examples])
    return images, labels, torch.tensor([example.id for example in examples])
