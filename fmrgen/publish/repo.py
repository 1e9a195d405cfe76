"""A dataset repo on the Hub: its content, and commits that are repeated if another one comes first."""

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd

from fmrgen.errors import UserError
from fmrgen.files import write_atomically
from fmrgen.hub.client import HubClient, MissingError, Operation, check_no_token, client_errors
from fmrgen.hub.timeouts import checked_commit
from fmrgen.publish.card import renew_card
from fmrgen.publish.card import write_card as write_split_card
from fmrgen.storage.paths import SMALL_FILE, SplitPaths
from fmrgen.storage.provenance import read_provenance
from fmrgen.storage.store import Store


@dataclass(frozen=True)
class RepoState:
    """A dataset repo at one commit."""

    name: str  # `OWNER/NAME`
    commit: str  # its sha
    private: bool
    files: Mapping[str, str | None]  # the sha256 of each file by its path; None for a small one that git keeps


Change = tuple[str, list[Operation]]  # a commit: its message, and what it does besides the small files


class HubRepo(HubClient):
    """A dataset repo on the Hub, at the head of a branch."""

    def __init__(self, name: str, revision: str | None = None) -> None:
        super().__init__(name, "dataset", revision or "main")

    @property
    def is_pull_request(self) -> bool:
        return self.revision.startswith("refs/pr/")

    def fetch_state(self) -> RepoState | None:
        """Return the repo at the branch's head; None if there is no such repo or branch."""
        try:
            return self.ask(self._fetch)
        except MissingError:
            return None

    def content(self, path: str, state: RepoState) -> bytes:
        """Return a small file of the repo at a commit."""
        return self.ask(partial(self.read, [path], state.commit))[path]

    def make(self, private: bool) -> None:
        """Make the repo and the branch, unless they exist."""
        if self.is_pull_request:
            raise UserError(f"{self.name}: has no pull request {self.revision}; open one on its page, or leave it out")
        options: dict[str, Any] = {"repo_type": self.kind, "exist_ok": True}
        self.ask(partial(self.api.create_repo, self.name, private=private, **options))
        if self.revision != "main":
            self.ask(partial(self.api.create_branch, self.name, branch=self.revision, **options))

    def update(
        self, change: Callable[[Path, RepoState], Change], write_card: Callable[[Path], None] | None = None
    ) -> tuple[str, str | None]:
        """Commit a change, and return the commit and its address.

        If there is nothing to commit, the commit is the current one, and the address None. If another commit comes
        first, everything is repeated on that one.

        `change` gets a folder with the repo's small files (the card, provenance, results) as they are now, changes and
        adds such files, and returns the rest of the commit. The card is then rewritten from the folder, by default that
        of splits with their images.
        """
        write = write_card or partial(write_split_card, repo=self.name)
        return self.ask(partial(self._update, change, write), all_of_the_hub=False)

    def tag(self, name: str, commit: str, message: str) -> None:
        make = partial(self.api.create_tag, self.name, tag=name, tag_message=message, revision=commit)
        self.ask(partial(make, repo_type=self.kind, exist_ok=True))

    def tags(self) -> set[str]:
        refs = self.ask(partial(self.api.list_repo_refs, self.name, repo_type=self.kind))
        return {tag.name for tag in refs.tags}

    def _fetch(self) -> RepoState:
        with client_errors():
            info = self.api.dataset_info(self.name, revision=self.revision, files_metadata=True)
            files = {}
            for file in info.siblings or []:
                files[str(file.rfilename)] = file.lfs.sha256 if file.lfs else None
        return RepoState(self.name, checked_commit(info.sha, self.name), bool(info.private), files)

    def _update(
        self, change: Callable[[Path, RepoState], Change], write_card: Callable[[Path], None]
    ) -> tuple[str, str | None]:
        state = self._fetch()
        small_files = [path for path in state.files if re.fullmatch(SMALL_FILE, path)]
        before = self.read(small_files, state.commit)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for path, content in before.items():
                write_atomically(folder / path, content, durable=False)
            message, operations = change(folder, state)
            write_card(folder)
            files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            after = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
            small = {path: content for path, content in after.items() if before.get(path) != content}
            if not small and not operations:
                return state.commit, None
            check_no_token(small)
            operations += [CommitOperationAdd(path, content) for path, content in small.items()]
            commit = self.send(operations, message, revision=self.revision, parent_commit=state.commit)
        return commit.oid, str(commit.commit_url)


def add_to_split(
    paths: SplitPaths,
    repo: str | None,
    files: str,
    message: str,
    write: Callable[[SplitPaths], object],
) -> str | None:
    """Let `write` put small files beside a split, in its folder or its repo, and renew the card that shows them.

    `repo` is None for a folder; `files` is the digest of the split's files, which the small ones are about. `write`
    gets the paths of the split among its small files as they are now. Returns the address of the commit, or the commit
    if it is an earlier one; None for a folder. Raises UserError if the split was remade meanwhile, or can't be written
    to.
    """

    def write_checked(root: Path) -> None:
        if read_provenance(paths.at(root)).files_digest != files:
            raise UserError(f"{repo or root}:{paths.name}: was generated again since; run this on the current split")
        write(paths.at(root))

    if repo is None:
        write_checked(paths.root)
        renew_card(Store(paths.root))
        return None

    def change(folder: Path, state: RepoState) -> Change:
        write_checked(folder)
        return message, []

    commit, url = HubRepo(repo).update(change)
    return url or commit
