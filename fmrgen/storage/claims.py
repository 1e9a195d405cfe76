"""Who works on what: a claim is a file of one generation, which its holder renews; who creates the next one owns it.

A claim that has not changed for a lease is free, by the clock of whoever looks at it, and so is one whose process is
dead on this very machine. Claims save work and order it. Nothing rests on them: work that two processes do at once
gives equal files, and the first one stays.
"""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal

from fmrgen.errors import UserError
from fmrgen.storage.store import Store, read

LEASE = "FMRGEN_LEASE_SECONDS"  # a variable of the environment
_SHORTEST, _LONGEST = 0.1, 1e6  # seconds of a lease

State = Literal["free", "held", "silent"]


def lease_seconds() -> float:
    """Return how long a claim outlives a holder that is silent, by default a minute.

    Raises UserError if the environment has anything but a number of seconds.
    """
    with suppress(ValueError):
        seconds = float(os.environ.get(LEASE, "60"))
        if _SHORTEST <= seconds < _LONGEST:
            return seconds
    raise UserError(f"{LEASE}: must be seconds, from {_SHORTEST}; 60 by default")


@dataclass
class _Watched:
    """Another process's claim, as it was last read: `since` when it has this content, and whether it ever changed."""

    content: bytes
    since: float
    looked: float
    has_changed: bool = False


class Claims:
    """The claims that this process holds in a store, and those of others that it has seen.

    `former_holders` are those from whom it has taken over claims.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.former_holders = store, list[str]()
        self._lease = lease_seconds()
        self._holder = {"token": token_hex(16), "lease": self._lease, "machine": _this_machine()}
        self._holder |= {"host": socket.gethostname(), "pid": os.getpid()}
        self._held: dict[Path, Path] = {}  # the file of each claim
        self._watched: dict[Path, _Watched] = {}
        self._turn = threading.RLock()  # threads read ahead, write shards and renew claims
        self._heart: threading.Thread | None = None
        self._is_closed = False

    def take(self, path: Path, names: Collection[str] | None = None) -> bool:
        """Take a claim unless a process holds it, this one too, and return whether that succeeded; never waits.

        The claim's files are `PATH.0`, `PATH.1`, …; `names` are those of the files beside it, as they were just now.
        Raises UserError if the store fails, OSError if the folder can't be read.
        """
        names = self.store.names(path.parent) if names is None else names
        with self._turn:
            if self._is_closed or path in self._held:
                return False
            generation = _latest(path, names)
            if generation >= 0 and self._state(_file(path, generation)) != "free":
                return False
            earlier = self._watched.pop(_file(path, generation), None)
            file = _file(path, generation + 1)
            if not self.store.claim(file, self._content(), is_held=False):
                return False
            self._held[path] = file
            if self._heart is None:
                self._heart = threading.Thread(target=self._renew, daemon=True, name="claims")
                self._heart.start()
        if earlier is not None:
            holder = _parsed(earlier.content)
            name = f"{str(holder.get('host'))[:80]} (process {str(holder.get('pid'))[:12]})"
            if name not in self.former_holders:
                self.former_holders.append(name)
        return True

    def state(self, path: Path, names: Collection[str]) -> State:
        """Return whether other processes hold a claim: `silent` if nobody knows, since its holder is not on this
        machine, and has not renewed it as long as this process looks."""
        generation = _latest(path, names)
        if generation < 0 or path in self._held:
            return "free"
        return self._state(_file(path, generation))

    def release(self, path: Path) -> None:
        """Release a claim that this process holds, or has lost meanwhile."""
        with self._turn:
            file = self._held.pop(path, None)
            if file is None or not self._is_own(file):
                return
            for generation in range(_latest(path, [file.name]) + 1):  # its own last, since only the latest counts
                self.store.remove(_file(path, generation))

    def close(self) -> None:
        """Release all claims, and take no more."""
        with self._turn:
            self._is_closed = True
        for path in list(self._held):
            self.release(path)

    @contextmanager
    def alone(self, path: Path) -> Iterator[None]:
        """Return a context that one process at a time enters."""
        while not self.take(path):
            time.sleep(self.store.poll / 2)
        try:
            yield
        finally:
            self.release(path)

    def _state(self, file: Path) -> State:
        now = time.monotonic()
        watched = self._watched.get(file)
        pause = 0.0 if self.store.is_local else self._lease / 8  # each look at an object store costs
        if watched is None or now - watched.looked >= pause:
            content = read(self.store, file)
            if content is None:
                return "held"  # it was released just now
            if watched is None:
                watched = _Watched(content, now, now)
            elif content != watched.content:
                watched = _Watched(content, now, now, has_changed=True)
            watched.looked = now
            self._watched[file] = watched
        holder = _parsed(watched.content)
        is_here = holder.get("machine") == _this_machine()
        if is_here and not _is_running(holder.get("pid")):
            return "free"
        lease = holder.get("lease")
        if not isinstance(lease, int | float) or not _SHORTEST <= lease < _LONGEST:
            lease = self._lease
        if now - watched.since >= lease:
            return "free"
        return "held" if is_here or watched.has_changed else "silent"

    def _content(self) -> bytes:
        """Return what a claim of this process says, another text each time: so others see that it lives."""
        return json.dumps(self._holder | {"beat": token_hex(16)}).encode()

    def _is_own(self, file: Path) -> bool:
        """Return whether a claim's file is still this process's: it may have stood still while others came and went."""
        content = read(self.store, file)
        return content is not None and _parsed(content).get("token") == self._holder["token"]

    def _renew(self) -> None:
        """Renew the claims now and then, as long as any is held."""
        while True:
            time.sleep(self._lease / 3)  # so that one lost request does not end it
            with self._turn:
                if not self._held:
                    self._heart = None
                    return
            for path in list(self._held):
                with self._turn, suppress(UserError):  # the store may answer the next time
                    file = self._held.get(path)
                    if file is None:
                        continue
                    if not self._is_own(file) or not self.store.claim(file, self._content(), is_held=True):
                        del self._held[path]  # another process owns it


def _file(path: Path, generation: int) -> Path:
    return path.with_name(f"{path.name}.{generation}")


def _latest(path: Path, names: Collection[str]) -> int:
    """Return the latest generation of a claim among the names of files beside it; -1 if there is none."""
    pattern = re.compile(rf"{re.escape(path.name)}\.(\d{{1,9}})")
    matches = filter(None, map(pattern.fullmatch, names))
    return max((int(match[1]) for match in matches), default=-1)


def _parsed(content: bytes) -> dict[str, Any]:
    """Return what a claim says; {} if it is no claim."""
    with suppress(ValueError, RecursionError):
        holder = json.loads(content)
        if isinstance(holder, dict):
            return holder
    return {}


@cache
def _this_machine() -> str:
    """Return what tells the processes of this machine, or container, from those of any other."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _is_running(pid: object) -> bool:
    """Return whether a process of that number runs on this machine; it may be another one by now."""
    import psutil

    if not isinstance(pid, int):
        return False
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
