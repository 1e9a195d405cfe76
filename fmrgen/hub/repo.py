"""A dataset repo on the Hub: what it holds, and commits that are laid on what others committed in between."""

import random
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    parse_ratelimit_headers,
    validate_repo_id,
)

from fmrgen.errors import UserError, one_line
from fmrgen.hub.card import write_card
from fmrgen.hub_timeouts import LONGEST_WAIT, bound_requests, checked_commit
from fmrgen.storage.paths import CARD, SMALL_FILE

_ATTEMPTS = 6
_CONFLICTS = (409, 412)  # another commit came first
_TRANSIENT = (408, 429, 500, 502, 503, 504)

# What asking the Hub raises, the plainest first: what the server says comes wrapped in what the client makes of it.
_OF_THE_HUB = (HTTPError, ConnectionError, TimeoutError, HFValidationError, LocalTokenNotFoundError)
# How hf_xet, which sends large files, says what a server answered.
_STATUS_IN_WORDS = re.compile(r"HTTP status (?:client|server) error \((\d{3})")

Operation = CommitOperationAdd | CommitOperationDelete
Found = TypeVar("Found")


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

    All that is asked of the Hub is asked again, a bounded number of times, where it is busy, fails or can't be reached;
    `on_wait` is told so in a line. What it refuses for good is a UserError that never holds the token.
    """

    def __init__(self, name: str, revision: str | None, on_wait: Callable[[str], None]) -> None:
        bound_requests()
        self._api, self._revision, self._on_wait = HfApi(), revision or "main", on_wait
        self.name = name
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise self._as_user_error(error, None) from None

    @property
    def is_pull_request(self) -> bool:
        return self._revision.startswith("refs/pr/")

    def log_in(self) -> None:
        """Proves that the Hub knows the caller; a name without a namespace is one of theirs from here on."""
        if not (get_token() or "").isascii():
            raise UserError("the token contains a character that no token has; copy it again (HF_TOKEN, hf auth login)")
        account = self._with_retries(self._api.whoami)
        if "/" not in self.name:
            self.name = f"{account['name']}/{self.name}"

    def fetch_state(self) -> RepoState | None:
        """The repo at the branch's head, None where there is no such repo or branch."""
        return self._fetch_if_there(self._revision)

    def is_private(self) -> bool | None:
        """Whether the repo is private, whatever its branches; None where there is none."""
        state = self._fetch_if_there(None)
        return None if state is None else state.private

    def read(self, path: str, state: RepoState) -> bytes:
        """A small file of the repo as it was."""
        return self._with_retries(partial(self._read, [path], state))[path]

    def create(self, private: bool) -> None:
        """Makes the repo, and the branch, where they are not there."""
        if self.is_pull_request:
            raise UserError(f"{self.name}: has no pull request {self._revision}; open one on its page, or leave it out")
        make = partial(self._api.create_repo, self.name, repo_type="dataset", private=private, exist_ok=True)
        self._with_retries(make)
        if self._revision != "main":
            branch = partial(self._api.create_branch, self.name, branch=self._revision, repo_type="dataset")
            self._with_retries(partial(branch, exist_ok=True))

    def update(self, change: Callable[[Path, RepoState], Change]) -> tuple[str, str | None]:
        """Commits what `change` makes of the repo; returns the commit and its address. Where there is nothing to
        commit, the commit is the one that was found, without an address.

        `change` gets a folder with the repo's small files (the card, provenance, results) as they are now, changes and
        adds such, and returns the rest. The card is made anew from the folder. Where another commit comes first, all of
        it is done again on that one.
        """
        return self._with_retries(partial(self._update, change), all_of_the_hub=False)

    def tag(self, name: str, commit: str, message: str) -> None:
        make = partial(self._api.create_tag, self.name, tag=name, tag_message=message, revision=commit)
        self._with_retries(partial(make, repo_type="dataset", exist_ok=True))

    def tags(self) -> set[str]:
        refs = self._with_retries(partial(self._api.list_repo_refs, self.name, repo_type="dataset"))
        return {tag.name for tag in refs.tags}

    def _fetch_if_there(self, revision: str | None) -> RepoState | None:
        try:
            return self._with_retries(partial(self._fetch, revision))
        except _MissingError:
            return None

    def _fetch(self, revision: str | None) -> RepoState:
        with _client_errors():
            info = self._api.dataset_info(self.name, revision=revision, files_metadata=True)
        files = {file.rfilename: file.lfs.sha256 if file.lfs else None for file in info.siblings or []}
        return RepoState(self.name, checked_commit(info.sha, self.name), bool(info.private), files)

    def _update(self, change: Callable[[Path, RepoState], Change]) -> tuple[str, str | None]:
        state = self._fetch(self._revision)
        before = self._read([path for path in state.files if path == CARD or re.fullmatch(SMALL_FILE, path)], state)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for path, content in before.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
            changed = change(folder, state)
            write_card(folder, self.name)
            small = [
                CommitOperationAdd(path, content)
                for path, content in _contents(folder).items()
                if before.get(path) != content
            ]
            if not small and not changed.operations:
                return state.commit, None
            _check_no_token(small)
            with _upload_errors(self.name):
                done = self._api.create_commit(
                    self.name,
                    [*changed.operations, *small],
                    commit_message=changed.message,
                    repo_type="dataset",
                    revision=self._revision,
                    parent_commit=state.commit,
                )
        return done.oid, str(done.commit_url)

    def _read(self, paths: list[str], state: RepoState) -> dict[str, bytes]:
        """Small files by their paths, as they are in that commit."""
        read = partial(hf_hub_download, state.name, repo_type="dataset", revision=state.commit)
        with ThreadPoolExecutor(8) as pool, no_bars(), _client_errors():
            return dict(zip(paths, pool.map(lambda path: Path(read(path)).read_bytes(), paths), strict=True))

    def _with_retries(self, ask: Callable[[], Found], all_of_the_hub: bool = True) -> Found:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with _client_errors() if all_of_the_hub else nullcontext():
                    return ask()
            except UserError:
                raise
            except Exception as error:
                cause = next((link for link in _chain(error) if isinstance(link, _OF_THE_HUB)), None)
                if cause is None:
                    raise
                status = _status(cause)
                wait = _seconds_to_wait(cause, status, attempt)
                if wait is None or attempt == _ATTEMPTS:
                    raise self._as_user_error(cause, status) from None
                what = f"the Hub answered {status}" if status else f"{_trouble(cause)} ({one_line(cause, 80)})"
                self._on_wait(f"{what}; trying again in {wait:.0f} s ({attempt} of {_ATTEMPTS - 1})")
                time.sleep(wait)
        raise AssertionError("every attempt returns or raises")

    def _as_user_error(self, error: BaseException, status: int | None) -> UserError:
        """What the Hub said, and the cure."""
        said = one_line(getattr(error, "server_message", None) or error, 160)
        if isinstance(error, OfflineModeIsEnabled):
            return UserError(f"{self.name}: HF_HUB_OFFLINE is set; unset it to reach the Hub")
        if isinstance(error, HFValidationError):
            return UserError(f"{self.name}: not a valid repo name, choose another: {said}")
        if isinstance(error, LocalTokenNotFoundError) or (
            status == 401 and not isinstance(error, RepositoryNotFoundError)
        ):
            return UserError(
                "you are not logged in to the Hub: log in with `hf auth login`, or set HF_TOKEN to a valid token"
            )
        if isinstance(error, GatedRepoError):
            return UserError(f"{self.name}: is gated and you have no access: request it on its page on the Hub")
        if isinstance(error, RevisionNotFoundError):
            return _MissingError(f"{self.name}: has no revision {self._revision}")
        if isinstance(error, RepositoryNotFoundError):
            return _MissingError(f"{self.name}: no such dataset repo, or none that your token may read")
        if status == 403:
            return UserError(
                f"{self.name}: the Hub refused: {said}; if you lack the rights, use a token with write access "
                f"to {self.name.partition('/')[0]}, or another name"
            )
        if status in _CONFLICTS:
            return UserError(
                f"{self.name}: other commits came first {_ATTEMPTS} times; run the same command again to continue"
            )
        if status is not None:
            again = "; run the same command again to continue" if status in _TRANSIENT else ""
            return UserError(f"{self.name}: the Hub answered {status}{again}: {said}")
        return UserError(f"{self.name}: {_trouble(error)}; run the same command again to continue ({said})")


