"""Bounds on requests to the Hub, so that each comes to an end.

Each request has time-outs, a pause that the Hub asks for is capped, and a Hub that nobody can reach is an error at
once. Short downloads draw no progress bars.
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
_CONNECT_TIMEOUT = 10.0  # seconds
_READ_TIMEOUT = 60.0  # seconds of silence while something is read
_SEND_TIMEOUT = 300.0  # seconds of silence while something is sent: the Hub works on it before it answers


class UnreachableError(OfflineModeIsEnabled):
    """Nothing answers at the Hub's address, and nothing has before, so retrying in a moment is of no use.

    The Hub's client treats it like HF_HUB_OFFLINE: it uses its cache.
    """


_answered: set[str] = set()  # hosts
_unreachable: dict[str, tuple[float, str]] = {}  # by host: until when it is not tried again, and why


def bound_requests() -> None:
    """Give every request that huggingface_hub makes from now on its time-outs. Further calls change nothing.

    The client is still the one that huggingface_hub, or the user, would have made.
    """
    factory = _http._GLOBAL_CLIENT_FACTORY
    if getattr(factory, "func", None) is not _bounded_client:
        set_client_factory(partial(_bounded_client, factory))


@contextmanager
def no_bars() -> Iterator[None]:
    """Hide the progress bars of the Hub's client, and its warning if no file matched, during short work."""
    logger = logging.getLogger("huggingface_hub._snapshot_download")
    level = logger.level
    had_bars = not are_progress_bars_disabled()
    disable_progress_bars()
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        if had_bars:
            enable_progress_bars()


def checked_commit(sha: Any, repo: str) -> str:
    """Return the commit `sha` that the Hub gives for a repo. Raises UserError if it is not a commit's hash.

    Local files are named after it, so it is not trusted as it comes.
    """
    if not isinstance(sha, str) or not re.fullmatch(r"[0-9a-f]{40}", sha):
        raise UserError(f"{repo}: the Hub returned a broken response: {str(sha)[:80]!r} is not a commit")
    return sha


def _bounded_client(factory: Any) -> Any:
    client = factory()
    hooks = client.event_hooks
    client.event_hooks = {"request": [*hooks["request"], _set_timeouts], "response": [*hooks["response"], _cap_pauses]}
    client.send = partial(_send, client.send)
    return client


def _send(send: Callable[..., Any], request: Any, **options: Any) -> Any:
    """Send a request. Raises UnreachableError if nothing answers, and the host has never answered before."""
    host = request.url.host
    until, reason = _unreachable.get(host, (0.0, ""))
    if time.monotonic() < until:
        raise UnreachableError(reason)
    try:
        response = send(request, **options)
    except Exception as error:
        # By their names: httpx has another module name in some versions.
        if host in _answered or type(error).__name__ not in ("ConnectError", "ConnectTimeout"):
            raise
        reason = one_line(error, 80)
        _unreachable[host] = time.monotonic() + 30, reason
        raise UnreachableError(reason) from error
    _answered.add(host)
    return response


def _set_timeouts(request: Any) -> None:
    """Set the time-outs that the request lacks. The client's own default is to wait for ever."""
    longest = _READ_TIMEOUT if request.method in ("GET", "HEAD") else _SEND_TIMEOUT
    timeouts = {"connect": _CONNECT_TIMEOUT, "pool": longest, "read": longest, "write": longest}
    explicit = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = timeouts | {name: seconds for name, seconds in explicit.items() if seconds}


def _cap_pauses(response: Any) -> None:
    """Cap the pause that an answer asks for. Warn of one that huggingface_hub would keep without a word."""
    if response.status_code not in (429, 503):
        return
    headers = response.headers
    retry_after = headers.get("Retry-After", "")
    if retry_after.isdecimal():
        headers["Retry-After"] = str(min(int(retry_after), LONGEST_WAIT))
    rate_limit = headers.get("RateLimit")
    if rate_limit:
        headers["RateLimit"] = re.sub(r"\bt=(\d+)", lambda time: f"t={min(int(time[1]), LONGEST_WAIT)}", rate_limit)
    pause = headers.get("Retry-After", "0")
    if "/resolve/" in str(response.url) and pause.isdecimal() and int(pause) > 5:  # shorter ones need no line
        _log.warning("the Hub asks for a pause of %s s", pause)
