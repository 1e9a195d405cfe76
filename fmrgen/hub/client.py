"""Asking the Hub: again where it is busy or fails, a bounded number of times, and in a line where it refuses."""

import random
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from json import JSONDecodeError
from typing import Any, Literal, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
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
from huggingface_hub.utils import parse_ratelimit_headers, validate_repo_id

from fmrgen.errors import UserError, chain, one_line, option
from fmrgen.hub.timeouts import LONGEST_WAIT, UnreachableError, bound_requests

_ATTEMPTS = 6
_CONFLICTS = (409, 412)  # another commit came first
_INVALID = (400, 422)  # what was sent
_TRANSIENT = (408, 429, 500, 502, 503, 504)

# What asking the Hub raises, the plainest first: what the server says comes wrapped in what the client makes of it.
_OF_THE_HUB = (HTTPError, ConnectionError, TimeoutError, HFValidationError, LocalTokenNotFoundError)
# How hf_xet, which sends large files, says what a server answered.
_STATUS_IN_WORDS = re.compile(r"HTTP status (?:client|server) error \((\d{3})")

Operation = CommitOperationAdd | CommitOperationDelete
RepoKind = Literal["dataset", "model", "space"]
Found = TypeVar("Found")


class HubClient:
    """The Hub, as it is asked about one repo.

    All that is asked is asked again, a bounded number of times, where the Hub is busy, fails or can't be reached;
    `on_wait` is called with a line. What it refuses for good is a UserError that never holds the token.

    Attributes:
        name: of the repo.
        kind: of the repo.
        revision: that is asked for, for what is said of it.
        api: the Hub's own client.
    """

    def __init__(self, name: str, kind: RepoKind, revision: str, on_wait: Callable[[str], None]) -> None:
        bound_requests()
        self.name, self.kind, self.revision, self.api, self._on_wait = name, kind, revision, HfApi(), on_wait
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise self._as_user_error(error, None) from None

    def log_in(self) -> str:
        """Proves that the Hub knows the caller, and returns their name; a repo without a namespace is one of theirs
        from here on.
        """
        if not (get_token() or "").isascii():
            raise UserError("the token contains a character that no token has; copy it again (HF_TOKEN, hf auth login)")
        account = self.ask(lambda: str(self.api.whoami()["name"]))
        if "/" not in self.name:
            self.name = f"{account}/{self.name}"
        return account

    def is_private(self) -> bool | None:
        """Whether the repo is private; None where there is none."""
        try:
            return self.ask(lambda: bool(self.api.repo_info(self.name, repo_type=self.kind).private))
        except MissingError:
            return None

    def commit(self, message: str, operations_on: Callable[[set[str]], list[Operation]]) -> str:
        """Commits what `operations_on` makes of the names of the files that are there; returns the address.

        Where another commit comes first, all of it is done again on that one.
        """

        def once() -> str:
            with client_errors():
                info: Any = self.api.repo_info(self.name, repo_type=self.kind)
                there = {str(file.rfilename) for file in info.siblings or []}
            operations = operations_on(there)
            with upload_errors(self.name):
                done = self.api.create_commit(
                    self.name, operations, commit_message=message, repo_type=self.kind, parent_commit=info.sha
                )
            return str(done.commit_url)

        return self.ask(once, all_of_the_hub=False)

    def ask(self, question: Callable[[], Found], all_of_the_hub: bool = True) -> Found:
        """What `question` returns; it is asked again where that helps.

        `all_of_the_hub` is whether nothing but the Hub's client is in it, so that whatever it raises is trouble with
        the connection.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with client_errors() if all_of_the_hub else nullcontext():
                    return question()
            except UserError:
                raise
            except Exception as error:
                cause = next((link for link in chain(error) if isinstance(link, _OF_THE_HUB)), None)
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
        message = getattr(error, "server_message", None)
        said = one_line(Exception(message) if message else error, 160)
        if isinstance(error, UnreachableError):
            return UserError(f"{self.name}: the Hub can't be reached ({error}); run the same command again when it can")
        if isinstance(error, OfflineModeIsEnabled):
            return UserError(f"{self.name}: HF_HUB_OFFLINE is set; unset it to reach the Hub")
        if isinstance(error, HFValidationError):
            return RepoError(f"{self.name}: not a valid repo name, choose another: {said}")
        if isinstance(error, LocalTokenNotFoundError) or (
            status == 401 and not isinstance(error, RepositoryNotFoundError)
        ):
            return UserError(
                "you are not logged in to the Hub: log in with `hf auth login`, or set HF_TOKEN to a valid token"
            )
        if isinstance(error, GatedRepoError):
            return RepoError(f"{self.name}: is gated and you have no access: request it on its page on the Hub")
        if isinstance(error, RevisionNotFoundError):
            return MissingError(f"{self.name}: has no revision {self.revision}")
        if isinstance(error, RepositoryNotFoundError):
            return MissingError(f"{self.name}: no such {self.kind} repo, or none that your token may read")
        if status == 403:
            return RepoError(
                f"{self.name}: the Hub refused: {said}; if you lack the rights, use a token with write access "
                f"to {self.name.partition('/')[0]}, or another name"
            )
        if status in _CONFLICTS:
            return UserError(
                f"{self.name}: other commits came first {_ATTEMPTS} times; run the same command again to continue"
            )
        if status in _INVALID:
            return RejectedError(f"{self.name}: the Hub answered {status}: {said}")
        if status is not None:
            again = "; run the same command again to continue" if status in _TRANSIENT else ""
            return UserError(f"{self.name}: the Hub answered {status}{again}: {said}")
        return UserError(f"{self.name}: {_trouble(error)}; run the same command again to continue ({said})")


def check_publication(name: str, private: bool | None, public: bool) -> None:
    """Raises UserError for a repo that everyone sees (`private` is False) where `public` does not allow it."""
    if private is False and not public:
        raise UserError(
            f"{name}: is a public repo; if these images may be published, pass {option('public', 'public=True')}"
        )


def check_no_token(files: Mapping[str, bytes]) -> None:
    """Raises UserError for a file, by its path in the repo, that holds the caller's token."""
    token = get_token()
    for path, content in files.items():
        if token and token.encode() in content:
            raise UserError(f"{path}: contains your token, which readers would see; remove it from the recipe")


