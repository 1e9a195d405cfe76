"""The processes of one job: what they tell each other, and how the others learn that one of them is gone."""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from types import TracebackType
from typing import Any
from uuid import uuid4

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.distributed import DistError, TCPStore

from fmrgen.errors import Terminated, UserError, one_line

_BEAT = 2.0  # seconds between two signs of life
_SILENCE = 30.0  # seconds after which a process that gives none is taken for dead
_GRACE = 15.0  # seconds that a process has for its end when another one is gone
_LONGEST_POLL = 1.0  # seconds between two looks while waiting
_LEAVE = 5.0  # seconds for the thread to come back from the store
_FAREWELL = 10.0  # seconds for which the first process waits until the others have heard that all is done

Entry = dict[str, Any]
_teams = count()


class GoneError(UserError):
    """Another process of the job is gone."""


@contextmanager
def own_work() -> Iterator[None]:
    """Around what one process does alone: its mistakes are its own, and it tells them itself."""
    try:
        yield
    except GoneError:
        raise
    except UserError as error:
        error.of_one_process = True
        raise


class Team:
    """All processes of a job, each at work on its own, to be used as a context.

    Each process has an entry in torch's store: what it tells, a count that grows while it lives, and how it ended. A
    thread keeps the entry fresh and reads those of the others, so that nobody ever waits inside a collective, where
    neither signals nor deaths are heard. A process that leaves the context by an exception says so; one that is killed
    is missed by the processes beside it at once, and by those of other machines after half a minute.
    """

    def __init__(self, accelerator: Accelerator, again: str = "") -> None:
        """`again` is what the error that another process is gone says of going on."""
        self.number, self.size = accelerator.process_index, accelerator.num_processes
        self.is_first, self.leads_machine = accelerator.is_main_process, accelerator.is_local_main_process
        self._again = again
        self.job = uuid4().hex  # of the first process, when all have met
        # All processes make their teams in the same order; a launcher that starts them anew keeps its store.
        launch = [os.environ.get(f"TORCHELASTIC_{name}", "") for name in ("RUN_ID", "RESTART_COUNT")]
        self._prefix = "/".join(["fmrgen", *launch, str(next(_teams))])
        # Siblings under one launcher see each other's process ids; machines alone may share a name.
        place = [socket.gethostname(), os.getppid(), os.environ.get("GROUP_RANK", "0")]
        self._own: Entry = {"beat": 0, "told": {}, "end": None, "place": place, "pid": os.getpid()}
        self._entries: dict[int, Entry] = {self.number: self._own}
        self._heard = dict.fromkeys(range(self.size), time.monotonic())  # when each one's count grew last
        self._met = time.monotonic()  # when the store answered last
        self._lost: tuple[int, str] | None = None  # who is gone, and why
        self._lock, self._news, self._over = threading.Lock(), threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Team":
        if self.size > 1:
            address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            with self._waiting():
                self._store = TCPStore(*address, timeout=timedelta(seconds=_SILENCE), wait_for_workers=False)
            self._thread = threading.Thread(target=self._live, daemon=True, name="team")
            self._thread.start()
            try:
                self.job = self.exchange("job", self.job)[0]
            except BaseException as error:
                self.__exit__(type(error), error, None)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        self._over.set()
        self._news.set()
        self._thread.join(_LEAVE)
        if self._thread.is_alive():  # waits for an answer of the store that will not come
            return
        if error is None:
            self._own["end"] = {}
            deadline = time.monotonic() + _FAREWELL
            while self._meet() and self.is_first and not self._all_ended() and time.monotonic() < deadline:
                time.sleep(0.05)  # the store may be this process's
            return
        self._meet()  # whoever ends this process may do so because another one has died
        number, why = self._lost or (self.number, _ending(error))
        self._own["end"] = {"number": number, "why": why}
        self._meet()
        if isinstance(error, Terminated) and self._lost is not None:
            told = self._error()
            error.why, error.of_one_process = str(told), told.of_one_process

    def tell(self, name: str, value: Any) -> None:
        """Lets the others hear `value` (JSON) under `name`, soon."""
        with self._lock:
            self._own["told"][name] = value

    def heard(self, name: str) -> list[Any]:
        """What each process has told under `name` so far, None where nothing yet."""
        return [self._entries.get(number, {"told": {}})["told"].get(name) for number in range(self.size)]

    def exchange(self, name: str, value: Any, meanwhile: Callable[[], None] = lambda: None) -> list[Any]:
        """What every process told under `name`, once all have; `meanwhile` is called now and then while waiting.

        Raises GoneError where another process is gone.
        """
        self.tell(name, [value])
        poll = 0.02
        while None in (found := self.heard(name)):
            self._news.set()
            time.sleep(poll)
            poll = min(1.5 * poll, _LONGEST_POLL)
            self.check()
            meanwhile()
        return [told for [told] in found]

    def gather(self, value: Any) -> list[Any]:
        """Every process's `value`, whatever can be pickled: for what is too large for `exchange`.

        Waits inside a collective. Raises GoneError where another process is gone.
        """
        with self._waiting():
            return gather_object([value])

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Around what torch does for all processes together: where another one is gone, that is a GoneError."""
        try:
            yield
        except (RuntimeError, DistError) as error:
            if self.size == 1:
                raise
            deadline = time.monotonic() + _LEAVE
            while self._thread is not None and self._lost is None and time.monotonic() < deadline:
                self._news.set()
                time.sleep(0.05)
            if self._lost is not None:
                raise self._error() from error
            gone = GoneError("another process of the job has stopped; its own line says why, if it had time for one")
            gone.of_one_process = os.environ.get("LOCAL_RANK") == "1"  # it may have been the one that tells
            raise gone from error

    def check(self) -> None:
        """Raises GoneError where another process of the job is gone."""
        if self._lost is None and self._thread is not None and time.monotonic() - self._met > _SILENCE:
            self._lost = 0, f"has not answered for {_SILENCE:.0f} seconds"  # it, or its machine, keeps the store
        if self._lost is not None:
            raise self._error()

    def _error(self) -> GoneError:
        assert self._lost is not None
        number, why = self._lost
        host = f" on {self._entries[number]['place'][0]}" if number in self._entries else ""
        error = GoneError(f"process {number}{host} {why}{self._again}")
        # Of each machine the first process tells a mistake: where that one is gone without a word, the next one.
        silent = number in (siblings := self._siblings()) and self._entries[number]["end"] is None
        error.of_one_process = silent and self.number == min({*siblings} - {number}, default=self.number)
        return error

    def _siblings(self) -> list[int]:
        """The processes under the same launcher, this one too."""
        return [number for number, entry in self._entries.items() if entry["place"] == self._own["place"]]

    def _live(self) -> None:
        gone_since = None
        while not self._over.is_set():
            self._meet()
            if self._lost is not None:
                gone_since = gone_since or time.monotonic()
                if time.monotonic() - gone_since > _GRACE:  # stuck where no exception reaches it
                    print(f"fmrgen: {self._error()}", file=sys.stderr, flush=True)
                    os._exit(2)
            self._news.wait(_BEAT)
            self._news.clear()

    def _meet(self) -> bool:
        """Renews this process's entry and reads the others'; False where that can't be done any more."""
        try:
            self._read_all()
            if dead := [number for number in self._working() if not _lives(self._entries[number]["pid"])]:
                self._read_all()  # it may have left in order just before
                if self._lost is None and (dead := [number for number in dead if number in self._working()]):
                    self._lost = dead[0], "has died"
        except RuntimeError as error:  # of torch's store
            if self._lost is None and not self._all_ended():
                self._lost = 0, f"can't be reached any more ({one_line(error, 60)})"
            return False
        return True

    def _read_all(self) -> None:
        with self._lock:
            self._own["beat"] += 1
            text = json.dumps(self._own)
        self._store.set(f"{self._prefix}/{self.number}", text)
        keys = {number: f"{self._prefix}/{number}" for number in range(self.size) if number != self.number}
        if not self._store.check(list(keys.values())):  # at the start
            keys = {number: key for number, key in keys.items() if self._store.check([key])}
        now = self._met = time.monotonic()
        for number, told in zip(keys, self._store.multi_get(list(keys.values())), strict=True):
            entry = json.loads(told)
            if number not in self._entries or entry["beat"] != self._entries[number]["beat"]:
                self._heard[number] = now
            self._entries[number] = entry
        for number in range(self.size):
            end = self._entries.get(number, {}).get("end")
            if self._lost is None and number != self.number and end:
                self._lost = end["number"], end["why"]
            if self._lost is None and number != self.number and end is None and now - self._heard[number] > _SILENCE:
                self._lost = number, f"has not answered for {_SILENCE:.0f} seconds"

    def _working(self) -> list[int]:
        """The other processes under the same launcher that have not said how they ended."""
        return [n for n in self._siblings() if n != self.number and self._entries[n]["end"] is None]

    def _all_ended(self) -> bool:
        return len(self._entries) == self.size and all(entry["end"] is not None for entry in self._entries.values())


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _ending(error: BaseException) -> str:
    """How a process ends by `error`, as the others tell it."""
    if isinstance(error, UserError):
        return f"stopped: {error}"
    if isinstance(error, Terminated):
        return "was terminated"
    return "was interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {type(error).__name__}"
