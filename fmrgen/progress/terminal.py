"""Shows progress: as bars in a terminal, as a line now and then in a log, and as JSON lines in a file."""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from fmrgen.errors import UserError, printable, write_line

if TYPE_CHECKING:
    from fmrgen.progress.job import Progress as JobProgress
    from fmrgen.progress.trackers import Trackers
    from fmrgen.recipe.job import Recipe

_EVERY = 30.0  # seconds between two lines of a log
_LONG_SECONDS = 90  # from here on a duration is given in minutes
_LONG_MINUTES = 90  # and from here on in hours and minutes

Update = Callable[[str, int, int | None, str], None]  # called with (name, done, total, other figures)


class JobLog:
    """A file of JSON lines to which a job appends its events; with None as path, nothing is written.

    Each line has `time` (UTC), `host`, `pid` and `rank`, which tell the lines of many processes apart, and `event`.
    """

    def __init__(self, path: Path | None) -> None:
        try:
            self._file = None if path is None else path.open("a", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--log-file {path}: can't be written: {error.strerror}") from None

    def write(self, event: str, **values: Any) -> None:
        """Append an event with its values. A failure ends the log, not the job."""
        if self._file is None:
            return
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "rank": int(os.environ.get("RANK", "0")),
            "event": event,
            **values,
        }
        try:
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:  # no reason to end a job of days
            write_line(f"--log-file {self._file.name}: can't be written: {error.strerror}; the job goes on without it")
            with suppress(OSError):
                self._file.close()
            self._file = None

    @contextmanager
    def outcome(self) -> Iterator[None]:
        """Log the error that ends a job early, and raise it again."""
        try:
            yield
        except BaseException as error:
            self.write("error", text=str(error) or type(error).__name__)
            raise


@contextmanager
def job_progress(
    recipe: "Recipe", show: bool, log: JobLog | None = None, trackers: "Trackers | None" = None
) -> "Iterator[Callable[[JobProgress], None]]":
    """Yield a function that shows a job's progress, and now and then passes its figures on to a log and trackers."""
    name = f"{recipe.output.config}/{recipe.output.split}"
    is_due = _Interval()
    started: float | None = None  # at the first report: loading the models must not count as work on images
    with _progress(show) as update:

        def report(progress: "JobProgress") -> None:
            nonlocal started
            started = started or time.monotonic()
            seconds = time.monotonic() - started
            figures = [_rate(progress.done - progress.resumed, seconds)]
            if progress.done:
                figures.append(f"{progress.accepted / progress.done:.1%} valid")
            if progress.accepted:
                figures.append(f"{progress.iterations / progress.accepted:.1f} steps")
            update(name, progress.done, progress.total, ", ".join(filter(None, figures)))
            if is_due() or progress.done == progress.total:
                measured = progress.figures(seconds)
                if log is not None:
                    counts = {"done": progress.done, "total": progress.total, "resumed": progress.resumed}
                    log.write("progress", split=name, **counts, **measured)
                if trackers is not None:
                    numbers = {name: value for name, value in measured.items() if value is not None}
                    trackers.log({"done": progress.done, **numbers}, progress.done)

        yield report


@contextmanager
def step_progress(name: str, show: bool, log: JobLog) -> Iterator[Callable[[int, int, float], None]]:
    """Yield a function of (step, steps, loss) that shows and logs the progress of a training run."""
    is_due = _Interval()
    with _progress(show) as update:

        def report(step: int, steps: int, loss: float) -> None:
            update(name, step, steps, "")
            if is_due() or step == steps:
                log.write("progress", step=step, steps=steps, loss=loss)

        yield report


@contextmanager
def row_progress(name: str, show: bool) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function of (done, total or None) that shows the progress of one piece of work."""
    with _progress(show) as update:
        yield lambda done, total: update(name, done, total, "")


@contextmanager
def split_progress(show: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield a function of (split, done, total or None) that shows the progress of each split."""
    with _progress(show) as update:
        yield lambda split, done, total: update(split, done, total, "")


@contextmanager
def _progress(show: bool) -> Iterator[Update]:
    """Yield a function that shows progress the way stderr can: as bars, as lines, or not at all."""
    if not show:
        yield lambda name, done, total, figures: None
    elif sys.stderr.isatty():
        with _bars() as update:
            yield update
    else:
        yield _Lines()


@contextmanager
def _bars() -> Iterator[Update]:
    """Yield a function that draws a bar for each name, from its first call on.

    So an error that comes before any progress is the only line on the terminal.
    """
    bar = BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4))  # the column that shrinks first
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        bar,
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True, markup=False, emoji=False),
        expand=True,
    )
    tasks: dict[str, TaskID] = {}

    def update(name: str, done: int, total: int | None, figures: str) -> None:
        progress.start()
        if name not in tasks:
            tasks[name] = progress.add_task(printable(name), total=total, figures=figures)
        progress.update(tasks[name], completed=done, total=total, figures=figures)

    try:
        yield update
    finally:
        if progress.live.is_started:
            progress.stop()


class _Interval:
    """Called, it returns whether `_EVERY` seconds have passed since it last returned True, or since it was made."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self) -> bool:
        is_due = time.monotonic() - self._last >= _EVERY
        if is_due:
            self._last = time.monotonic()
        return is_due


class _Lines:
    """Prints a line every half minute, and one at the end of each piece of work."""

    def __init__(self) -> None:
        self._is_due = _Interval()
        self._first_reports: dict[str, tuple[float, int]] = {}  # time and number done, by name
        self._ended: set[str] = set()

    def __call__(self, name: str, done: int, total: int | None, figures: str) -> None:
        now = time.monotonic()
        start_time, start_done = self._first_reports.setdefault(name, (now, done))
        ends = done == total and name not in self._ended
        if not ends and not self._is_due():
            return
        line = f"{name}: {done:,}"
        if total is not None:
            line += f" of {total:,}"
        if figures:
            line += f", {figures}"
        if ends:
            self._ended.add(name)
            line += f", done in {format_duration(now - start_time)}"
        elif total is not None and done > start_done:
            seconds_left = (now - start_time) / (done - start_done) * (total - done)
            line += f", about {format_duration(seconds_left)} left"
        write_line(line)


def format_duration(seconds: float) -> str:
    """Return a duration as `12 s`, `3 min` or `2 h 5 min`."""
    if seconds < _LONG_SECONDS:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < _LONG_MINUTES:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _rate(images: int, seconds: float) -> str:
    """Return a rate as `2.5 images/s`, or `4.0 s/image` below one a second; "" before the first image."""
    if not images or not seconds:
        return ""
    if images >= seconds:
        return f"{images / seconds:.1f} images/s"
    return f"{seconds / images:.1f} s/image"
