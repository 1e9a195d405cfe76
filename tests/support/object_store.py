"""An S3 server on this machine, as real ones are: one write at a time to an object, now and then a failure."""

import http.client
import logging
import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from moto.server import ThreadedMotoServer
from served import Handler, Server

BUCKET = "splits"


class Proxy(Handler):
    """Hands requests on, one after another. Of the share `faults` half fail before, of half the reply is lost."""

    backend: str
    faults: float
    ignores: tuple[str, ...]
    conflicts: set[str]
    dice: random.Random
    turn: threading.Lock
    counts: dict[str, int]

    def respond(self):
        body = self.content()
        with self.turn:
            drawn = self.dice.random()
            self.counts["requests"] += 1
            self.counts["failed"] += drawn < self.faults
        if drawn < self.faults / 2:
            self.reply(503)
            return
        if self.command in self.conflicts:
            self.reply(409)
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
        hops = ("transfer-encoding", "connection", "server", "date")
        self.reply(reply.status, content, {name: it for name, it in reply.headers.items() if name.lower() not in hops})


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
    server = Server(type("Own", (Proxy,), own | {"counts": counts, "conflicts": conflicts})).start()
    credentials = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    try:
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **credentials)
        client.create_bucket(Bucket=BUCKET)
        environment = {
            **{name.upper(): value for name, value in credentials.items()},
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": server.address,
            "AWS_ALLOW_HTTP": "true",
        }
        yield Store(environment, client, counts, conflicts)
    finally:
        server.stop()
        backend.stop()
