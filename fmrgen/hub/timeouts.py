"""Requests to the Hub that come to an end: each has its time-outs, no answer can ask for a pause without end, and where
nobody answers at all that is said at once. What is the work of a moment draws no bars.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from huggingface_hub import set_client_factory
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import _http, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from fmrgen.errors import UserError, one_line

_log = logging.getLogger(__name__)

LONGEST_WAIT = 300  # seconds; the Hub counts requests in windows of five minutes
_CONNECT, _ANSWER, _WORK = 10.0, 60.0, 300.0  # seconds: to connect; for what is read, and for what is sent
_UNHEARD = 5  # seconds of pause that need no line
_NO_CONNECTION = ("ConnectError", "ConnectTimeout")  # of httpx, which is called otherwise from version to version
_REMEMBERED = 30.0  # seconds for which a Hub that could not be reached is not tried again


class UnreachableError(OfflineModeIsEnabled):
    """Nobody answers at the Hub's address, and nobody has before: asking again in a moment is of no use.

    The Hub's client takes it as it takes HF_HUB_OFFLINE: what is in its cache is used.
    """


_answered: set[str] = set()  # hosts
_unreachable: dict[str, tuple[float, str]] = {}  # a host that nobody reached: until when it is not asked, and why


def bound_requests() -> None:
    """Gives every request that huggingface_hub makes from now on its time-outs, however often it is called.

    The client is the one that huggingface_hub, or the user, would have made.
    """
    factory = _http._GLOBAL_CLIENT_FACTORY
    if getattr(factory, "func", None) is not _bounded_client:
        set_client_factory(partial(_bounded_client, factory))


@contextmanager
def no_bars() -> Iterator[None]:
    """Without the progress bars of the Hub's client, and its remark where no file matched, for the work of a moment."""
    remarks, shown = logging.getLogger("huggingface_hub._snapshot_download"), not are_progress_bars_disabled()
    level = remarks.level
    disable_progress_bars()
    remarks.setLevel(logging.ERROR)
    try:
        yield
    finally:
        remarks.setLevel(level)
        if shown:
            enable_progress_bars()


def checked_commit(sha: Any, repo: str) -> str:
    """The commit that a Hub says a repo is at, and files here are called by. Raises UserError for anything else."""
    if not isinstance(sha, str) or not re.fullmatch(r"[0-9a-f]{40}", sha):
        raise UserError(f"{repo}: the Hub gave a broken answer: {str(sha)[:80]!r} is not a commit")
    return sha


def _bounded_client(factory: Any) -> Any:
    client = factory()
    hooks = client.event_hooks
    client.event_hooks = {
        "request": [*hooks["request"], _set_timeouts],
        "response": [*hooks["response"], _cap_pauses],
    }
    client.send = partial(_send, client.send)
    return client


def _send(send: Callable[..., Any], request: Any, **options: Any) -> Any:
    """Sends a request. Raises UnreachableError where the first one of all to a host finds nobody."""
    host = request.url.host
    until, trouble = _unreachable.get(host, (0.0, ""))
    if time.monotonic() < until:
        raise UnreachableError(trouble)
    try:
        response = send(request, **options)
    except Exception as error:
        if host in _answered or type(error).__name__ not in _NO_CONNECTION:
            raise
        trouble = one_line(error, 80)
        _unreachable[host] = time.monotonic() + _REMEMBERED, trouble
        raise UnreachableError(trouble) from error
    _answered.add(host)
    return response


def _set_timeouts(request: Any) -> None:
    """Puts a time-out where the request has none: the client's own default is to wait for ever."""
    longest = _ANSWER if request.method in ("GET", "HEAD") else _WORK
    bounds = {"connect": _CONNECT, "pool": longest, "read": longest, "write": longest}
    asked = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {name: asked.get(name) or bound for name, bound in bounds.items()}


def _cap_pauses(response: Any) -> None:
    """Cuts the pause that an answer asks for, and tells of it where the client itself keeps it without a word."""
    if response.status_code not in (429, 503):
        return
    if (asked := response.headers.get("Retry-After", "")).isdecimal():
        response.headers["Retry-After"] = str(min(int(asked), LONGEST_WAIT))
    if window := response.headers.get("RateLimit"):
        response.headers["RateLimit"] = re.sub(r"\bt=(\d+)", lambda t: f"t={min(int(t[1]), LONGEST_WAIT)}", window)
    pause = response.headers.get("Retry-After", "0")
    if "/resolve/" in str(response.url) and pause.isdecimal() and int(pause) > _UNHEARD:
        _log.warning("the Hub asks for a pause of %s s", pause)
