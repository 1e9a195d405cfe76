"""A dataset folder that several processes work in, on this machine or a network file system."""

import io
import os
import weakref
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import Literal, Protocol

from fmrgen.errors import UserError, option
from fmrgen.files import open_plain
from fmrgen.locks import Claim, LockKind, held, kind_that_works, lease_seconds
from fmrgen.storage.paths import SplitPaths

ClaimKind = LockKind | Literal["auto"]


class Shared(Protocol):
    """How the processes of a job share a dataset folder: who works on what, and the files that all of them see.

    `poll` is the seconds between two looks at what others do. `is_local` says whether all files are on this machine, or
    as good as that. `former_holders` are those from whom this process has taken over a claim, as far as is known.
    """

    poll: float
    is_local: bool
    former_holders: list[str]

    def take(self, path: Path) -> bool:
        """Whether this process holds the claim at `path` from now on, and nobody else; does not wait."""

    def is_taken(self, path: Path) -> bool:
        """Whether another process holds it."""

    def release(self, path: Path) -> None:
        """Gives back a claim that this process holds, or has lost meanwhile."""

    def is_there(self, folder: Path) -> bool:
        """Whether a folder is still the one in which claims were taken."""

    def alone(self, paths: SplitPaths) -> AbstractContextManager[None]:
        """Around what one process at a time does to the small files of a split, which are as the last one left them."""

    def refresh(self) -> None:
        """Makes the small files here what they are for all."""

    def send(self) -> None:
        """Shows all the small files that were changed here, also before `alone` ends."""

    def names(self, folder: Path) -> set[str]:
        """Those of all files in a folder, claims too. Raises OSError where it can't be read."""

    def exists(self, path: Path) -> bool:
        """Whether a file is there for all."""

    def open(self, path: Path) -> io.BufferedIOBase:
        """A file that some process has written."""

    def publish(self, path: Path, *, replace: bool = False) -> None:
        """Shows all what this process has written; what others wrote there before stays, or is replaced."""

    def remove(self, path: Path) -> None:
        """Removes a file for all."""

    def set_aside(self, path: Path) -> Path:
        """Gives a file that is wrong another name, under which nobody reads it; returns that."""

    def forget(self, paths: SplitPaths) -> None:
        """Lets go of the copies of shards on this machine, where those of all are elsewhere."""

    def patience(self, folder: Path) -> float:
        """The seconds after which what a killed process held is seen to be free."""

    def files(self, paths: SplitPaths) -> AbstractContextManager[None]:
        """Around what reads all of a split's shards, which are files of this machine meanwhile."""


class SharedDisk:
    """A folder whose file system all processes see.

    Args:
        claims: `lock`, `lease`, or by what works in a folder.
    """

    poll = 0.5
    is_local = True

    def __init__(self, claims: ClaimKind = "auto") -> None:
        self._claims = claims
        self.former_holders: list[str] = []
        self._held: dict[Path, Claim] = {}
        self._watched: dict[Path, Claim] = {}  # of others, whose leases may be taken over when nothing changes
        self._folders: dict[Path, int] = {}  # open, so that no other gets their numbers
        weakref.finalize(self, _close_all, self._folders)

    def take(self, path: Path) -> bool:
        """Raises UserError where a file can't be locked there."""
        claim = self._watched.pop(path, None) or Claim(path, self._kind(path.parent))
        try:
            if path.parent not in self._folders:
                self._folders[path.parent] = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            holds = claim.take()
        except OSError as error:
            raise UserError(
                f"{path}: can't be locked: {error.strerror}; delete it, or choose another {option('output')}"
            ) from None
        (self._held if holds else self._watched)[path] = claim
        if holds and claim.former_holder is not None:
            self.former_holders.append(claim.former_holder)
        return holds

    def is_taken(self, path: Path) -> bool:
        if path in self._held:
            return False
        if not self.take(path):
            return True
        self.release(path)
        return False

    def release(self, path: Path) -> None:
        if (claim := self._held.pop(path, None)) is not None:
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
        """They are that."""

    def send(self) -> None:
        """All see them already."""

    def names(self, folder: Path) -> set[str]:
        return {*os.listdir(folder)}  # which makes a network file system look anew

    def exists(self, path: Path) -> bool:
        return path.exists()

    def open(self, path: Path) -> io.BufferedIOBase:
        return open_plain(path)

    def publish(self, path: Path, *, replace: bool = False) -> None:
        """It is there already."""

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def set_aside(self, path: Path) -> Path:
        aside = hidden_name(path, self.names(path.parent))
        path.replace(aside)
        return aside

    def files(self, paths: SplitPaths) -> AbstractContextManager[None]:
        return nullcontext()

    def forget(self, paths: SplitPaths) -> None:
        """They stay: here is where they are."""

    def patience(self, folder: Path) -> float:
        return lease_seconds() + 1 if self._kind(folder) == "lease" else 0.0

    def _kind(self, folder: Path) -> LockKind:
        return kind_that_works(folder) if self._claims == "auto" else self._claims


def _close_all(folders: dict[Path, int]) -> None:
    for descriptor in folders.values():
        os.close(descriptor)


def hidden_name(path: Path, taken: Collection[str]) -> Path:
    """The name of a shard that was set aside, which no other file has."""
    names = (f".{path.name}.damaged{number or ''}" for number in count())
    return path.with_name(next(name for name in names if name not in taken))
