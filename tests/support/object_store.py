"""An S3 server on this machine, as real ones are: one write at a time to an object, now and then a failure."""

import http.client
import logging
import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "splits"


class Proxy(BaseHTTPRequestHandler):
    """Hands requests on, one after another. Of the share `faults` half fail before, of half the reply is lost."""

    protocol_version = "HTTP/1.1"
    backend: str
    faults: float
    ignores: tuple[str, ...]
    conflicts: set[str]
    dice: random.Random
    turn: threading.Lock
    counts: dict[str, int]

    def _hand_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        with self.turn:
            drawn = self.dice.random()
            self.counts["requests"] += 1
            self.counts["failed"] += drawn < self.faults
        if drawn < self.faults / 2:
            self._answer(503, {}, b"")
            return
        if self.command in self.conflicts:
            self._answer(409, {}, b"")
            return
        with self.turn:
            connection = http.client.HTTPConnection(self.backend)
            headers = {name: value for name, value in self.headers.items() if name not in self.ignores}
            connection.request(self.command, self.path, body, headers)
            reply = connection.getresponse()
            content = reply.read()
            connection.close()
        if drawn < self.faults:
            self.close_connection = True
            self.connection.close()
            return
        self._answer(reply.status, dict(reply.headers), content)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _hand_on  # noqa: N815 - as the server calls them

    def _answer(self, status, headers, content):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        if not any(name.lower() == "content-length" for name in headers):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Clients are killed in these tests."""


@dataclass
class Store:
    """`environment` are the variables by which `s3://splits/…` is a bucket here; `counts` are of requests. Those of the
    methods in `conflicts` are answered 409, and do nothing."""

    environment: dict[str, str]
    client: Any
    counts: dict[str, int]
    conflicts: set[str]

    def keys(self, prefix):
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"].removeprefix(prefix) for entry in found.get("Contents", [])]


@contextmanager
def object_store(faults=0.0, seed=0, ignores=()):
    """A store, of whose requests the share `faults` fails, or succeeds without a reply; it `ignores` some headers."""
    backend = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    backend.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    host, port = backend.get_host_and_port()
    counts = {"requests": 0, "failed": 0}
    conflicts: set[str] = set()
    own = {
        "backend": f"{host}:{port}",
        "faults": faults,
        "ignores": tuple(ignores),
        "dice": random.Random(seed),
        "turn": threading.Lock(),
    }
    server = Server(("127.0.0.1", 0), type("Own", (Proxy,), own | {"counts": counts, "conflicts": conflicts}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    credentials = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    try:
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **credentials)
        client.create_bucket(Bucket=BUCKET)
        environment = {
            **{name.upper(): value for name, value in credentials.items()},
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ALLOW_HTTP": "true",
        }
        yield Store(environment, client, counts, conflicts)
    finally:
        server.shutdown()
        server.server_close()
        backend.stop()
