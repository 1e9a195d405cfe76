"""A dataset folder that several processes work in, on this machine or a network file system."""

import io
import os
import weakref
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Literal, Protocol

from fmrgen.errors import UserError, option
from fmrgen.files import open_plain
from fmrgen.locks import Claim, LockKind, held, kind_that_works, lease_seconds
from fmrgen.storage.paths import SplitPaths

ClaimKind = LockKind | Literal["auto"]


class Shared(Protocol):
    """How the processes of a job share a dataset folder: who works on what, and the files that all of them see.

    Attributes:
        poll: the seconds between two looks at what others do.
        is_local: whether all files are on this machine, or on a disk that it mounts.
        former_holders: from whom this process has taken over claims, as far as it can tell.
    """

    poll: float
    is_local: bool
    former_holders: list[str]

    def take(self, path: Path) -> bool:
        """Take the claim at `path` unless another process holds it, and return whether this one does; never waits."""

    def is_taken(self, path: Path) -> bool:
        """Return whether another process holds the claim."""

    def release(self, path: Path) -> None:
        """Release a claim that this process holds, or has lost meanwhile."""

    def is_there(self, folder: Path) -> bool:
        """Return whether a folder is still the one in which claims were taken."""

    def alone(self, paths: SplitPaths) -> AbstractContextManager[None]:
        """Return a context that one process at a time enters to change the small files of a split.

        In it, the files are as the last process left them.
        """

    def refresh(self) -> None:
        """Fetch the small files as they are for all processes."""

    def send(self) -> None:
        """Show all processes the small files that this one changed, before `alone` ends."""

    def names(self, folder: Path) -> set[str]:
        """Return the names of all files in a folder, claims too. Raises OSError if it can't be read."""

    def exists(self, path: Path) -> bool:
        """Return whether a file exists for all processes."""

    def open(self, path: Path) -> io.BufferedIOBase:
        """Open a file that some process has written."""

    def publish(self, path: Path, *, replace: bool = False) -> None:
        """Show all processes a file that this one has written; one that exists already stays, unless `replace`."""

    def remove(self, path: Path) -> None:
        """Remove a file for all processes."""

    def set_aside(self, path: Path) -> Path:
        """Give a file that is wrong another name, under which nobody reads it, and return that."""

    def forget(self, paths: SplitPaths) -> None:
        """Delete this machine's copies of shards, if the shared ones are elsewhere."""

    def patience(self, folder: Path) -> float:
        """Return the seconds after which the claims of a killed process count as free."""

    def files(self, paths: SplitPaths) -> AbstractContextManager[None]:
        """Return a context in which all of a split's shards are files of this machine."""


class SharedDisk:
    """A folder whose file system all processes see.

    Args:
        claims: `lock`, `lease`, or `auto` for the one that works in a folder.
    """

    poll = 0.5
    is_local = True

    def __init__(self, claims: ClaimKind = "auto") -> None:
        self._claims = claims
        self.former_holders: list[str] = []
        self._held: dict[Path, Claim] = {}
        self._watched: dict[Path, Claim] = {}  # of others, whose leases may be taken over when they stop renewing them
        self._folders: dict[Path, int] = {}  # descriptors, kept open so that no other folder gets the same inode
        weakref.finalize(self, _close_all, self._folders)

    def take(self, path: Path) -> bool:
        """Take the claim at `path` unless another process holds it, and return whether this one does.

        Raises UserError if files can't be locked there.
        """
        claim = self._watched.pop(path, None) or Claim(path, self._kind(path.parent))
        try:
            if os.name == "posix" and path.parent not in self._folders:  # Windows opens no folders
                self._folders[path.parent] = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            holds = claim.take()
        except OSError as error:
            raise UserError(
                f"{path}: can't be locked: {error.strerror}; delete it, or choose another {option('output')}"
            ) from None
        if not holds:
            self._watched[path] = claim
            return False
        self._held[path] = claim
        if claim.former_holder is not None:
            self.former_holders.append(claim.former_holder)
        return True

    def is_taken(self, path: Path) -> bool:
        if path in self._held:
            return False
        if not self.take(path):
            return True
        self.release(path)
        return False

    def release(self, path: Path) -> None:
        claim = self._held.pop(path, None)
        if claim is not None:
            claim.release()

    def is_there(self, folder: Path) -> bool:
        with suppress(OSError):
            return os.path.samestat(os.stat(folder), os.fstat(self._folders[folder]))
        return False

    @contextmanager
    def alone(self, paths: SplitPaths) -> Iterator[None]:
        with held(paths.lock, self._kind(paths.root)):
            yield

    def refresh(self) -> None:
        """No-op: all processes see the same files."""

    def send(self) -> None:
        """No-op: all processes see the same files."""

    def names(self, folder: Path) -> set[str]:
        return set(os.listdir(folder))  # listing makes a network file system refresh its cache

    def exists(self, path: Path) -> bool:
        return path.exists()

    def open(self, path: Path) -> io.BufferedIOBase:
        return open_plain(path)

    def publish(self, path: Path, *, replace: bool = False) -> None:
        """No-op: all processes see the same files."""

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def set_aside(self, path: Path) -> Path:
        aside = hidden_name(path, self.names(path.parent))
        path.replace(aside)
        return aside

    def files(self, paths: SplitPaths) -> AbstractContextManager[None]:
        return nullcontext()

    def forget(self, paths: SplitPaths) -> None:
        """No-op: the shards on this machine are the shared ones."""

    def patience(self, folder: Path) -> float:
        if self._kind(folder) == "lease":
            return lease_seconds() + 1
        return 0.0

    def _kind(self, folder: Path) -> LockKind:
        return kind_that_works(folder) if self._claims == "auto" else self._claims


def _close_all(folders: dict[Path, int]) -> None:
    for descriptor in folders.values():
        os.close(descriptor)


def hidden_name(path: Path, taken: Collection[str]) -> Path:
    """Return a name for a shard that is set aside, which is not among those `taken`."""
    name = f".{path.name}.damaged"
    number = 0
    while name in taken:
        number += 1
        name = f".{path.name}.damaged{number}"
    return path.with_name(name)
