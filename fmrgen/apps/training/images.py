"""The images of a training run, read as they are needed and in an order that only seed and step decide."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fmrgen.errors import UserError
from fmrgen.sources.base import LoadedExample, Source, StreamedSource

_WINDOW_BYTES = 256 * 2**20  # of decoded images that are in memory together, twice where a batch lies in two windows
_ORDERS_KEPT = 4
_Window = tuple[Tensor, Tensor, Tensor]  # uint8 [N, 3, H, W], labels [N] and ids [N]


class TrainingImages:
    """Batches of a source without end, each example once in an epoch.

    The source is cut into windows of consecutive examples. An epoch takes the windows in random order (those of a
    stream in their own), and the examples of a window in random order. So no more than two windows are in memory, and
    the batch of any step can be found without those before it.
    """

    def __init__(self, source: Source, size: int, seed: int) -> None:
        """Images of the side `size` in pixels; `seed` decides all orders."""
        if not len(source):
            raise UserError("source: contains no examples to train on")
        self.source, self.size, self.seed = source, size, seed
        window = max(1, _WINDOW_BYTES // (3 * size * size))
        self.windows = [range(start, min(start + window, len(source))) for start in range(0, len(source), window)]
        self._loaded: dict[int, _Window] = {}
        self._orders: dict[tuple[int, int, int], np.ndarray] = {}

    def batches(self, first: int, size: int, rank: int, processes: int) -> Iterator[_Window]:
        """From the step `first` on, of each step's `size` images those of one process.

        Yields uint8 [B, 3, H, W], labels [B] and ids [B].
        """
        step = first
        while True:
            rows = [self._position(place) for place in range(step * size + rank, (step + 1) * size, processes)]
            yield _stacked([self._example(window, row) for window, row in rows])
            step += 1

    def sample(self, count: int) -> _Window:
        """Some of the images, drawn by torch's own state: uint8 [N, 3, H, W], labels [N] and ids [N]."""
        chosen = torch.randperm(len(self.source))[:count].tolist()
        window = self.windows[0].stop
        parts = [self._example(position // window, position % window) for position in sorted(chosen)]
        return _stacked([parts[row] for row in torch.randperm(len(parts)).tolist()])

    def _position(self, place: int) -> tuple[int, int]:
        """The window, and the row in it, of the example at a place in the endless order."""
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
        """An order of so many rows, the same each time; the last ones asked for are remembered."""
        key = (rows, epoch, window)
        if key not in self._orders:
            if len(self._orders) >= _ORDERS_KEPT:
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
    images, labels, ids = (torch.stack(values) for values in zip(*examples, strict=True))
    return images, labels, ids


def load_images(source: Source, positions: range, size: int) -> _Window:
    """Decoded examples: uint8 [N, 3, H, W], labels [N] and ids [N].

    For one that can't be read the next one that can, so that there are as many as positions.

    Raises UserError where none of them can be read, or one can't and `source.on_error` is `fail`.
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
    return images, torch.tensor([e.label for e in examples]), torch.tensor([e.id for e in examples])
