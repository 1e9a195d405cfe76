"""What trackers get from a job that makes a split: its figures now and then, and a few images."""

import time

import numpy as np

from fmrgen.progress.job import Progress
from fmrgen.progress.trackers import Trackers
from fmrgen.records import Perturbed

_EVERY = 10.0  # seconds between two reports
_SHOWN = 8  # images in each


class TrackedJob:
    """Takes a job's progress, and reports it."""

    def __init__(self, trackers: Trackers) -> None:
        self._trackers = trackers
        self._started: float | None = None
        self._reported = 0.0
        self._fooled: list[Perturbed] = []  # valid rows of which the classifier is wrong, since the last report

    def __call__(self, progress: Progress) -> None:
        """Notes where the job is."""
        now = time.monotonic()
        if self._started is None:
            self._started = self._reported = now
        row = progress.row
        if row is not None and row.valid and not row.accepts(row.prediction) and len(self._fooled) < _SHOWN:
            self._fooled.append(row)
        if now - self._reported >= _EVERY or progress.done == progress.total:
            self._reported = now
            figures = {"done": progress.done, **progress.figures(now - self._started)}
            self._trackers.log({name: value for name, value in figures.items() if value is not None}, progress.done)
            if self._fooled:
                pairs = [np.concatenate([_pixels(row.original), _pixels(row.image)], axis=1) for row in self._fooled]
                self._trackers.show("original and perturbed, misclassified", pairs, progress.done)
                self._fooled.clear()


def _pixels(image: "object") -> np.ndarray:
    """[H, W, 3] of an image [3, H, W]."""
    pixels: np.ndarray = np.asarray(image).transpose(1, 2, 0)
    return pixels
