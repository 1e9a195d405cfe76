"""How far work is: a bar in a terminal, a line now and then in a log, and JSON lines in a file."""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from fmrgen.errors import UserError, printable, write_line
from fmrgen.progress.job import Progress as JobProgress
from fmrgen.recipe.job import Recipe

_EVERY = 30.0  # seconds between two lines of a log

Update = Callable[[str, int, int | None, str], None]  # of (name, done, total, what else is known)


class JobLog:
    """A file of JSON lines, to which a job's news are added; None is no file.

    Each has `time` (UTC), `host`, `pid` and `rank`, by which lines of many processes are told apart, and `event`.
    """

    def __init__(self, path: Path | None) -> None:
        try:
            self._file = None if path is None else path.open("a", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--log-file {path}: can't be written: {error.strerror}") from None

    def write(self, event: str, **values: Any) -> None:
        if self._file is not None:
            about = {
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "rank": int(os.environ.get("RANK", "0")),
                "event": event,
            }
            try:
                self._file.write(json.dumps({**about, **values}, ensure_ascii=False) + "\n")
                self._file.flush()
            except OSError as error:  # no reason to end a job of days
                write_line(
                    f"--log-file {self._file.name}: can't be written: {error.strerror}; the job goes on without it"
                )
                with suppress(OSError):
                    self._file.close()
                self._file = None

    @contextmanager
    def outcome(self) -> Iterator[None]:
        """Around a job: what ends it early is written down too."""
        try:
            yield
        except BaseException as error:
            self.write("error", text=str(error) or type(error).__name__)
            raise


@contextmanager
def job_progress(recipe: Recipe, show: bool, log: JobLog | None = None) -> Iterator[Callable[[JobProgress], None]]:
    """Progress in images, with images/s, what the oracle accepted and mean iterations."""
    name, is_due = f"{recipe.output.config}/{recipe.output.split}", _EachSoOften()
    started: float | None = None  # by its first news: loading the models is no work on images
    with _progress(show) as update:

        def tell(progress: JobProgress) -> None:
            nonlocal started
            started = started or time.monotonic()
            seconds = time.monotonic() - started
            figures = [_rate(progress.done - progress.resumed, seconds)]
            if progress.done:
                figures.append(f"{progress.accepted / progress.done:.1%} valid")
            if progress.accepted:
                figures.append(f"{progress.iterations / progress.accepted:.1f} steps")
            update(name, progress.done, progress.total, ", ".join(filter(None, figures)))
            if log is not None and (is_due() or progress.done == progress.total):
                counts = {"done": progress.done, "total": progress.total, "resumed": progress.resumed}
                log.write("progress", split=name, **counts, **progress.figures(seconds))

        yield tell


@contextmanager
def step_progress(name: str, show: bool, log: JobLog) -> Iterator[Callable[[int, int, float], None]]:
    """The yielded function takes (step, steps, loss) of a training run."""
    is_due = _EachSoOften()
    with _progress(show) as update:

        def tell(step: int, steps: int, loss: float) -> None:
            update(name, step, steps, "")
            if is_due() or step == steps:
                log.write("progress", step=step, steps=steps, loss=loss)

        yield tell


@contextmanager
def row_progress(name: str, show: bool) -> Iterator[Callable[[int, int | None], None]]:
    """The yielded function takes (done, total or None)."""
    with _progress(show) as update:
        yield lambda done, total: update(name, done, total, "")


@contextmanager
def split_progress(show: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """The yielded function takes (split, done, total or None)."""
    with _progress(show) as update:
        yield lambda split, done, total: update(split, done, total, "")


@contextmanager
def _progress(show: bool) -> Iterator[Update]:
    if not show:
        yield lambda name, done, total, figures: None
    elif sys.stderr.isatty():
        with _bars() as update:
            yield update
    else:
        yield _Lines()


@contextmanager
def _bars() -> Iterator[Update]:
    """A bar for each name, drawn from the first news on, so that a mistake found before it is the only line."""
    bar = BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4))  # the one that gives way
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


class _EachSoOften:
    """Whether it is time again, since the last time it was or since the beginning."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self) -> bool:
        if due := time.monotonic() - self._last >= _EVERY:
            self._last = time.monotonic()
        return due


class _Lines:
    """A line every half minute, and one at the end of each piece of work."""

    def __init__(self) -> None:
        self._is_due = _EachSoOften()
        self._begun: dict[str, tuple[float, int]] = {}
        self._ended: set[str] = set()

    def __call__(self, name: str, done: int, total: int | None, figures: str) -> None:
        now = time.monotonic()
        begun, before = self._begun.setdefault(name, (now, done))
        ends = done == total and name not in self._ended
        if not ends and not self._is_due():
            return
        parts = [f"{name}: {done:,}" + (f" of {total:,}" if total is not None else ""), figures]
        if ends:
            self._ended.add(name)
            parts.append(f"done in {format_duration(now - begun)}")
        elif total is not None and done > before:
            parts.append(f"about {format_duration((now - begun) / (done - before) * (total - done))} left")
        write_line(", ".join(filter(None, parts)))


def format_duration(seconds: float) -> str:
    """`12 s`, `3 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _rate(images: int, seconds: float) -> str:
    """`2.5 images/s`, or `4.0 s/image` where that is below one; nothing before the first image."""
    if not images or not seconds:
        return ""
    return f"{images / seconds:.1f} images/s" if images >= seconds else f"{seconds / images:.1f} s/image"
