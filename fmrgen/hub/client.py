"""Requests to the Hub: retried a bounded number of times while it is busy or fails; a refusal is a one-line error."""

import logging
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from json import JSONDecodeError
from math import inf
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, TypeVar

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_token,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
)
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
from huggingface_hub.utils import filter_repo_objects, parse_ratelimit_headers, validate_repo_id

from fmrgen.errors import UserError, chain, one_line, option
from fmrgen.hub.timeouts import LONGEST_WAIT, UnreachableError, bound_requests, checked_commit, no_bars

_log = logging.getLogger(__name__)

_ATTEMPTS = 6
_LONGEST_CAUSE = 160  # characters of an error of the Hub in one of ours
_CONFLICTS = (409, 412)  # another commit came first
_TRANSIENT = (408, 429, 500, 502, 503, 504)

# Errors that come from the Hub or the way to it. The client wraps a server's error in its own, so causes count, too.
_OF_THE_HUB = (HTTPError, ConnectionError, TimeoutError, HFValidationError, LocalTokenNotFoundError)
# How hf_xet, which sends large files, reports the status of an answer.
_STATUS_IN_WORDS = re.compile(r"HTTP status (?:client|server) error \((\d{3})")

Operation = CommitOperationAdd | CommitOperationDelete
RepoKind = Literal["dataset", "model", "space"]
Result = TypeVar("Result")


