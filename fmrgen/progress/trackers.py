"""Trackers of a job, which accelerate knows: TensorBoard, Weights & Biases, Trackio, MLflow and others.

Each is in a process of its own, which is fed through a pipe. Whatever happens there, to a disk, a network or the
tracker's own threads, ends that process and not the job.
"""

import base64
import io
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fmrgen.errors import UserError, one_line, option

if TYPE_CHECKING:
    import numpy as np

_LAST_WORDS = 30.0  # seconds that a tracker has at the end
_UNSENT = 1000  # news that may wait for a tracker; later ones are lost
_OF_A_LAUNCH = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Trackers:
    """What takes a job's figures and images, and passes them on to all trackers."""

    def __init__(self, trackers: "list[_Tracker]") -> None:
        self._trackers = trackers

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Figures by their names; does not wait."""
        self._send({"figures": dict(figures), "step": step})

    def show(self, name: str, images: "Sequence[np.ndarray]", step: int) -> None:
        """Images, uint8 [H, W, 3], under a name; does not wait."""
        if self._trackers:
            self._send({"images": name, "png": [_png(image) for image in images], "step": step})

    def _send(self, news: Mapping[str, Any]) -> None:
        for tracker in self._trackers:
            tracker.send(news)


@contextmanager
def tracking(
    names: Sequence[str],
    config: Mapping[str, object],
    folder: Path,
    on_note: Callable[[str], None] = lambda line: None,
) -> Iterator[Trackers]:
    """Trackers while a job runs.

    Args:
        names: of accelerate's trackers.
        config: what the job does, to be shown beside its figures.
        folder: where trackers keep what is on this machine.
        on_note: called with a line on a tracker that failed.

    Yields:
        What takes the figures.

    Raises:
        UserError: accelerate knows no such tracker, or it is not installed. What goes wrong later is a note.
    """
    _check_known(names)
    trackers = [_Tracker(name, folder, config) for name in names]
    try:
        yield Trackers(trackers)
    finally:
        for tracker in trackers:
            tracker.end()
        for tracker in trackers:
            if (trouble := tracker.trouble()) is not None:
                on_note(f"{option('log-with', 'trackers')} {tracker.name}: {trouble}; the job went on without it")


def _check_known(names: Sequence[str]) -> None:
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known, available = {str(name) for name in LOGGER_TYPE_TO_CLASS}, {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in known:
            raise UserError(
                f"{option('log-with', 'trackers')}: no tracker {name}; there are {', '.join(sorted(known))}"
            )
        if name not in available:
            raise UserError(f"{option('log-with', 'trackers')}: {name} is not installed; pip install {name}")


class _Tracker:
    """A tracker's process, and the thread that writes to it."""

    def __init__(self, name: str, folder: Path, config: Mapping[str, object]) -> None:
        self.name = name
        self._news: queue.Queue[bytes | None] = queue.Queue(_UNSENT)
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / f"{name}.log"
        self._trouble: str | None = None
        env = {key: value for key, value in os.environ.items() if key not in _OF_A_LAUNCH}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._log.open("wb") as log:
                # -P: what lies in the folder is nothing to be imported. Trackers keep their files where they stand.
                command = [sys.executable, "-P", "-m", "fmrgen.progress.trackers", name, str(2 * _LAST_WORDS)]
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env, cwd=folder, start_new_session=True
                )
        except OSError as error:
            self._trouble = one_line(error)
            return
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()
        self.send({"config": _flat(config)})

    def send(self, news: Mapping[str, Any]) -> None:
        with suppress(queue.Full):
            self._news.put_nowait(json.dumps(news).encode() + b"\n")

    def end(self) -> None:
        """Asks it to end."""
        with suppress(queue.Full):
            self._news.put_nowait(None)

    def trouble(self) -> str | None:
        """Waits for its end; returns what went wrong, None where nothing did."""
        if self._process is None:
            return self._trouble
        try:
            self._thread.join(_LAST_WORDS)
            status = self._process.wait(_LAST_WORDS if not self._thread.is_alive() else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return "does not answer"
        if status == 0:
            return None
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:160] if lines else f"ended with status {status}"

    def _write(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended, and its log says why
            while (news := self._news.get()) is not None:
                self._process.stdin.write(news)
                self._process.stdin.flush()
        with suppress(OSError):
            self._process.stdin.close()


def _flat(tree: Mapping[str, object], place: str = "") -> dict[str, str]:
    """A recipe's keys as `section.key`, its values as words: what all trackers take."""
    found: dict[str, str] = {}
    for name, value in tree.items():
        inner = f"{place}{name}"
        found |= _flat(value, f"{inner}.") if isinstance(value, Mapping) else {inner: str(value)}
    return found


def _png(image: "np.ndarray") -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _end_with(news: IO[bytes], patience: float) -> None:
    """Ends this process `patience` seconds after its job, whatever the tracker waits for."""
    closed = select.poll()
    closed.register(news, 0)  # for nothing but its other end
    closed.poll()
    time.sleep(patience)
    os._exit(1)


def _serve(name: str, news: IO[bytes], patience: float) -> None:
    """The tracker's process: starts it, and passes on what comes until there is no more."""
    threading.Thread(target=_end_with, args=(news, patience), daemon=True).start()

    import numpy as np
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS
    from PIL import Image

    PartialState(cpu=True)  # accelerate's own log asks for it
    kind = LOGGER_TYPE_TO_CLASS[name]
    tracker = kind("fmrgen", logging_dir=".") if kind.requires_logging_directory else kind("fmrgen")
    tracker.start()
    for line in news:
        message = json.loads(line)
        if "config" in message:
            tracker.store_init_configuration(message["config"])
        elif "figures" in message:
            tracker.log(message["figures"], step=message["step"])
        elif hasattr(tracker, "log_images"):
            images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in message["png"]]
            form = {"dataformats": "NHWC"} if name == "tensorboard" else {}
            tracker.log_images({message["images"]: np.stack(images)}, step=message["step"], **form)
    tracker.finish()


if __name__ == "__main__":
    _serve(sys.argv[1], sys.stdin.buffer, float(sys.argv[2]))
