"""How processes share a split's shards: each takes the next one that nobody holds, by a lock that ends with it.

Processes do not talk. A shard that is there is done, a lock file that is held is being worked on, whatever machine of a
shared folder holds it; all else may be taken. So processes may come late, be killed or be started again at any time.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fmrgen.errors import UserError, option
from fmrgen.storage.shards import SplitFolder

_PATIENCE = 60.0  # seconds of waiting for others before a note
_POLL = 0.5  # seconds between two looks whether the shards that others hold are there, or free


def own_shards(shards: int, part: tuple[int, int] | None) -> list[int]:
    """The shards of the `part` (i, n), or all, in the order in which this process looks for one: each process of a
    launcher begins elsewhere.
    """
    number, of = part or (1, 1)
    own = list(range(number - 1, shards, of))
    first = int(os.environ.get("RANK", "0")) * len(own) // max(1, int(os.environ.get("WORLD_SIZE", "1")))
    return own[first:] + own[:first]


class ShardLocks:
    """The shards that this process holds.

    `wanted` are those of its part of the split, in the order in which it looks for one.
    """

    def __init__(self, folder: SplitFolder, wanted: list[int]) -> None:
        self.folder, self.wanted = folder, wanted
        self._held: dict[int, FileLock] = {}
        self._files: dict[int, tuple[int, int]] = {}  # device and number of each lock's file
        self._reserved: int | None = None
        self._closed, self._turn = False, threading.Lock()  # a thread that reads ahead takes shards too

    def reserve(self) -> bool:
        """Takes the shard that `take` will give next, so that others see somebody at work; False for none."""
        self._reserved = self.take()
        return self._reserved is not None

    def take(self) -> int | None:
        """The next shard that is neither there nor held by anyone, from now on held by this process; None for none."""
        if self._reserved is not None:
            reserved, self._reserved = self._reserved, None
            return reserved
        for shard in self.missing():
            if shard not in self._held and self._lock(shard):
                if not self.folder.shard_path(shard).exists():
                    return shard
                self.release(shard)  # another process has just written it
        return None

    def missing(self) -> list[int]:
        """The wanted shards that are not there yet."""
        there = self._there()
        return [shard for shard in self.wanted if self.folder.shard_path(shard).name not in there]

    def anyone_at_work(self) -> bool:
        """Whether another process holds a shard of the split."""
        for path in self.folder.paths.shard_locks():
            if (lock := _acquired(path)) is None:
                return True
            lock.release()
        return False

    def wait(self, on_note: Callable[[str], None], meanwhile: Callable[[], None]) -> None:
        """Waits until the shards that others hold are there, or one of them is free and taken.

        Args:
            on_note: called with a line where it takes long.
            meanwhile: called now and then.
        """
        begun, reported = time.monotonic(), False
        while (missing := self.missing()) and not self.reserve():
            if not reported and time.monotonic() - begun > _PATIENCE:
                names = ", ".join(self.folder.paths.shard_lock(shard).name for shard in missing[:3])
                more = ", …" if len(missing) > 3 else ""
                on_note(f"{self.folder.paths.root}: waiting for {len(missing)} shards that others hold ({names}{more})")
                reported = True
            time.sleep(_POLL)
            meanwhile()

    def check_still_held(self, shard: int) -> None:
        """Raises UserError where the folder is not the one any more in which the shard was taken."""
        with suppress(OSError):
            if _file_of(self.folder.paths.shard_lock(shard)) == self._files[shard]:
                return
        raise self._gone()

    def _gone(self) -> UserError:
        return UserError(
            f"{self.folder.paths.root}: is gone or was replaced; restore it, and run the same command again to continue"
        )

    def release(self, shard: int) -> None:
        self._held.pop(shard).release()

    def _lock(self, shard: int) -> bool:
        with self._turn:
            if self._closed or (lock := _acquired(self.folder.paths.shard_lock(shard))) is None:
                return False
            self._held[shard], self._files[shard] = lock, _file_of(self.folder.paths.shard_lock(shard))
            return True

    def _there(self) -> set[str]:
        """The names of the files in the shards' folder; listing it makes a network file system look anew."""
        try:
            return set(os.listdir(self.folder.paths.shards))
        except FileNotFoundError:
            raise self._gone() from None
        except OSError as error:
            raise UserError(f"{self.folder.paths.shards}: can't be read: {error.strerror}") from None

    def close(self) -> None:
        """Releases all, and takes no more."""
        with self._turn:
            self._closed = True
        for shard in list(self._held):
            self.release(shard)


def _acquired(path: Path) -> FileLock | None:
    """The lock at `path`, held, by whatever thread; None where somebody else holds it. Links are not followed."""
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as error:
        raise UserError(
            f"{path}: can't be locked: {error.strerror}; delete it, or choose another {option('output')}"
        ) from None
    return lock


def _file_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