class HubClient:
    """A client for one repo of the Hub.

    Requests are retried a bounded number of times while the Hub is busy, fails or can't be reached; each wait is noted.
    A final refusal is a UserError, which never contains the token. `revision` is the requested one, for messages.
    """

    def __init__(self, name: str, kind: RepoKind, revision: str = "main") -> None:
        bound_requests()
        self.name = name
        self.kind = kind
        self.revision = revision
        self.api = HfApi()
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise self._as_user_error(error, None) from None

    def log_in(self) -> str:
        """Return the caller's account name. From now on a repo without a namespace is in that account.

        Raises UserError if the Hub does not accept the caller's token.
        """
        if not (get_token() or "").isascii():
            raise UserError("the token contains a character that no token has; copy it again (HF_TOKEN, hf auth login)")
        account = self.ask(lambda: str(self.api.whoami()["name"]))
        if "/" not in self.name:
            self.name = f"{account}/{self.name}"
        return account

    def is_private(self) -> bool | None:
        """Return whether the repo is private; None if there is no repo."""
        try:
            return self.ask(lambda: bool(self.api.repo_info(self.name, repo_type=self.kind).private))
        except MissingError:
            return None

    def read(self, paths: Sequence[str], revision: str) -> dict[str, bytes]:
        """Return small files of the repo, by their paths. Retries nothing: call it within `ask`."""

        def read(path: str) -> bytes:
            return Path(hf_hub_download(self.name, path, repo_type=self.kind, revision=revision)).read_bytes()

        with ThreadPoolExecutor(8) as pool, no_bars(), client_errors():
            return dict(zip(paths, pool.map(read, paths), strict=True))

    def download(self, patterns: list[str], largest: float = inf) -> Path:
        """Return a local folder with those files of the repo, at its `revision`, that match a pattern of the shell.

        Raises UserError if one has more than `largest` bytes, or the Hub refuses or cannot be reached.
        """
        options: dict[str, Any] = {"repo_type": self.kind}
        info: Any = self.ask(
            lambda: self.api.repo_info(self.name, revision=self.revision, files_metadata=True, **options)
        )
        for file in filter_repo_objects(info.siblings or [], allow_patterns=patterns, key=attrgetter("rfilename")):
            if (file.size or 0) > largest:
                limit = f"no more than {largest:,} are fetched"
                raise UserError(f"{self.name}: {file.rfilename} has {file.size:,} bytes, and {limit}")
        options |= {"revision": checked_commit(info.sha, self.name), "allow_patterns": patterns}
        with no_bars():
            return Path(self.ask(lambda: snapshot_download(self.name, **options), all_of_the_hub=False))

    def send(self, operations: Sequence[Operation], message: str, **options: Any) -> CommitInfo:
        """Make a commit. Retries nothing: call it within `ask`. `options` are others of the Hub's `create_commit`."""
        with _upload_errors(self.name):
            return self.api.create_commit(self.name, operations, commit_message=message, repo_type=self.kind, **options)

    def ask(self, question: Callable[[], Result], all_of_the_hub: bool = True) -> Result:
        """Return the result of `question`, which sends requests to the Hub, and is called again if its error may pass.

        With `all_of_the_hub`, it calls nothing but the Hub's client, so that any error that it raises is one of the
        connection. Raises UserError if the Hub refuses, or does not answer in the last attempt either.
        """
        attempt = 0
        while True:
            attempt += 1
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
                problem = f"the Hub returned {status}" if status else f"{_trouble(cause)} ({one_line(cause, 80)})"
                _log.warning("%s; trying again in %.0f s (%s of %s)", problem, wait, attempt, _ATTEMPTS - 1)
                time.sleep(wait)

    def _as_user_error(self, error: BaseException, status: int | None) -> UserError:
        """Return the error for the user: what the Hub returned, and the cure."""
        if isinstance(error, UnreachableError):
            return UserError(f"{self.name}: the Hub can't be reached ({error}); run the same command again when it can")
        if isinstance(error, OfflineModeIsEnabled):
            return UserError(f"{self.name}: HF_HUB_OFFLINE is set; unset it to reach the Hub")
        server_message = getattr(error, "server_message", None)
        message = one_line(Exception(server_message) if server_message else error, _LONGEST_CAUSE)
        if isinstance(error, HFValidationError):
            return RepoError(f"{self.name}: not a valid repo name, choose another: {message}")
        refusal = self._refusal(error, status)
        if refusal is not None:
            return refusal
        if status is None:
            return UserError(f"{self.name}: {_trouble(error)}; run the same command again to continue ({message})")
        return self._as_status_error(status, message)

    def _refusal(self, error: BaseException, status: int | None) -> UserError | None:
        """Return the error for a caller who is not logged in, or may not see the repo; None for other errors."""
        # The Hub answers 401 for repos that do not exist, too.
        is_unauthorized = status == 401 and not isinstance(error, RepositoryNotFoundError)
        if is_unauthorized or isinstance(error, LocalTokenNotFoundError):
            fault = "the Hub does not know your token" if get_token() else "you are not logged in to the Hub"
            return UserError(f"{fault}: log in with `hf auth login`, or set HF_TOKEN to a valid token")
        if isinstance(error, GatedRepoError):
            return RepoError(terms_line(self.name, self.kind))
        if isinstance(error, RevisionNotFoundError):
            return MissingError(f"{self.name}: has no revision {self.revision}")
        if isinstance(error, RepositoryNotFoundError):
            return MissingError(f"{self.name}: no such {self.kind} repo, or none that your token may read")
        return None

    def _as_status_error(self, status: int, message: str) -> UserError:
        if status == 403:
            return RepoError(
                f"{self.name}: the Hub refused: {message}; if you lack the rights, use a token with write access "
                f"to {self.name.partition('/')[0]}, or another name"
            )
        if status in _CONFLICTS:
            return UserError(
                f"{self.name}: other commits came first {_ATTEMPTS} times; run the same command again to continue"
            )
        if status in (400, 422):  # the Hub rejects the content of the request
            return RejectedError(f"{self.name}: the Hub returned {status}: {message}")
        cure = "; run the same command again to continue" if status in _TRANSIENT else ""
        return UserError(f"{self.name}: the Hub returned {status}{cure}: {message}")


