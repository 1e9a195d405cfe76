"""Trackers of a job, as accelerate has them: TensorBoard, Weights & Biases, Trackio, MLflow and others.

Each runs in a process of its own, which is fed through a pipe. A failure there, of a disk, a network or the tracker's
own threads, ends that process and not the job.
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
_MOST_UNSENT = 1000  # messages that may wait for a tracker; later ones are lost
_LONGEST_TROUBLE = 160  # characters of a tracker's last line in a note
_LAUNCH_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Trackers:
    """All trackers of a job: takes figures and images, and passes them on to each."""

    def __init__(self, trackers: "list[_Tracker]") -> None:
        self._trackers = trackers

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Send figures, by name, to all trackers; do not wait for them."""
        self._send({"figures": dict(figures), "step": step})

    def show(self, name: str, images: "Sequence[np.ndarray]", step: int) -> None:
        """Send images, uint8 [H, W, 3], under a name to all trackers; do not wait for them."""
        if self._trackers:
            self._send({"images": name, "png": [_png(image) for image in images], "step": step})

    def _send(self, message: Mapping[str, Any]) -> None:
        for tracker in self._trackers:
            tracker.send(message)


@contextmanager
def tracking(
    names: Sequence[str],
    config: Mapping[str, object],
    folder: Path,
    on_note: Callable[[str], None] = lambda line: None,
) -> Iterator[Trackers]:
    """Run trackers while a job runs.

    Args:
        names: of accelerate's trackers.
        config: the job's settings, shown beside its figures.
        folder: where trackers store their local files.
        on_note: called with a line on a tracker that failed.

    Yields:
        The trackers, to send figures to.

    Raises:
        UserError: accelerate knows no such tracker, or it is not installed. A later failure is a note.
    """
    _check_known(names)
    trackers = [_Tracker(name, folder, config) for name in names]
    try:
        yield Trackers(trackers)
    finally:
        for tracker in trackers:
            tracker.end()
        for tracker in trackers:
            trouble = tracker.trouble()
            if trouble is not None:
                on_note(f"{option('log-with', 'trackers')} {tracker.name}: {trouble}; the job went on without it")


def _check_known(names: Sequence[str]) -> None:
    """Raise UserError for a tracker that accelerate does not know, or that is not installed."""
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    supported = {str(name) for name in LOGGER_TYPE_TO_CLASS}
    available = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in supported:
            raise UserError(
                f"{option('log-with', 'trackers')}: no tracker {name}; there are {', '.join(sorted(supported))}"
            )
        if name not in available:
            raise UserError(f"{option('log-with', 'trackers')}: {name} is not installed; pip install {name}")


class _Tracker:
    """A tracker's process, and the thread that writes to it."""

    def __init__(self, name: str, folder: Path, config: Mapping[str, object]) -> None:
        self.name = name
        self._messages: queue.Queue[bytes | None] = queue.Queue(_MOST_UNSENT)  # None is the end
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / f"{name}.log"
        self._trouble: str | None = None
        env = {name: value for name, value in os.environ.items() if name not in _LAUNCH_VARIABLES}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._log.open("wb") as log:
                # Trackers store their files in the working directory; -P: nothing in there may be imported.
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

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue a message; drop it if too many wait already."""
        with suppress(queue.Full):
            self._messages.put_nowait(json.dumps(message).encode() + b"\n")

    def end(self) -> None:
        """Ask the process to end; do not wait for it."""
        with suppress(queue.Full):
            self._messages.put_nowait(None)

    def trouble(self) -> str | None:
        """Wait for the process to end. Return what went wrong, or None."""
        if self._process is None:
            return self._trouble
        try:
            self._thread.join(_LAST_WORDS)
            has_all = not self._thread.is_alive()
            status = self._process.wait(_LAST_WORDS if has_all else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return "does not answer"
        if status == 0:
            return None
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if not lines:
            return f"ended with status {status}"
        return lines[-1][:_LONGEST_TROUBLE]

    def _write(self) -> None:
        """Write messages to the process until there are no more."""
        assert self._process is not None
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(OSError):  # the process has ended, and its log says why
            for message in iter(self._messages.get, None):
                pipe.write(message)
                pipe.flush()
        with suppress(OSError):
            pipe.close()


def _flat(tree: Mapping[str, object], place: str = "") -> dict[str, str]:
    """Return a recipe with keys as `section.key` and values as text, which all trackers take."""
    settings: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            settings |= _flat(value, f"{place}{name}.")
        else:
            settings[f"{place}{name}"] = str(value)
    return settings


def _png(image: "np.ndarray") -> str:
    """Return an image, uint8 [H, W, 3], as PNG in base64."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _end_with(pipe: IO[bytes], patience: float) -> None:
    """End this process `patience` seconds after its job, whatever the tracker waits for."""
    closing = select.poll()
    closing.register(pipe, 0)  # only for the close of its other end
    closing.poll()
    time.sleep(patience)
    os._exit(1)


def _serve(name: str, pipe: IO[bytes], patience: float) -> None:
    """Run a tracker in this process: pass on messages until there are no more.

    Args:
        name: of accelerate's tracker.
        pipe: the messages, one JSON object a line.
        patience: seconds that the tracker has once the job has closed the pipe.
    """
    threading.Thread(target=_end_with, args=(pipe, patience), daemon=True).start()

    import numpy as np
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS
    from PIL import Image

    PartialState(cpu=True)  # accelerate's logger needs it
    tracker_class = LOGGER_TYPE_TO_CLASS[name]
    options = {"logging_dir": "."} if tracker_class.requires_logging_directory else {}
    tracker = tracker_class("fmrgen", **options)
    tracker.start()
    for line in pipe:
        message = json.loads(line)
        if "config" in message:
            tracker.store_init_configuration(message["config"])
        elif "figures" in message:
            tracker.log(message["figures"], step=message["step"])
        elif hasattr(tracker, "log_images"):
            images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in message["png"]]
            layout = {"dataformats": "NHWC"} if name == "tensorboard" else {}
            tracker.log_images({message["images"]: np.stack(images)}, step=message["step"], **layout)
    tracker.finish()


if __name__ == "__main__":
    _serve(sys.argv[1], sys.stdin.buffer, float(sys.argv[2]))
