"""Reports a job that makes a split to trackers: its figures now and then."""

import time

from fmrgen.progress.job import Progress
from fmrgen.progress.trackers import Trackers

_EVERY = 10.0  # seconds between two reports


class TrackedJob:
    """A progress callback that passes figures on to trackers."""

    def __init__(self, trackers: Trackers) -> None:
        self._trackers = trackers
        self._started: float | None = None
        self._reported = 0.0

    def __call__(self, progress: Progress) -> None:
        """Take the progress of a job, and report it if that is due."""
        now = time.monotonic()
        if self._started is None:
            self._started = self._reported = now
        if now - self._reported >= _EVERY or progress.done == progress.total:
            self._reported = now
            figures = {"done": progress.done, **progress.figures(now - self._started)}
            measured = {name: value for name, value in figures.items() if value is not None}
            self._trackers.log(measured, progress.done)
