"""Locks between processes and machines: the operating system's, or leases if the file system does not share these."""

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
_PAUSE = 0.05  # seconds between two attempts to take a lock
_LONGEST_LEASE_FILE = 1024  # characters that are read of it
_LONGEST_HOST, _LONGEST_PID = 80, 12  # characters of what a lease says of its holder
# Mount options by which file systems of Linux keep locks to one machine.
_LOCKS_OF_ONE_MACHINE = {"nfs": {"nolock", "local_lock=flock", "local_lock=all"}, "lustre": {"localflock"}}


def lease_seconds() -> float:
    """Return how long a lease outlives a holder that is silent, by default a minute; the same on all machines.

    Raises UserError if the environment has anything but a number of seconds.
    """
    try:
        seconds = float(os.environ.get(LEASE, "60"))
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds < 1e6:
        raise UserError(f"{LEASE}: must be seconds, from 0.1, the same on all machines; 60 by default")
    return seconds


def holder_name(host: object, pid: object) -> str:
    """Return the name of a process on any machine, cut to a sensible length."""
    return f"{str(host)[:_LONGEST_HOST]} (process {str(pid)[:_LONGEST_PID]})"


class Claim:
    """A lock file that this process wants, or holds, in any thread.

    A lease is a file that its holder renews now and then. Others take it over once it has not changed for
    `lease_seconds` by their own clocks, so it is for work that two may do at once without harm, and a process that
    wants one must try again and again with the same claim. `former_holder` is the holder that it was taken over from.
    """

    former_holder: str | None = None

    def __init__(self, path: Path, kind: LockKind) -> None:
        self._path, self._kind = path, kind
        self._lock: BaseFileLock
        if kind == "lease":
            self._lock = SoftFileLease(path, lease_duration=lease_seconds(), thread_local=False)
        else:
            self._lock = FileLock(path, thread_local=False, fallback_to_soft=False)
        # Inode of an empty lease file, and the time at which it was first seen.
        self._nameless: tuple[int, float] | None = None

    def take(self) -> bool:
        """Take the lock without waiting, and return whether this process holds it. Raises OSError if locking fails."""
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
        """Return the holder that the file of a lease names; a holder that lets go removes the file."""
        if self._kind != "lease":
            return None
        with suppress(OSError, ValueError):
            values = {}
            for line in self._path.read_text("utf-8")[:_LONGEST_LEASE_FILE].splitlines():
                key, _, value = line.partition("=")
                values[key] = value
            if values.get("host") and values.get("pid"):
                return holder_name(values["host"], values["pid"])
        return None

    def _remove_nameless(self) -> None:
        """Remove an old lease file that names no holder, which nobody would take over.

        A process that is killed while it takes a lease can leave one.
        """
        with suppress(FileNotFoundError):
            status, now = self._path.stat(), time.monotonic()
            if status.st_size:
                self._nameless = None
            elif self._nameless is None or self._nameless[0] != status.st_ino:
                self._nameless = status.st_ino, now
            elif now - self._nameless[1] > lease_seconds():
                self._path.unlink()


@cache
def kind_that_works(folder: Path) -> LockKind:
    """Return `lock` if the operating system's locks in a folder hold for all machines, as far as can be known.

    Otherwise `lease`: if locks fail there, are kept to one machine, or the file system runs in user space.
    """
    for existing in (folder.absolute(), *folder.absolute().parents):
        if existing.is_dir():
            break
    kind, options = _mounted_as(existing)
    if kind.startswith("fuse") or options & _LOCKS_OF_ONE_MACHINE.get(kind.rstrip("4"), set()):
        return "lease"
    if not os.access(existing, os.W_OK | os.X_OK):
        return "lock"  # writing there will fail with an error of its own
    return "lock" if _locks_hold(existing) else "lease"


def _locks_hold(folder: Path) -> bool:
    """Return whether a lock in a folder can be taken, and not taken twice."""
    probe = folder / f".{os.getpid()}.{os.urandom(4).hex()}.lock"
    first, second = Claim(probe, "lock"), Claim(probe, "lock")
    try:
        first.take()
        taken_twice = second.take()
        if taken_twice:
            second.release()
        first.release()
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return not taken_twice


def _mounted_as(folder: Path) -> tuple[str, set[str]]:
    """Return the kind of a folder's file system, and the options of its mount; both empty if unknown."""
    with suppress(Exception):  # the list of mounts may have anything in it
        import psutil

        real = folder.resolve()
        mounts = [mount for mount in psutil.disk_partitions(all=True) if real.is_relative_to(mount.mountpoint)]
        nearest = max(mounts, key=lambda mount: len(mount.mountpoint))
        return nearest.fstype, {*nearest.opts.split(",")}
    return "", set()


@contextmanager
def held(path: Path, kind: LockKind | None = None) -> Iterator[None]:
    """Hold the lock file `path`, of the kind that works there; wait while another process holds it.

    Raises UserError if its folder can't be written.
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
