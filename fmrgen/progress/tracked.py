"""Reports a job that makes a split to trackers: its figures now and then, and a few images."""

import time

import numpy as np

from fmrgen.progress.job import Progress
from fmrgen.progress.trackers import Trackers
from fmrgen.records import Perturbed

_EVERY = 10.0  # seconds between two reports
_MOST_IMAGES = 8  # of a report


class TrackedJob:
    """A progress callback that passes figures and misclassified images on to trackers."""

    def __init__(self, trackers: Trackers) -> None:
        self._trackers = trackers
        self._started: float | None = None
        self._reported = 0.0
        self._misclassified: list[Perturbed] = []  # valid rows since the last report, at most `_MOST_IMAGES`

    def __call__(self, progress: Progress) -> None:
        """Take the progress of a job, and report it if that is due."""
        now = time.monotonic()
        if self._started is None:
            self._started = self._reported = now
        row = progress.row
        if row is not None and row.valid and not row.accepts(row.prediction):
            self._misclassified.append(row)
            del self._misclassified[_MOST_IMAGES:]
        if now - self._reported >= _EVERY or progress.done == progress.total:
            self._reported = now
            self._report(progress, now - self._started)

    def _report(self, progress: Progress, seconds: float) -> None:
        figures = {"done": progress.done, **progress.figures(seconds)}
        measured = {name: value for name, value in figures.items() if value is not None}
        self._trackers.log(measured, progress.done)
        if not self._misclassified:
            return
        pairs = []
        for row in self._misclassified:
            pairs.append(np.concatenate([_pixels(row.original), _pixels(row.image)], axis=1))
        self._trackers.show("original and perturbed, misclassified", pairs, progress.done)
        self._misclassified.clear()


def _pixels(image: object) -> np.ndarray:
    """Return an image [3, H, W] as [H, W, 3]."""
    pixels: np.ndarray = np.asarray(image).transpose(1, 2, 0)
    return pixels
