"""A dataset repo on the Hub: what it holds, and commits that are laid on what others committed in between."""

import re
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, hf_hub_download

from fmrgen.errors import UserError
from fmrgen.files import sha256_of, write_atomically
from fmrgen.hub.client import HubClient, MissingError, Operation, check_no_token, client_errors, upload_errors
from fmrgen.hub.timeouts import checked_commit, no_bars
from fmrgen.publish.card import write_card
from fmrgen.storage.paths import CARD, SMALL_FILE


@dataclass(frozen=True)
class RepoState:
    """A dataset repo as it was at one commit: its files, with the sha256 of the large ones."""

    name: str
    commit: str
    private: bool
    files: Mapping[str, str | None]


@dataclass(frozen=True)
class Change:
    """A commit to be: its message, and what it does beside the small files that were changed in the folder."""

    message: str
    operations: list[Operation]


class HubRepo:
    """A dataset repo on the Hub, at the head of a branch.

    All that is asked of the Hub is asked as `HubClient` does.
    """

    def __init__(self, name: str, revision: str | None, on_wait: Callable[[str], None]) -> None:
        self._revision = revision or "main"
        self._hub = HubClient(name, "dataset", self._revision, on_wait)

    @property
    def name(self) -> str:
        return self._hub.name

    @property
    def is_pull_request(self) -> bool:
        return self._revision.startswith("refs/pr/")

    def log_in(self) -> None:
        """Proves that the Hub knows the caller; a name without a namespace is one of theirs from here on."""
        self._hub.log_in()

    def fetch_state(self) -> RepoState | None:
        """The repo at the branch's head, None where there is no such repo or branch."""
        try:
            return self._hub.ask(self._fetch)
        except MissingError:
            return None

    def is_private(self) -> bool | None:
        """Whether the repo is private, whatever its branches; None where there is none."""
        return self._hub.is_private()

    def read(self, path: str, state: RepoState) -> bytes:
        """A small file of the repo as it was."""
        return self._hub.ask(partial(self._read, [path], state))[path]

    def bring(self, path: str, sha256: str, state: RepoState, target: Path) -> None:
        """Copies a file of the repo as it was to `target`. Raises UserError where it is not of that digest."""
        read = partial(hf_hub_download, state.name, path, repo_type="dataset", revision=state.commit)
        with no_bars():
            found = Path(self._hub.ask(read))
        if sha256_of(found) != sha256:
            raise UserError(f"{self.name}: {path} is not the file whose sha256 is on record there; delete it")
        write_atomically(target, found.read_bytes())

    def create(self, private: bool) -> None:
        """Makes the repo, and the branch, where they are not there."""
        if self.is_pull_request:
            raise UserError(f"{self.name}: has no pull request {self._revision}; open one on its page, or leave it out")
        make = partial(self._hub.api.create_repo, self.name, repo_type="dataset", private=private, exist_ok=True)
        self._hub.ask(make)
        if self._revision != "main":
            branch = partial(self._hub.api.create_branch, self.name, branch=self._revision, repo_type="dataset")
            self._hub.ask(partial(branch, exist_ok=True))

    def update(self, change: Callable[[Path, RepoState], Change]) -> tuple[str, str | None]:
        """Commits what `change` makes of the repo; returns the commit and its address. Where there is nothing to
        commit, the commit is the one that was found, without an address.

        `change` gets a folder with the repo's small files (the card, provenance, results) as they are now, changes and
        adds such, and returns the rest. The card is made anew from the folder. Where another commit comes first, all of
        it is done again on that one.
        """
        return self._hub.ask(partial(self._update, change), all_of_the_hub=False)

    def tag(self, name: str, commit: str, message: str) -> None:
        make = partial(self._hub.api.create_tag, self.name, tag=name, tag_message=message, revision=commit)
        self._hub.ask(partial(make, repo_type="dataset", exist_ok=True))

    def tags(self) -> set[str]:
        refs = self._hub.ask(partial(self._hub.api.list_repo_refs, self.name, repo_type="dataset"))
        return {tag.name for tag in refs.tags}

    def _fetch(self) -> RepoState:
        with client_errors():
            info = self._hub.api.dataset_info(self.name, revision=self._revision, files_metadata=True)
            files = {str(file.rfilename): file.lfs.sha256 if file.lfs else None for file in info.siblings or []}
        return RepoState(self.name, checked_commit(info.sha, self.name), bool(info.private), files)

    def _update(self, change: Callable[[Path, RepoState], Change]) -> tuple[str, str | None]:
        state = self._fetch()
        before = self._read([path for path in state.files if path == CARD or re.fullmatch(SMALL_FILE, path)], state)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for path, content in before.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
            changed = change(folder, state)
            write_card(folder, self.name)
            small = {path: content for path, content in _contents(folder).items() if before.get(path) != content}
            if not small and not changed.operations:
                return state.commit, None
            check_no_token(small)
            with upload_errors(self.name):
                done = self._hub.api.create_commit(
                    self.name,
                    [*changed.operations, *(CommitOperationAdd(path, content) for path, content in small.items())],
                    commit_message=changed.message,
                    repo_type="dataset",
                    revision=self._revision,
                    parent_commit=state.commit,
                )
        return done.oid, str(done.commit_url)

    def _read(self, paths: list[str], state: RepoState) -> dict[str, bytes]:
        """Small files by their paths, as they are in that commit."""
        read = partial(hf_hub_download, state.name, repo_type="dataset", revision=state.commit)
        with ThreadPoolExecutor(8) as pool, no_bars(), client_errors():
            return dict(zip(paths, pool.map(lambda path: Path(read(path)).read_bytes(), paths), strict=True))


def _contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path in it."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
