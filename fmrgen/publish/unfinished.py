"""A split on the Hub while it is made: finished shards go there as they come, and another machine goes on from them."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd

from fmrgen.errors import UserError
from fmrgen.hub.client import check_publication
from fmrgen.publish.push import another_split, check_may_hold_splits, old_shards, provenance_there
from fmrgen.publish.repo import Change, HubRepo, RepoState
from fmrgen.recipe.job import Recipe
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance, check_config, parse_provenance, read_provenance
from fmrgen.storage.shards import IntactShard, SplitFolder
from fmrgen.storage.shared_disk import SharedDisk


class _Checked(NamedTuple):
    """A shard that was read: when its file was written, how it is sent, and what it holds."""

    stamp: int
    add: CommitOperationAdd
    found: IntactShard


class UnfinishedSplit:
    """A split in the making that a dataset repo holds too, as far as it is there.

    The repo's card says how much that is, and `load_dataset` reads it; figures, the picture and a tag come with the
    whole split (`publish.push`).

    Args:
        recipe: of the split.
        output: the dataset folder.
        repo: `OWNER/NAME`; made if need be, private unless `public`.
        public: whether everyone may see the images.
        replace: whether another split of that name is replaced, by the first shards.
        seconds: between two commits.
        on_note: called with a line on what can't be sent, or was found.
    """

    def __init__(
        self,
        recipe: Recipe,
        output: Path,
        repo: str,
        *,
        public: bool,
        replace: bool,
        seconds: float,
        on_note: Callable[[str], None],
    ) -> None:
        self._recipe, self._public, self._replace = recipe, public, replace
        self._seconds, self._on_note = seconds, on_note
        self._paths = SplitPaths(output, recipe.output.config, recipe.output.split)
        self._hub = HubRepo(repo, None, on_note)
        self._checked: dict[str, _Checked] = {}

    def bring(self) -> None:
        """Brings the shards that another machine has sent, where the folder lacks them.

        Raises UserError where the Hub refuses, or holds other files than it says.
        """
        self._hub.log_in()
        state = self._hub.fetch_state()
        if state is None or (there := self._said(state)) is None:
            return
        with SharedDisk(self._recipe.output.claims).alone(self._paths):  # before other processes of a launch begin
            if not self._paths.provenance.exists():
                there.write(self._paths)
            elif read_provenance(self._paths).fingerprint != self._recipe.fingerprint:
                return  # which the job will say
            root = self._paths.root
            missing = [name for name in there.files if not (root / name).exists() and name in state.files]
            for name in missing:
                self._hub.bring(name, there.files[name], state, root / name)
        if missing:
            self._on_note(f"{self._hub.name}: {len(missing)} of {there.shard_count} shards were brought from there")

    @contextmanager
    def going(self) -> Iterator[None]:
        """Sends what is finished now and then, and once more where the job ends before its time."""
        ended = threading.Event()

        def send_now_and_then() -> None:
            while not ended.wait(self._seconds):
                self._try_to_send()

        sender = threading.Thread(target=send_now_and_then, daemon=True, name="to the Hub")
        sender.start()
        try:
            yield
        except BaseException:
            ended.set()
            sender.join()
            self._try_to_send()
            raise
        ended.set()
        sender.join()

    def send(self) -> None:
        """Commits the finished shards that the repo does not hold yet. Raises UserError where it can't."""
        if not self._paths.provenance.exists():
            return
        provenance = read_provenance(self._paths)
        if provenance.fingerprint != self._recipe.fingerprint:
            return  # another job's
        folder = SplitFolder.of(self._paths, provenance)
        self._check(folder, provenance)
        if not self._checked or provenance.is_finished:
            return
        if self._hub.fetch_state() is None:
            self._hub.create(private=not self._public)

        def change(small: Path, state: RepoState) -> Change:
            check_publication(self._hub.name, state.private, self._public)
            check_may_hold_splits(self._hub.name, small, state)
            check_config(self._paths.at(small), provenance, self._hub.name)
            there, planned = provenance_there(self._paths, small), set(map(folder.name_of, range(folder.shards)))
            another = None if there is None else there.fingerprint
            if another != provenance.fingerprint:
                there = None
            if there is not None and there.is_finished:
                return Change("", [])
            old = [] if there is not None else old_shards(self._paths, (), state)
            is_taken = bool(old) or self._paths.at(small).provenance.exists()
            if there is None and is_taken and not self._replace:
                raise another_split(self._hub.name, self._paths.name, another, provenance.fingerprint)
            new = [one.add for one in self._checked.values() if there is None or not _holds(state, one.add)]
            if new:
                self._as_far_as_sent(provenance).write(self._paths.at(small))
            old = [operation for operation in old if operation.path_in_repo not in planned]
            done = f"{len(self._checked)} of {provenance.shard_count} shards of {self._paths.name}"
            # Copies for each attempt: the client keeps in them what it found on the Hub at that one.
            return Change(done, [*map(copy, new), *old])

        self._hub.update(change)

    def _try_to_send(self) -> None:
        try:
            self.send()
        except (UserError, OSError, ValueError) as error:  # the next time it may work, and the job goes on meanwhile
            self._on_note(f"not sent this time: {error}")

    def _check(self, folder: SplitFolder, provenance: Provenance) -> None:
        """Reads the shards that have come since the last time."""
        features = provenance.row_schema.features
        for shard in folder.there:
            name, path = folder.name_of(shard), folder.shard_path(shard)
            stamp = path.stat().st_mtime_ns
            if name not in self._checked or self._checked[name].stamp != stamp:
                with suppress(UserError):  # the job will say so
                    found = folder.check_shard(shard, features, provenance.fingerprint)
                    self._checked[name] = _Checked(stamp, CommitOperationAdd(name, path.absolute()), found)

    def _as_far_as_sent(self, provenance: Provenance) -> Provenance:
        """What the repo says of the split: that it is not finished, and which shards are there."""
        found = [one.found for one in self._checked.values()]
        return provenance.model_copy(
            update={
                "files": {name: _sha256(one.add) for name, one in sorted(self._checked.items())},
                "skipped": [entry for shard in found for entry in shard.skipped],
                "num_bytes": sum(shard.num_bytes for shard in found),
                "download_size": sum(shard.file_size for shard in found),
                "summary": {
                    "rows": sum(shard.tally.rows for shard in found),
                    "valid_rows": sum(shard.tally.accepted for shard in found),
                },
            }
        )

    def _said(self, state: RepoState) -> Provenance | None:
        """What the repo says of this very split; None where it says nothing, or of another one."""
        path = self._paths.in_repo(self._paths.provenance)
        if path not in state.files:
            return None
        with suppress(ValueError):
            there = parse_provenance(json.loads(self._hub.read(path, state)))
            if there is not None and there.fingerprint == self._recipe.fingerprint:
                return there
        return None


def _holds(state: RepoState, add: CommitOperationAdd) -> bool:
    """Whether a repo holds a file; of a small one that it keeps in git the name must do."""
    return add.path_in_repo in state.files and state.files[add.path_in_repo] in (None, _sha256(add))


def _sha256(add: CommitOperationAdd) -> str:
    return add.upload_info.sha256.hex()
