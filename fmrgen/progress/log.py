"""What a job leaves besides its split: JSON lines in a file, and figures for trackers."""

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrgen.errors import UserError, write_line
from fmrgen.progress.bars import Interval, report
from fmrgen.progress.job import Progress, memory_in_use
from fmrgen.records import StopReason

if TYPE_CHECKING:
    from fmrgen.progress.trackers import Trackers


class JobLog(logging.Handler):
    """A file of JSON lines to which a job appends its events; with None as path, nothing is written.

    Each line has `time` (UTC), `host`, `pid` and `rank`, which tell the lines of many processes apart, and `event`.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__()
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

    def emit(self, record: logging.LogRecord) -> None:
        """Append a note."""
        self.write("note", text=record.getMessage())

    @contextmanager
    def outcome(self) -> Iterator[None]:
        """Log what fmrgen notes meanwhile, and the error that ends a job early, which is raised again."""
        notes = logging.getLogger("fmrgen")
        notes.addHandler(self)
        try:
            yield
        except BaseException as error:
            self.write("error", text=str(error) or type(error).__name__)
            raise
        finally:
            notes.removeHandler(self)

    def steps(self) -> Callable[[int, int, float], None]:
        """Return a function of (step, steps, loss) that reports a training's progress, and now and then logs it."""
        is_due = Interval()

        def report_step(step: int, steps: int, loss: float) -> None:
            report("train", step, steps)
            if is_due() or step == steps:
                self.write("progress", step=step, steps=steps, loss=loss)

        return report_step


def job_report(name: str, log: JobLog | None = None, trackers: "Trackers | None" = None) -> Callable[[Progress], None]:
    """Return a function that reports a job's progress, and now and then passes its figures on to a log and trackers."""
    is_due = Interval()
    started: float | None = None  # at the first report: loading the models must not count as work on images

    def report_job(progress: Progress) -> None:
        nonlocal started
        started = started or time.monotonic()
        seconds, made, done = time.monotonic() - started, progress.done - progress.resumed, progress.done
        rate = made / seconds if made and seconds else None
        valid = progress.accepted / done if done else None
        steps = progress.iterations / progress.accepted if progress.accepted else None
        figures = []
        if rate is not None:
            figures.append(f"{rate:.1f} images/s" if rate >= 1 else f"{1 / rate:.1f} s/image")
        if valid is not None:
            figures.append(f"{valid:.1%} valid")
        if steps is not None:
            figures.append(f"{steps:.1f} steps")
        report(name, done, progress.total, ", ".join(figures))
        if not is_due() and done != progress.total:
            return
        measured: dict[str, float | None] = {
            "images_per_second": rate and round(rate, 3),
            "validation_rate": valid and round(100 * valid, 2),  # in percent
            "mean_iterations": steps and round(steps, 3),
            "stuck_rows": progress.ends[StopReason.STUCK],
            "nonfinite_rows": progress.ends[StopReason.NONFINITE],
            "slots": progress.slots,
            "memory_gib": round(memory_in_use() / 2**30, 3),
            "seconds_left": rate and round((progress.total - done) / rate, 1),
        }
        if log is not None:
            log.write("progress", split=name, done=done, total=progress.total, resumed=progress.resumed, **measured)
        if trackers is not None:
            numbers = {name: value for name, value in measured.items() if value is not None}
            trackers.log({"done": done, **numbers}, done)

    return report_job
