"""How processes share a split's shards: each takes the next free one by a claim.

Processes do not talk. A shard whose file exists is done; one that is claimed is being worked on, whatever machine holds
it; any other may be taken. So processes may come late, be killed or be started again at any time.
"""

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress

from fmrgen.distributed.rank import note
from fmrgen.errors import UserError
from fmrgen.storage.claims import Claims
from fmrgen.storage.shards import SplitFolder


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

    `wanted` are those of its part of the split, in the order in which it tries to take them.
    """

    def __init__(self, folder: SplitFolder, wanted: list[int]) -> None:
        self.folder, self.wanted = folder, wanted
        self.claims = Claims(folder.store)
        self._reported = 0  # of the holders from whom claims were taken over
        self._reserved: int | None = None

    def reserve(self) -> bool:
        """Take the shard that `take` will return next, so that others see this process at work; return False if none
        is free."""
        self._reserved = self.take()
        return self._reserved is not None

    def take(self) -> int | None:
        """Take the next shard that neither exists nor is held by anyone, and return it; None if there is none.

        What others have claimed comes last: they are at work on it, unless they are dead.
        """
        if self._reserved is not None:
            reserved, self._reserved = self._reserved, None
            return reserved
        names = self._names()
        claimed = self._claimed_among(names)
        missing = self.missing(names)
        for shard in sorted(missing, key=lambda shard: self.folder.paths.shard_claim(shard).name in claimed):
            if self._claim(shard, names):
                is_missing = self.folder.shard_path(shard).name not in self._names()
                former_holders = self.claims.former_holders[self._reported :]
                self._reported += len(former_holders)
                if is_missing:
                    for holder in former_holders:
                        note(f"took over the shards of {holder}, of which nothing was heard", of_one=True)
                    return shard
                self.release(shard)  # another process has just written it, so nothing was taken over
        return None

    def missing(self, names: set[str] | None = None) -> list[int]:
        """Return the wanted shards that do not exist yet, by the `names` of all files, if these are known."""
        names = self._names() if names is None else names
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
        return bool({"held", "silent"} & self._states())

    def await_holders(self) -> None:
        """Wait, for a lease at most, until it is clear who of those that hold shards lives, if no shard exists yet.

        A job that was killed as it began must not keep another one out.
        """
        while not self.is_begun and "silent" in self._states():
            time.sleep(self.folder.store.poll)

    def _states(self) -> set[str]:
        names = self._names(may_be_gone=True)
        claimed = self._claimed_among(names)
        return {self.claims.state(self.folder.paths.shards / claim, names) for claim in claimed}

    def _claimed_among(self, names: set[str]) -> set[str]:
        """Return the names of the claims on shards, without their generations."""
        return {name.rpartition(".")[0] for name in self.folder.paths.claims_among(names)}

    def wait(self, meanwhile: Callable[[], None]) -> None:
        """Wait until the shards that others hold are written, or one is free and taken; call `meanwhile` at times."""
        reports_at = time.monotonic() + 60
        missing = self.missing()
        while missing and not self.reserve():
            if time.monotonic() > reports_at:
                first = self.folder.shard_path(missing[0]).name
                note(f"{self.folder.paths.root}: waiting for {len(missing)} shards that others hold, such as {first}")
                reports_at = math.inf
            time.sleep(self.folder.store.poll)
            meanwhile()
            missing = self.missing()

    def check_folder(self) -> None:
        """Raise UserError if the folder is not the one any more in which shards were taken."""
        paths, names = self.folder.paths, set[str]()
        with suppress(OSError):
            names = self.folder.store.names(paths.provenance.parent)
        if names.isdisjoint((paths.begun.name, paths.provenance.name)):
            raise self._gone()

    def release(self, shard: int) -> None:
        self.claims.release(self.folder.paths.shard_claim(shard))

    def close(self) -> None:
        """Release all shards, and take no more."""
        self.claims.close()

    def _claim(self, shard: int, names: set[str]) -> bool:
        try:
            return self.claims.take(self.folder.paths.shard_claim(shard), names)
        except UserError:
            self.check_folder()  # it may have gone at this very moment
            raise

    def _names(self, *, may_be_gone: bool = False) -> set[str]:
        """Return the names of the files in the shards' folder; none if it is gone and `may_be_gone`."""
        try:
            return self.folder.store.names(self.folder.paths.shards)
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
