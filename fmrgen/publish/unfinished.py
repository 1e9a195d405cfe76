"""A split on the Hub while it is made: shards are sent as they are finished, and another machine can continue it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from fmrgen.errors import UserError
from fmrgen.hub.client import check_publication
from fmrgen.publish.push import another_split, check_may_hold_splits, old_shards, provenance_there
from fmrgen.publish.repo import Change, HubRepo, RepoState
from fmrgen.recipe.job import Recipe
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance, Skipped, check_config, parse_provenance, read_provenance
from fmrgen.storage.shards import IntactShard, SplitFolder, Tally
from fmrgen.storage.shared_disk import SharedDisk


class _CheckedShard(NamedTuple):
    """A shard that was read.

    Attributes:
        stamp: when its file was written, in nanoseconds.
        addition: sends the file.
        intact: its content.
    """

    stamp: int
    addition: CommitOperationAdd
    intact: IntactShard


class UnfinishedSplit:
    """A split in the making, whose finished shards a dataset repo holds too.

    The repo's card says how many there are, and `load_dataset` reads them; figures, the picture and a tag come with the
    whole split (`publish.push`).

    Args:
        recipe: of the split.
        output: the dataset folder.
        repo: `OWNER/NAME`; made if need be, private unless `public`.
        public: whether everyone may see the images.
        replace: whether the first shards replace another split of the same name.
        seconds: between two commits.
        on_note: called with a line on shards that can't be sent, or were fetched.
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
        self._checked: dict[str, _CheckedShard] = {}  # by their paths in the repo

    def bring(self) -> None:
        """Fetch the shards that another machine has sent and the folder lacks.

        Raises UserError if the Hub refuses, or a file has another digest than on record.
        """
        self._hub.log_in()
        state = self._hub.fetch_state()
        if state is None:
            return
        remote = self._remote_provenance(state)
        if remote is None:
            return
        with SharedDisk(self._recipe.output.claims).alone(self._paths):  # before other processes of a launch begin
            if not self._paths.provenance.exists():
                remote.write(self._paths)
            elif read_provenance(self._paths).fingerprint != self._recipe.fingerprint:
                return  # the job will report it
            root = self._paths.root
            missing = [name for name in remote.files if not (root / name).exists() and name in state.files]
            for name in missing:
                self._hub.bring(name, remote.files[name], state, root / name)
        if missing:
            self._on_note(f"{self._hub.name}: {len(missing)} of {remote.shard_count} shards were brought from there")

    @contextmanager
    def going(self) -> Iterator[None]:
        """Return a context in which finished shards are sent now and then, and at the end of a failed job."""
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
        """Commit the finished shards that the repo does not hold yet. Raises UserError if that fails."""
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
        planned = {folder.name_of(shard) for shard in range(folder.shards)}

        def change(small: Path, state: RepoState) -> Change:
            return self._change(provenance, planned, small, state)

        self._hub.update(change)

    def _change(self, provenance: Provenance, planned: set[str], small: Path, state: RepoState) -> Change:
        """Return the commit that adds the finished shards to a repo.

        Args:
            provenance: of the split.
            planned: the paths of all its shards in the repo.
            small: the folder of the repo's small files.
            state: of the repo.
        """
        check_publication(self._hub.name, state.private, self._public)
        check_may_hold_splits(self._hub.name, small, state)
        check_config(self._paths.at(small), provenance, self._hub.name)
        remote = provenance_there(self._paths, small)
        remote_fingerprint = None if remote is None else remote.fingerprint
        additions = [shard.addition for shard in self._checked.values()]
        old: list[CommitOperationDelete] = []
        if remote is not None and remote_fingerprint == provenance.fingerprint:
            if remote.is_finished:
                return Change("", [])  # the whole split is there
            additions = [addition for addition in additions if not _holds(state, addition)]
        else:
            old = old_shards(self._paths, (), state)
            is_taken = bool(old) or self._paths.at(small).provenance.exists()
            if is_taken and not self._replace:
                raise another_split(self._hub.name, self._paths.name, remote_fingerprint, provenance.fingerprint)
            old = [operation for operation in old if operation.path_in_repo not in planned]
        if additions:
            self._as_far_as_sent(provenance).write(self._paths.at(small))
        message = f"{len(self._checked)} of {provenance.shard_count} shards of {self._paths.name}"
        # Copies for each attempt: the client keeps in them what it found on the Hub at that one.
        return Change(message, [*map(copy, additions), *old])

    def _try_to_send(self) -> None:
        try:
            self.send()
        except (UserError, OSError, ValueError) as error:  # it may work the next time, and the job goes on meanwhile
            self._on_note(f"not sent this time: {error}")

    def _check(self, folder: SplitFolder, provenance: Provenance) -> None:
        """Read the shards that were written since the last time."""
        features = provenance.row_schema.features
        for shard in folder.there:
            name, path = folder.name_of(shard), folder.shard_path(shard)
            stamp = path.stat().st_mtime_ns
            if name in self._checked and self._checked[name].stamp == stamp:
                continue
            with suppress(UserError):  # the job will report it
                intact = folder.check_shard(shard, features, provenance.fingerprint)
                self._checked[name] = _CheckedShard(stamp, CommitOperationAdd(name, path.absolute()), intact)

    def _as_far_as_sent(self, provenance: Provenance) -> Provenance:
        """Return the provenance for the repo, of a split that has only the checked shards."""
        skipped: list[Skipped] = []
        tally = Tally()
        num_bytes, download_size = 0, 0
        for shard in self._checked.values():
            skipped += shard.intact.skipped
            tally = tally.plus(shard.intact.tally)
            num_bytes += shard.intact.num_bytes
            download_size += shard.intact.file_size
        return provenance.model_copy(
            update={
                "files": {name: _sha256(shard.addition) for name, shard in sorted(self._checked.items())},
                "skipped": skipped,
                "num_bytes": num_bytes,
                "download_size": download_size,
                "summary": {"rows": tally.rows, "valid_rows": tally.accepted},
            }
        )

    def _remote_provenance(self, state: RepoState) -> Provenance | None:
        """Return the repo's provenance of this very split; None if it has none, or that of another split."""
        path = self._paths.in_repo(self._paths.provenance)
        if path not in state.files:
            return None
        with suppress(ValueError):
            provenance = parse_provenance(json.loads(self._hub.read(path, state)))
            if provenance is not None and provenance.fingerprint == self._recipe.fingerprint:
                return provenance
        return None


def _holds(state: RepoState, add: CommitOperationAdd) -> bool:
    """Return whether a repo holds a file; the digest of a small one in git is not known, so its name must do."""
    return add.path_in_repo in state.files and state.files[add.path_in_repo] in (None, _sha256(add))


def _sha256(add: CommitOperationAdd) -> str:
    return add.upload_info.sha256.hex()
