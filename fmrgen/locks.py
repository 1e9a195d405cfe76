"""Locks between processes and machines: the operating system's, or leases where a file system does not pass it on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Literal

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from fmrgen.errors import UserError

LockKind = Literal["lock", "lease"]
LEASE = "FMRGEN_LEASE_SECONDS"  # a variable of the environment
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


def new_lock(path: Path, kind: LockKind) -> BaseFileLock:
    """A lock file that nobody holds yet. It is held by whatever thread.

    A lease is a file in which its holder says now and then that it is there. Others take it over when that has not
    changed for `lease_seconds` by their own clocks, so it is for work that two may do at once without harm.
    """
    if kind == "lease":
        return SoftFileLease(path, lease_duration=lease_seconds(), thread_local=False)
    return FileLock(path, thread_local=False, fallback_to_soft=False)


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
    first, second = new_lock(probe, "lock"), new_lock(probe, "lock")
    try:
        with first.acquire(timeout=0), second.acquire(timeout=0):
            return "lease"
    except Timeout:
        return "lock"
    except OSError:
        return "lease"
    finally:
        probe.unlink(missing_ok=True)


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
        lock = new_lock(path, kind or kind_that_works(path.parent))
        lock.acquire()
    except OSError as error:
        raise UserError(f"{path.parent}: can't be written: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
