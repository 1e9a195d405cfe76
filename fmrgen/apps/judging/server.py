"""The page on which people name images: a small server, for this machine alone unless --host says otherwise."""

import json
import secrets
import socket
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fmrgen.apps.judging.verdicts import NotAskedError, Rater, parse_answer
from fmrgen.errors import UserError
from fmrgen.files import parse_json
from fmrgen.report.pages import render_page

_MAX_ANSWER_BYTES = 4096
_MAX_DIGITS = 6  # of a number in an address
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEADERS = {  # no page is cached or embedded
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def audit_page(content: dict[str, Any]) -> str:
    """Return the page on which people name images.

    `content` has the `raters`, the `names` of the classes, the `total` of images and, if there is no server, the
    `images` of each rater as addresses and a `key` of the sample.
    """
    return render_page("audit.html", title="What do you see?", total=content["total"], content=content)


class AuditServer(ThreadingHTTPServer):
    """Serves the page of an audit and its images, and takes the answers.

    Attributes:
        raters: by name.
        names: of the classes.
        token: the secret part of the address.
        hosts: the host names that requests may have; None if any.
        address: of the page; anyone who has it can answer.
    """

    daemon_threads = True

    def __init__(self, raters: Mapping[str, Rater], names: list[str], host: str, port: int) -> None:
        self.raters, self.names = raters, names
        self.token = secrets.token_urlsafe(16)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UserError(f"--host {host} --port {port}: can't listen there: {error}") from None
        # A check of host names keeps other pages out; if others are let in, their names for this machine are unknown.
        self.hosts = {host, *_LOOPBACK} if host in _LOOPBACK else None
        reachable = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
        if ":" in reachable:
            reachable = f"[{reachable}]"
        self.address = f"http://{reachable}:{self.server_port}/{self.token}/"

    @property
    def is_done(self) -> bool:
        """True if every rater has answered everything."""
        return all(rater.done == len(rater.tasks) for rater in self.raters.values())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error unless it is a window that was closed in the middle of an answer."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: AuditServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds without a byte

    def log_message(self, *arguments: Any) -> None:
        """Log nothing: the terminal shows the progress of the raters."""

    def do_GET(self) -> None:
        """Send the page, the state of a rater, or an image."""
        path = self._path()
        if path is None:
            return
        if path == "":
            self._send_page()
            return
        query = parse_qs(urlsplit(self.path).query)
        rater = self.server.raters.get(query.get("rater", [""])[0])
        if rater is None:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": "there is no such rater"})
            return
        if path == "state":
            self._send_json(HTTPStatus.OK, {"done": rater.done, "total": len(rater.tasks)})
            return
        task = rater.task(_number(query.get("number", [""])[0])) if path == "image" else None
        if task is None:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": "there is no such page"})
        else:
            self._send(HTTPStatus.OK, rater.audited.images[task.id, task.which], "image/png")

    def _send_page(self) -> None:
        raters = self.server.raters
        total = len(next(iter(raters.values())).tasks)
        page = audit_page({"raters": list(raters), "names": self.server.names, "total": total})
        self._send(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")

    def do_POST(self) -> None:
        """Store an answer, or delete the last one."""
        path = self._path()
        if path is None:
            return
        length = _number(self.headers.get("Content-Length", ""))
        if not 0 <= length <= _MAX_ANSWER_BYTES or self.headers.get_content_type() != "application/json":
            self._refuse("an answer must be a small JSON object")
            return
        try:
            body = parse_json(self.rfile.read(length), "an answer")
            rater = self.server.raters.get(str(body.get("rater")))
            number = body.get("number")
            answer = parse_answer(body, len(self.server.names)) if path == "answer" else None
        except (UserError, TimeoutError) as error:
            self._refuse(str(error))
            return
        if rater is None or type(number) is not int or path not in ("answer", "undo"):
            self._refuse("an answer must have a rater, a number and a label")
            return
        try:
            done = rater.undo(number) if answer is None else rater.answer(number, *answer)
        except NotAskedError as error:
            self._send_json(HTTPStatus.CONFLICT, {"error": str(error)})
        except UserError as error:  # for example, the disk is full: the page keeps the answer and sends it again
            self._send_json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)})
        else:
            self._send_json(HTTPStatus.OK, {"done": done, "total": len(rater.tasks)})

    def _refuse(self, reason: str) -> None:
        self.close_connection = True  # the rest of the request is not read
        self._send_json(HTTPStatus.BAD_REQUEST, {"error": reason})

    def _path(self) -> str | None:
        """Return the path behind the token; send an error and return None if the token or the host is wrong."""
        try:
            path, host = urlsplit(self.path).path, urlsplit(f"//{self.headers.get('Host', '')}").hostname
        except ValueError:
            self._refuse("there is no such address")
            return None
        _, _, address = path.partition("/")
        token, _, page = address.partition("/")
        is_right_token = secrets.compare_digest(token.encode(), self.server.token.encode())
        if not is_right_token or (self.server.hosts is not None and host not in self.server.hosts):
            self.close_connection = True
            self._send_json(HTTPStatus.NOT_FOUND, {"error": "open the address that fmrgen audit printed"})
            return None
        return page

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        headers = _HEADERS | {"Content-Type": kind, "Content-Length": str(len(content))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _send_json(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")


def _number(text: str) -> int:
    """Return a number of at most six digits; -1 for anything else."""
    if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS:
        return int(text)
    return -1
