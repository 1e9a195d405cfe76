"""How processes share a split's shards: each takes the next free one by a claim, which ends with the process.

Processes do not talk. A shard whose file exists is done; one that is claimed is being worked on, whatever machine holds
it; any other may be taken. So processes may come late, be killed or be started again at any time.
"""

import os
import threading
import time
from collections.abc import Callable

from fmrgen.errors import UserError
from fmrgen.storage.shards import SplitFolder

_PATIENCE = 60.0  # seconds of waiting for others before a note
_NAMED = 3  # shards in that note


def own_shards(shards: int, part: tuple[int, int] | None) -> list[int]:
    """Return the shards of the `part` (i, n), or all, in the order in which this process tries to take them.

    Each process of a launcher begins at another one.
    """
    number, parts = part or (1, 1)
    own = list(range(number - 1, shards, parts))
    rank = int(os.environ.get("RANK", "0"))
    world_size = max(1, int(os.environ.get("WORLD_SIZE", "1")))
    first = rank * len(own) // world_size
    return own[first:] + own[:first]


class ShardClaims:
    """The shards that this process holds.

    Args:
        folder: of the split.
        wanted: the shards of this process's part of the split, in the order in which it tries to take them.
        on_note: called with a line when it takes over shards of another process.
    """

    def __init__(
        self, folder: SplitFolder, wanted: list[int], on_note: Callable[[str], None] = lambda line: None
    ) -> None:
        self.folder, self.wanted, self._on_note = folder, wanted, on_note
        self._former_holders = 0  # how many of the shared folder's were looked at
        self._reported: set[str] = set()  # of these
        self._held: set[int] = set()
        self._reserved: int | None = None
        self._closed = False
        self._turn = threading.Lock()  # a thread that reads ahead takes shards too

    def reserve(self) -> bool:
        """Take the shard that `take` will return next, so that others see this process at work; return False if none
        is free."""
        self._reserved = self.take()
        return self._reserved is not None

    def take(self) -> int | None:
        """Take the next shard that neither exists nor is held by anyone, and return it; None if there is none."""
        if self._reserved is not None:
            reserved, self._reserved = self._reserved, None
            return reserved
        shared = self.folder.shared
        for shard in self.missing():
            if shard in self._held or not self._claim(shard):
                continue
            if not shared.exists(self.folder.shard_path(shard)):
                self._report_takeovers()
                return shard
            # Another process has just written it, so nothing was taken over.
            self._former_holders = len(shared.former_holders)
            self.release(shard)
        return None

    def _report_takeovers(self) -> None:
        former_holders = self.folder.shared.former_holders
        for holder in former_holders[self._former_holders :]:
            if holder not in self._reported:
                self._on_note(f"took over the shards of {holder}, of which nothing was heard")
                self._reported.add(holder)
        self._former_holders = len(former_holders)

    def missing(self) -> list[int]:
        """Return the wanted shards that do not exist yet."""
        names = self._names()
        return [shard for shard in self.wanted if self.folder.shard_path(shard).name not in names]

    @property
    def is_begun(self) -> bool:
        """Whether any shards of the split exist, whatever their number and size."""
        return bool(self.folder.paths.shards_among(self._names(may_be_gone=True)))

    @property
    def is_split_whole(self) -> bool:
        """Whether every shard of the split exists, those of other parts too."""
        names = self._names()
        return all(self.folder.shard_path(shard).name in names for shard in range(self.folder.shards))

    def anyone_at_work(self) -> bool:
        """Return whether another process holds a shard of the split."""
        paths = self.folder.paths
        claims = paths.claims_among(self._names(may_be_gone=True))
        is_anyone = any(self.folder.shared.is_taken(paths.shards / name) for name in claims)
        self._report_takeovers()
        return is_anyone

    def wait(self, on_note: Callable[[str], None], meanwhile: Callable[[], None]) -> None:
        """Wait until the shards that others hold are written, or one of them is free and taken.

        Args:
            on_note: called with a line if it takes long.
            meanwhile: called now and then.
        """
        begun = time.monotonic()
        is_reported = False
        missing = self.missing()
        while missing and not self.reserve():
            if not is_reported and time.monotonic() - begun > _PATIENCE:
                names = ", ".join(self.folder.paths.shard_lock(shard).name for shard in missing[:_NAMED])
                more = ", …" if len(missing) > _NAMED else ""
                on_note(f"{self.folder.paths.root}: waiting for {len(missing)} shards that others hold ({names}{more})")
                is_reported = True
            time.sleep(self.folder.shared.poll)
            meanwhile()
            missing = self.missing()

    def check_folder(self) -> None:
        """Raise UserError if the folder is not the one any more in which shards were taken."""
        if not self.folder.shared.is_there(self.folder.paths.shards):
            raise self._gone()

    def release(self, shard: int) -> None:
        self._held.discard(shard)
        self.folder.shared.release(self.folder.paths.shard_lock(shard))

    def close(self) -> None:
        """Release all shards, and take no more."""
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
        """Return the names of the files in the shards' folder; none if it is gone and `may_be_gone`."""
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
