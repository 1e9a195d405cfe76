"""How processes share a split's shards: each takes the next one that nobody holds, by a claim that ends with it.

Processes do not talk. A shard that is there is done, one that is claimed is being worked on, whatever machine holds it;
all else may be taken. So processes may come late, be killed or be started again at any time.
"""

import os
import threading
import time
from collections.abc import Callable

from fmrgen.errors import UserError
from fmrgen.storage.shards import SplitFolder

_PATIENCE = 60.0  # seconds of waiting for others before a note


def own_shards(shards: int, part: tuple[int, int] | None) -> list[int]:
    """The shards of the `part` (i, n), or all, in the order in which this process looks for one: each process of a
    launcher begins elsewhere.
    """
    number, of = part or (1, 1)
    own = list(range(number - 1, shards, of))
    first = int(os.environ.get("RANK", "0")) * len(own) // max(1, int(os.environ.get("WORLD_SIZE", "1")))
    return own[first:] + own[:first]


class ShardClaims:
    """The shards that this process holds.

    `wanted` are those of its part of the split, in the order in which it looks for one. `on_note` is called with a line
    where it takes over those of another process.
    """

    def __init__(
        self, folder: SplitFolder, wanted: list[int], on_note: Callable[[str], None] = lambda line: None
    ) -> None:
        self.folder, self.wanted, self._on_note = folder, wanted, on_note
        self._former_holders = 0  # so many of the shared folder's are known
        self._held: set[int] = set()
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
            if shard not in self._held and self._claim(shard):
                if not self.folder.shared.exists(self.folder.shard_path(shard)):
                    self._report_takeovers()
                    return shard
                self._former_holders = len(self.folder.shared.former_holders)
                self.release(shard)  # another process has just written it
        return None

    def _report_takeovers(self) -> None:
        former_holders = self.folder.shared.former_holders
        for holder in dict.fromkeys(former_holders[self._former_holders :]):
            self._on_note(f"took over the shards of {holder}, of which nothing was heard")
        self._former_holders = len(former_holders)

    def missing(self) -> list[int]:
        """The wanted shards that are not there yet."""
        there = self._names()
        return [shard for shard in self.wanted if self.folder.shard_path(shard).name not in there]

    @property
    def is_begun(self) -> bool:
        """Whether there are shards of the split, of whatever plan."""
        return bool(self.folder.paths.shards_among(self._names(may_be_gone=True)))

    @property
    def is_split_whole(self) -> bool:
        """Whether every shard of the split is there, those of other parts too."""
        return {self.folder.shard_path(shard).name for shard in range(self.folder.shards)} <= self._names()

    def anyone_at_work(self) -> bool:
        """Whether another process holds a shard of the split."""
        paths = self.folder.paths
        claims = paths.claims_among(self._names(may_be_gone=True))
        is_anyone = any(self.folder.shared.is_taken(paths.shards / name) for name in claims)
        self._report_takeovers()
        return is_anyone

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
            time.sleep(self.folder.shared.poll)
            meanwhile()

    def check_folder(self) -> None:
        """Raises UserError where the folder is not the one any more in which shards were taken."""
        if not self.folder.shared.is_there(self.folder.paths.shards):
            raise self._gone()

    def release(self, shard: int) -> None:
        self._held.discard(shard)
        self.folder.shared.release(self.folder.paths.shard_lock(shard))

    def close(self) -> None:
        """Releases all, and takes no more."""
        with self._turn:
            self._closed = True
        for shard in list(self._held):
            self.release(shard)

    def _claim(self, shard: int) -> bool:
        with self._turn:
            if self._closed or not self.folder.shared.take(self.folder.paths.shard_lock(shard)):
                return False
            self._held.add(shard)
            return True

    def _names(self, *, may_be_gone: bool = False) -> set[str]:
        """Those of the files in the shards' folder."""
        try:
            return self.folder.shared.names(self.folder.paths.shards)
        except FileNotFoundError:
            if may_be_gone:
                return set()
            raise self._gone() from None
        except OSError as error:
            raise UserError(f"{self.folder.paths.shards}: can't be read: {error.strerror}") from None

    def _gone(self) -> UserError:
        return UserError(
            f"{self.folder.paths.root}: is gone or was replaced; restore it, and run the same command again to continue"
        )
