"""Locks between processes and machines: the operating system's, or leases where a file system does not pass it on."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Literal

from filelock import BaseFileLock, FileLock, LeaseSettingsMismatch, SoftFileLease, Timeout

from fmrgen.errors import UserError

LockKind = Literal["lock", "lease"]
LEASE = "FMRGEN_LEASE_SECONDS"  # a variable of the environment
_PAUSE = 0.05  # seconds between two looks at whether a lock is free
# How Linux mounts what keeps locks to one machine.
_LOCKS_OF_ONE_MACHINE = {"nfs": {"nolock", "local_lock=flock", "local_lock=all"}, "lustre": {"localflock"}}


def lease_seconds() -> float:
    """How long a lease outlives a holder who is not heard of, by default a minute; all machines have to say the same.

    Raises UserError where the environment says something else than a number of seconds.
    """
    try:
        seconds = float(os.environ.get(LEASE, "60"))
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds < 1e6:
        raise UserError(f"{LEASE}: must be seconds, from 0.1, the same on all machines; 60 by default")
    return seconds


def holder_name(host: object, pid: object) -> str:
    """How a process is named on whatever machine; what it says of itself is cut."""
    return f"{str(host)[:80]} (process {str(pid)[:12]})"


class Claim:
    """A lock file that this process wants, or holds, by whatever thread.

    A lease is a file in which its holder says now and then that it is there. Others take it over when that has not
    changed for `lease_seconds` by their own clocks, so it is for work that two may do at once without harm, and whoever
    wants one has to try again and again by the same claim. From whom one was taken over is in `former_holder`.
    """

    former_holder: str | None = None

    def __init__(self, path: Path, kind: LockKind) -> None:
        self._path, self._kind = path, kind
        self._lock: BaseFileLock
        if kind == "lease":
            self._lock = SoftFileLease(path, lease_duration=lease_seconds(), thread_local=False)
        else:
            self._lock = FileLock(path, thread_local=False, fallback_to_soft=False)
        self._nameless: tuple[int, float] | None = None  # number of an empty lease's file, and since when it was seen

    def take(self) -> bool:
        """Whether this process holds it from now on; does not wait. Raises OSError where it can't be locked."""
        former_holder = self._holder_of_lease()
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            if self._kind == "lease":
                self._remove_nameless()
            return False
        except LeaseSettingsMismatch:
            raise UserError(
                f"{self._path}: another machine holds it with another {LEASE}; give all machines the same"
            ) from None
        self.former_holder = former_holder
        return True

    def release(self) -> None:
        self._lock.release()

    def _holder_of_lease(self) -> str | None:
        """Who is named in the file of a lease; it removes that when it lets go."""
        if self._kind != "lease":
            return None
        with suppress(OSError, ValueError):
            named = dict(line.partition("=")[::2] for line in self._path.read_text("utf-8")[:1024].splitlines())
            if named.get("host") and named.get("pid"):
                return holder_name(named["host"], named["pid"])
        return None

    def _remove_nameless(self) -> None:
        """Who is killed while taking a lease can leave a file that names no holder, and that nobody would take over."""
        with suppress(FileNotFoundError):
            found, now = self._path.stat(), time.monotonic()
            if found.st_size:
                self._nameless = None
            elif self._nameless is None or self._nameless[0] != found.st_ino:
                self._nameless = found.st_ino, now
            elif now - self._nameless[1] > lease_seconds():
                self._path.unlink()


@cache
def kind_that_works(folder: Path) -> LockKind:
    """`lock` where the operating system's locks in a folder hold for all machines, as far as can be known; else
    `lease`: where it has none, where it keeps them to this machine, and on file systems of user space."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    kind, options = _mounted_as(there)
    if kind.startswith("fuse") or options & _LOCKS_OF_ONE_MACHINE.get(kind.rstrip("4"), set()):
        return "lease"
    if not os.access(there, os.W_OK | os.X_OK):
        return "lock"  # who writes there will say so
    probe = there / f".{os.getpid()}.{os.urandom(4).hex()}.lock"
    first, second = Claim(probe, "lock"), Claim(probe, "lock")
    try:
        first.take()
        if not (holds := not second.take()):
            second.release()
        first.release()
    except OSError:
        holds = False
    finally:
        probe.unlink(missing_ok=True)
    return "lock" if holds else "lease"


def _mounted_as(folder: Path) -> tuple[str, set[str]]:
    """The kind of file system that a folder is on, and the options of its mount; nothing where that is unknown."""
    with suppress(Exception):  # whatever the machine says of its mounts
        import psutil

        real = folder.resolve()
        mounts = [one for one in psutil.disk_partitions(all=True) if real.is_relative_to(one.mountpoint)]
        nearest = max(mounts, key=lambda one: len(one.mountpoint))
        return nearest.fstype, {*nearest.opts.split(",")}
    return "", set()


@contextmanager
def held(path: Path, kind: LockKind | None = None) -> Iterator[None]:
    """Holds the lock file `path`, of the kind that works there; waits where another process holds it.

    Raises UserError where its folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        claim = Claim(path, kind or kind_that_works(path.parent))
        while not claim.take():
            time.sleep(_PAUSE)
    except OSError as error:
        raise UserError(f"{path.parent}: can't be written: {error.strerror}") from None
    try:
        yield
    finally:
        claim.release()
