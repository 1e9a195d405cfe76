"""Trackers of a job, as accelerate has them: TensorBoard, Weights & Biases, Trackio, MLflow and others."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from pandas import json_normalize

from fmrgen.errors import UserError, one_line, option

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

_log = logging.getLogger(__name__)


class Trackers:
    """All trackers of a job, which get its settings and then its figures. One that fails is noted, and gets no more."""

    def __init__(self, names: Sequence[str], config: Mapping[str, object], folder: Path) -> None:
        self._running: dict[str, GeneralTracker | None] = dict.fromkeys(names)  # None until it has started
        self._folder = folder  # of those that write files
        flat = json_normalize(dict(config)).to_dict("records")[0]  # its keys are `section.key`
        settings = {str(key): str(value) for key, value in flat.items()}  # which all trackers take
        self.each(lambda tracker: tracker.store_init_configuration(settings))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Send figures, by name, to all trackers."""
        self.each(lambda tracker: tracker.log(dict(figures), step=step))

    def each(self, call: "Callable[[GeneralTracker], None]") -> None:
        """Call each tracker, started before; one that fails is noted."""
        for name, tracker in list(self._running.items()):
            try:
                with redirect_stdout(sys.stderr):
                    if tracker is None:
                        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

                        kind = LOGGER_TYPE_TO_CLASS[name]
                        options = {"logging_dir": str(self._folder)} if kind.requires_logging_directory else {}
                        tracker = self._running[name] = kind("fmrgen", **options)
                        tracker.start()
                    call(tracker)
            except (Exception, SystemExit) as error:  # no reason to end a job of days
                del self._running[name]
                flag = option("log-with", "trackers")
                _log.warning("%s %s: %s; the job goes on without it", flag, name, one_line(error, 160))


@contextmanager
def tracking(names: Sequence[str], config: Mapping[str, object], folder: Path) -> Iterator[Trackers]:
    """Run accelerate's trackers of these names while a job with this config runs; they keep their files in `folder`.

    Raises UserError if accelerate knows no such tracker, or it is not installed. A later failure is a note.
    """
    if names:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
        from accelerate.utils import clear_environment

        supported = {str(name) for name in LOGGER_TYPE_TO_CLASS}
        available = {str(name) for name in get_available_trackers()}
        flag = option("log-with", "trackers")
        for name in names:
            if name not in supported:
                raise UserError(f"{flag}: no tracker {name}; there are {', '.join(sorted(supported))}")
            if name not in available:
                raise UserError(f"{flag}: {name} is not installed; pip install {name}")
        # Its trackers need a state. With the environment of a launcher, a new one would wait for the other processes.
        with clear_environment():
            PartialState(cpu=True)
    trackers = Trackers(names, config, folder)
    try:
        yield trackers
    finally:
        trackers.each(lambda tracker: tracker.finish())