class _GarbledError(ConnectionError):
    """An answer that is cut short, or not what the Hub's client knows."""


@contextmanager
def _client_errors() -> Iterator[None]:
    """Around what the Hub's client does alone: whatever it makes of a broken answer is trouble with the connection."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        of_this_machine = isinstance(error, OSError) and error.errno is not None
        if of_this_machine or any(isinstance(link, _OF_THE_HUB) for link in _chain(error)):
            raise
        raise _GarbledError(f"{type(error).__name__}: {one_line(error, 120)}") from error


def _trouble(error: BaseException) -> str:
    return "the Hub gave a broken answer" if isinstance(error, _GarbledError) else "the Hub can't be reached"


class _MissingError(UserError):
    """The repo or the branch is not there."""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """What the Hub answered, where it did."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code
    found = _STATUS_IN_WORDS.search(str(error))
    return int(found[1]) if found else None


@contextmanager
def _upload_errors(name: str) -> Iterator[None]:
    """Makes what the client throws while it sends, and what is no answer of the Hub's, one that can be told."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the Hub's advice on metadata that others wrote
            yield
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        if any(isinstance(link, _OF_THE_HUB) for link in _chain(error)):
            raise
        if isinstance(error, ValueError) and not isinstance(error, JSONDecodeError):
            raise UserError(f"{name}: the Hub rejected the files: {one_line(error, 160)}") from error
        raise ConnectionError(f"while sending: {one_line(error)}") from error


def _seconds_to_wait(error: BaseException, status: int | None, attempt: int) -> float | None:
    """How long to wait before asking again; None where asking again is of no use."""
    if status in _CONFLICTS:
        return random.uniform(0, 2 * attempt)  # those who met once should not meet again
    backoff = 2.0 ** (attempt - 1) * random.uniform(0.5, 1)
    if status in _TRANSIENT:
        asked = _asked_seconds(error.response.headers) if isinstance(error, HfHubHTTPError) else None
        return min(asked or backoff, LONGEST_WAIT)
    permanent = isinstance(error, OfflineModeIsEnabled | LocalTokenNotFoundError | HFValidationError)
    return backoff if status is None and not permanent else None


def _asked_seconds(headers: Mapping[str, str]) -> float | None:
    """How long the Hub asks to wait, where it does."""
    window = parse_ratelimit_headers(headers)
    if window is not None and window.remaining == 0:
        return window.reset_in_seconds + 1
    asked = headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else None


@contextmanager
def no_bars() -> Iterator[None]:
    """Without the progress bars of the Hub's client, for the work of a moment."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def _contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path in it."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _check_no_token(operations: list[CommitOperationAdd]) -> None:
    token = get_token()
    for operation in operations:
        content = operation.path_or_fileobj
        if token and isinstance(content, bytes) and token.encode() in content:
            raise UserError(
                f"{operation.path_in_repo}: contains your token, which readers would see; remove it from the recipe"
            )