def check_repo_name(repo: str) -> None:
    """Raise UserError unless `repo`, which is not a folder, can be the name of a repo."""
    if repo.startswith(("./", "../")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise UserError(f"{repo}: no such folder, and a repo is called OWNER/NAME")


def terms_line(repo: str, kind: RepoKind) -> str:
    """Return the error for a repo whose terms this user has not accepted, or who is not logged in."""
    page = hf_hub_url(repo, "", repo_type=kind).partition("/resolve/")[0]
    return f"{repo}: accept its terms on {page}, then log in with `hf auth login` (or set HF_TOKEN) and run this again"


def check_publication(name: str, private: bool | None, public: bool) -> None:
    """Raise UserError if a repo is public and `public` does not allow it; `private` is None if there is no repo yet."""
    if private is False and not public:
        raise UserError(
            f"{name}: is a public repo; if these images may be published, pass {option('public', 'public=True')}"
        )


def check_no_token(files: Mapping[str, bytes]) -> None:
    """Raise UserError if one of `files`, contents by path in the repo, contains the caller's token."""
    token = get_token()
    if not token:
        return
    for path, content in files.items():
        if token.encode() in content:
            raise UserError(f"{path}: contains your token, which readers would see; remove it from the recipe")


class _GarbledError(ConnectionError):
    """An answer that is cut short, or that the Hub's client cannot read."""


@contextmanager
def client_errors() -> Iterator[None]:
    """Turn the errors that a broken answer causes in the Hub's client into connection errors.

    Only for blocks that call nothing but that client.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        is_local = isinstance(error, OSError) and error.errno is not None
        if is_local or any(isinstance(link, _OF_THE_HUB) for link in chain(error)):
            raise
        raise _garbled(error) from error


def _garbled(error: Exception) -> _GarbledError:
    return _GarbledError(f"{type(error).__name__}: {one_line(error, 120)}")


def _trouble(error: BaseException) -> str:
    return "the Hub returned a broken response" if isinstance(error, _GarbledError) else "the Hub can't be reached"


class RepoError(UserError):
    """The Hub refuses the request for this repo; it may grant it for others."""


class MissingError(RepoError):
    """The repo or the branch does not exist."""


class RejectedError(RepoError):
    """The Hub rejects the content of a request as invalid."""


def _status(error: BaseException) -> int | None:
    """Return the status of the Hub's answer; None if there was no answer."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code
    match = _STATUS_IN_WORDS.search(str(error))
    return None if match is None else int(match[1])


@contextmanager
def _upload_errors(name: str) -> Iterator[None]:
    """Turn a rejected upload into a UserError, and other errors of an upload into connection errors.

    Errors that are answers of the Hub pass unchanged.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # the Hub's advice on metadata that others wrote
            yield
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        if any(isinstance(link, _OF_THE_HUB) for link in chain(error)):
            raise
        if isinstance(error, ValueError) and not isinstance(error, JSONDecodeError):
            raise UserError(f"{name}: the Hub rejected the files: {one_line(error, _LONGEST_CAUSE)}") from error
        raise ConnectionError(f"while sending: {one_line(error)}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise _garbled(error) from error


def _seconds_to_wait(error: BaseException, status: int | None, attempt: int) -> float | None:
    """Return how long to wait before the next attempt; None if another attempt is of no use."""
    if status in _CONFLICTS:
        return random.uniform(0, 2 * attempt)  # at random, so that writers who collided do not collide again
    backoff = 2.0 ** (attempt - 1) * random.uniform(0.5, 1)
    if status in _TRANSIENT:
        pause = _requested_pause(error.response.headers) if isinstance(error, HfHubHTTPError) else None
        return min(pause or backoff, LONGEST_WAIT)
    is_permanent = isinstance(error, OfflineModeIsEnabled | LocalTokenNotFoundError | HFValidationError)
    if status is not None or is_permanent:
        return None
    return backoff


def _requested_pause(headers: Mapping[str, str]) -> float | None:
    """Return the seconds for which the Hub asks to wait; None if it does not."""
    window = parse_ratelimit_headers(headers)
    if window is not None and window.remaining == 0:
        return window.reset_in_seconds + 1
    retry_after = headers.get("Retry-After", "")
    return float(retry_after) if retry_after.isdecimal() else None
