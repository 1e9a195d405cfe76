"""The images of a training run, read as they are needed, in an order that depends on seed and step alone."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count

import numpy as np
import torch
from torch import Tensor

from fmrgen.errors import UserError
from fmrgen.sources.base import LoadedExample, Source, StreamedSource

_WINDOW_BYTES = 256 * 2**20  # of decoded images in memory; twice as many if a batch lies in two windows
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
        self.window_size = max(1, _WINDOW_BYTES // (3 * size * size))
        self._loaded: dict[int, _Window] = {}  # windows by their first position
        self._order = lru_cache(2)(self._order_of)  # a batch may lie in two epochs

    def batches(self, first: int, size: int, rank: int, processes: int) -> Iterator[_Window]:
        """Yield one process's share of the batch of each step: uint8 [B, 3, H, W], labels [B] and ids [B].

        `first` is the first step, and `size` that of a whole batch.
        """
        for step in count(first):
            positions = []
            for place in range(step * size + rank, (step + 1) * size, processes):
                epoch, place_in_epoch = divmod(place, len(self.source))
                positions.append(int(self._order(epoch)[place_in_epoch]))
            yield self._examples(positions)

    def sample(self, rows: int) -> _Window:
        """Return some of the images, drawn by torch's global state: uint8 [N, 3, H, W], labels [N] and ids [N]."""
        chosen = torch.randperm(len(self.source))[:rows].tolist()
        images, labels, ids = self._examples(sorted(chosen))  # in the source's order: each window is read once
        order = torch.randperm(len(chosen))
        return images[order], labels[order], ids[order]

    def _order_of(self, epoch: int) -> np.ndarray:
        """Return the positions of the examples in the order of an epoch."""
        windows = np.split(np.arange(len(self.source)), range(self.window_size, len(self.source), self.window_size))
        of_windows, *others = (np.random.default_rng([self.seed, epoch, i]) for i in range(len(windows) + 1))
        shown = [random.permutation(window) for random, window in zip(others, windows, strict=True)]
        if not isinstance(self.source, StreamedSource):
            shown = [shown[number] for number in of_windows.permutation(len(shown))]
        return np.concatenate(shown)

    def _examples(self, positions: Sequence[int]) -> _Window:
        images, labels, ids = map(torch.stack, zip(*map(self._example, positions), strict=True))
        return images, labels, ids

    def _example(self, position: int) -> list[Tensor]:
        row = position % self.window_size
        start = position - row
        if start not in self._loaded:
            while len(self._loaded) > 1:
                self._loaded.pop(next(iter(self._loaded)))
            positions = range(start, min(start + self.window_size, len(self.source)))
            self._loaded[start] = load_images(self.source, positions, self.size)
        return [column[row].clone() for column in self._loaded[start]]  # a view would keep the whole window


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