class _GarbledError(ConnectionError):
    """An answer that is cut short, or not what the Hub's client knows."""


@contextmanager
def client_errors() -> Iterator[None]:
    """Around what the Hub's client does alone: whatever it makes of a broken answer is trouble with the connection."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        of_this_machine = isinstance(error, OSError) and error.errno is not None
        if of_this_machine or any(isinstance(link, _OF_THE_HUB) for link in chain(error)):
            raise
        raise _garbled(error) from error


def _garbled(error: Exception) -> _GarbledError:
    return _GarbledError(f"{type(error).__name__}: {one_line(error, 120)}")


def _trouble(error: BaseException) -> str:
    return "the Hub gave a broken answer" if isinstance(error, _GarbledError) else "the Hub can't be reached"


class RepoError(UserError):
    """The Hub answers, and refuses what is asked of this repo: of others it may be granted."""


class MissingError(RepoError):
    """The repo or the branch is not there."""


class RejectedError(RepoError):
    """The Hub takes what was sent for invalid."""


def _status(error: BaseException) -> int | None:
    """What the Hub answered, where it did."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code
    found = _STATUS_IN_WORDS.search(str(error))
    return int(found[1]) if found else None


@contextmanager
def upload_errors(name: str) -> Iterator[None]:
    """Turns errors of an upload, also those that are not answers of the Hub, into UserErrors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the Hub's advice on metadata that others wrote
            yield
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        if any(isinstance(link, _OF_THE_HUB) for link in chain(error)):
            raise
        if isinstance(error, ValueError) and not isinstance(error, JSONDecodeError):
            raise UserError(f"{name}: the Hub rejected the files: {one_line(error, 160)}") from error
        raise ConnectionError(f"while sending: {one_line(error)}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise _garbled(error) from error


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
    return float(asked) if asked.isdecimal() else None
