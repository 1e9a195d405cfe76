"""Trackers of a job, as accelerate has them: TensorBoard, Weights & Biases, Trackio, MLflow and others."""

import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fmrgen.errors import UserError, one_line, option

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

_LAST_WORDS = 30.0  # seconds that the trackers have at the end
_MOST_UNSENT = 1000  # reports that may wait for the trackers; later ones are lost
_LONGEST_TROUBLE = 160  # characters of an error in a note


class Trackers:
    """All trackers of a job: takes figures, and passes them on to each in a thread.

    Args:
        names: of accelerate's trackers.
        config: the job's settings, as text.
        folder: where trackers store their local files, if they let one choose.
    """

    def __init__(self, names: Sequence[str], config: dict[str, str], folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, GeneralTracker | None] = dict.fromkeys(names)  # None until it has started
        self._troubles: dict[str, str] = {}
        self._reports: queue.Queue[Callable[[GeneralTracker], None] | None] = queue.Queue(_MOST_UNSENT)  # None ends it
        self._thread = threading.Thread(target=self._pass_on, daemon=True, name="trackers")
        self._send(lambda tracker: tracker.store_init_configuration(config))
        self._thread.start()

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Send figures, by name, to all trackers; do not wait for them."""
        self._send(lambda tracker: tracker.log(dict(figures), step=step))

    def end(self) -> dict[str, str]:
        """End the trackers, soon or in the background; return what went wrong, by their names."""
        self._send(lambda tracker: tracker.finish())
        self._send(None)
        self._thread.join(_LAST_WORDS)
        if self._thread.is_alive():
            return self._troubles | dict.fromkeys(self._running, "does not answer")
        return self._troubles

    def _send(self, report: "Callable[[GeneralTracker], None] | None") -> None:
        """Queue a report; drop it if too many wait already."""
        with suppress(queue.Full):
            self._reports.put_nowait(report)

    def _pass_on(self) -> None:
        """Pass reports on until there are no more. A tracker that fails gets no other."""
        for report in iter(self._reports.get, None):
            for name, tracker in list(self._running.items()):
                try:
                    if tracker is None:
                        tracker = self._running[name] = _started(name, self._folder)
                    report(tracker)
                except BaseException as error:  # SystemExit too: it would end this thread, and the other trackers
                    del self._running[name]
                    self._troubles[name] = one_line(error, _LONGEST_TROUBLE)


@contextmanager
def tracking(
    names: Sequence[str],
    config: Mapping[str, object],
    folder: Path,
    on_note: Callable[[str], None] = lambda line: None,
) -> Iterator[Trackers]:
    """Run trackers while a job runs. What they print goes to stderr, as does all that is printed meanwhile.

    Args:
        names: of accelerate's trackers.
        config: the job's settings, shown beside its figures.
        folder: where trackers store their local files, if they let one choose.
        on_note: called with a line on a tracker that failed.

    Yields:
        The trackers, to send figures to.

    Raises:
        UserError: accelerate knows no such tracker, or it is not installed. A later failure is a note.
    """
    with ExitStack() as stack:
        if names:
            _prepare(names)
            stack.enter_context(redirect_stdout(sys.stderr))
        trackers = Trackers(names, _flat(config), folder)
        try:
            yield trackers
        finally:
            for name, trouble in trackers.end().items():
                on_note(f"{option('log-with', 'trackers')} {name}: {trouble}; the job went on without it")


def _prepare(names: Sequence[str]) -> None:
    """Raise UserError for trackers that accelerate does not know, or that are not installed, and set up accelerate."""
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import clear_environment

    supported = {str(name) for name in LOGGER_TYPE_TO_CLASS}
    available = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in supported:
            raise UserError(
                f"{option('log-with', 'trackers')}: no tracker {name}; there are {', '.join(sorted(supported))}"
            )
        if name not in available:
            raise UserError(f"{option('log-with', 'trackers')}: {name} is not installed; pip install {name}")
    # Its trackers need a state. With the environment of a launcher, a new one would wait for the other processes.
    with clear_environment():
        PartialState(cpu=True)


def _started(name: str, folder: Path) -> "GeneralTracker":
    """Return a tracker that was started."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    tracker_class = LOGGER_TYPE_TO_CLASS[name]
    options = {"logging_dir": str(folder)} if tracker_class.requires_logging_directory else {}
    tracker = tracker_class("fmrgen", **options)
    tracker.start()
    return tracker


def _flat(tree: Mapping[str, object], place: str = "") -> dict[str, str]:
    """Return a recipe with keys as `section.key` and values as text, which all trackers take."""
    settings: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            settings |= _flat(value, f"{place}{name}.")
        else:
            settings[f"{place}{name}"] = str(value)
    return settings
