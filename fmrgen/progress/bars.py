"""Progress: as bars in a terminal or a notebook, as a line now and then in a log.

Work reports how far it is with `report`; whoever starts it says with `progress_shown` whether that is shown.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import printable, write_line

_EVERY = 30.0  # seconds between two lines of a log

Update = Callable[[str, int, int | None, str], None]  # called with (name, done, total, other figures)

_updates: list[Update | None] = [None]  # the last one counts


def report(name: str, done: int, total: int | None = None, figures: str = "") -> None:
    """Say how far the work of a name is, and other figures of it; `total` is None if it is unknown."""
    update = _updates[-1]
    if update is not None:
        update(name, done, total, figures)


@contextmanager
def progress_shown(show: bool) -> Iterator[None]:
    """Show what is reported inside on stderr, if this is the first process of a launch; else hide it."""
    update: Update | None = None
    if show and is_first_process():
        console = Console(stderr=True, markup=False, emoji=False)
        update = _Bars(console) if sys.stderr.isatty() or console.is_jupyter else _Lines()
    _updates.append(update)
    try:
        yield
    finally:
        _updates.pop()
        if isinstance(update, _Bars):
            update.end()


class _Bars:
    """Draws a bar for each name, from its first call on: an error before any progress is alone on the terminal."""

    def __init__(self, console: Console) -> None:
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),  # the column that shrinks first
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            expand=True,
        )

    def __call__(self, name: str, done: int, total: int | None, figures: str) -> None:
        self._progress.start()
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(printable(name), total=total, figures=figures)
        self._progress.update(self._tasks[name], completed=done, total=total, figures=figures)

    def end(self) -> None:
        """Leave the bars as they are."""
        if self._progress.live.is_started:
            self._progress.stop()


class Interval:
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
        self._is_due = Interval()
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
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
