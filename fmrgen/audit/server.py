"""The page on which people name images: a small server, for this machine alone unless told otherwise."""

import json
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fmrgen.audit.verdicts import Rater
from fmrgen.errors import UserError
from fmrgen.report.pages import audit_page

_LARGEST_ANSWER = 4096  # bytes
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NEVER_KEPT = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class AuditServer(ThreadingHTTPServer):
    """Serves the page of an audit, its images, and takes the answers.

    Attributes:
        raters: by name.
        names: of the classes.
        address: of the page; whoever has it can answer.
    """

    daemon_threads = True

    def __init__(self, raters: Mapping[str, Rater], names: list[str], host: str, port: int) -> None:
        self.raters, self.names = raters, names
        self.token = secrets.token_urlsafe(16)
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UserError(f"--host {host} --port {port}: can't be listened on: {error}") from None
        self.hosts = {host, *_LOOPBACK} if host in _LOOPBACK else None  # whoever opens it to others knows their names
        told = "127.0.0.1" if host in ("0.0.0.0", "") else host
        self.address = f"http://{told}:{self.server_port}/{self.token}/"

    @property
    def is_done(self) -> bool:
        """Whether every rater has answered everything."""
        return all(rater.done == len(rater.tasks) for rater in self.raters.values())


class _Handler(BaseHTTPRequestHandler):
    server: AuditServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Says nothing: the terminal is for how far the raters are."""

    def do_GET(self) -> None:
        if (path := self._path()) is None:
            return
        query = parse_qs(urlsplit(self.path).query)
        rater = self.server.raters.get(query.get("rater", [""])[0])
        if path == "":
            page = audit_page({"raters": list(self.server.raters), "names": self.server.names})
            self._send(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")
        elif rater is None:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": "there is no such rater"})
        elif path == "state":
            self._send_json(HTTPStatus.OK, {"done": rater.done, "total": len(rater.tasks)})
        elif path == "image" and (task := rater.task(_number(query.get("number", [""])[0]))) is not None:
            self._send(HTTPStatus.OK, rater.audited.images[task.id, task.which], "image/png")
        else:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": "there is no such page"})

    def do_POST(self) -> None:
        if (path := self._path()) is None:
            return
        length = _number(self.headers.get("Content-Length", ""))
        if not 0 <= length <= _LARGEST_ANSWER or self.headers.get_content_type() != "application/json":
            self.close_connection = True  # what it sends is not read
            self._send_json(HTTPStatus.BAD_REQUEST, {"error": "an answer is a little JSON"})
            return
        try:
            told = json.loads(self.rfile.read(length))
            rater = self.server.raters[told["rater"]]
            if path == "answer":
                seconds = float(told["seconds"]) if "seconds" in told else None
                done = rater.answer(int(told["number"]), int(told["label"]), seconds)
            elif path == "undo":
                done = rater.undo(int(told["number"]))
            else:
                raise UserError("there is no such page")
        except UserError as error:
            self._send_json(HTTPStatus.CONFLICT, {"error": str(error)})
        except (ValueError, KeyError, TypeError):
            self._send_json(HTTPStatus.BAD_REQUEST, {"error": "an answer is a rater, a number and a label"})
        else:
            self._send_json(HTTPStatus.OK, {"done": done, "total": len(rater.tasks)})

    def _path(self) -> str | None:
        """The page that is asked for; None, and an answer, for who does not know the address."""
        _, token, *rest = (*urlsplit(self.path).path.split("/", 2), "")
        host = self.headers.get("Host", "").rpartition(":")[0].strip("[]")
        known = secrets.compare_digest(token.encode(), self.server.token.encode())
        if not known or (self.server.hosts is not None and host not in self.server.hosts):
            self.close_connection = True
            self._send_json(HTTPStatus.NOT_FOUND, {"error": "open the address that fmrgen audit printed"})
            return None
        return rest[0]

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**_NEVER_KEPT, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _send_json(self, status: HTTPStatus, told: dict[str, Any]) -> None:
        self._send(status, json.dumps(told).encode(), "application/json")


def _number(text: str) -> int:
    """A number of at most six digits; -1 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else -1
