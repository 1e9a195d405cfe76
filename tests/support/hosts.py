"""A stand-in for the hosts of the internet: files under their real https addresses, on this machine.

It is an HTTPS proxy. Clients that have `environment` reach every host through it, and trust its certificates.
"""

import re
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from served import Handler, Server


@dataclass
class Fault:
    """What happens to the next GET of an address: cut after a share of the bytes, or another status."""

    cut: float | None = None
    status: int | None = None
    times: int = 1


@dataclass
class Hosts:
    """Files by their addresses; `requests` are `METHOD address range` of all requests, `sent` the bytes of bodies."""

    root: Path
    files: dict[str, Path] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    sent: int = 0
    seconds: float = 0  # before each body

    def start(self) -> "Hosts":
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.root / "ca.pem"))
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._authority = authority
        self.server = Server(type("Own", (_Handler,), {"hosts": self})).start()
        self.address = self.server.address
        self.environment = {
            "HTTPS_PROXY": self.address,
            "SSL_CERT_FILE": str(self.root / "ca.pem"),
            "NO_PROXY": "127.0.0.1,localhost",
        }
        return self

    def stop(self) -> None:
        self.server.stop()

    def context_of(self, host: str) -> ssl.SSLContext:
        if host not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._authority.issue_cert(host).configure_cert(context)
            self._contexts[host] = context
        return self._contexts[host]


class _Handler(Handler):
    hosts: Hosts
    site = ""  # the host of a connection that CONNECT has opened

    def do_CONNECT(self) -> None:  # noqa: N802
        host = self.path.rpartition(":")[0]
        self.send_response(200)
        self.end_headers()
        self.wfile.flush()
        context = self.hosts.context_of(host)
        with context.wrap_socket(self.connection, server_side=True) as connection:
            type("Site", (type(self),), {"site": f"https://{host}"})(connection, self.client_address, self.server)
        self.close_connection = True

    def respond(self) -> None:
        address = self.path if self.path.startswith("http") else f"{self.site or self.hosts.address}{self.path}"
        asked = self.headers.get("Range", "")
        self.hosts.requests.append(f"{self.command} {address} {asked}".strip())
        path = self.hosts.files.get(address)
        fault = self.hosts.faults.get(address)
        if self.command == "GET" and fault and fault.times > 0:
            fault.times -= 1
        else:
            fault = None
        if path is None or (fault and fault.status):
            status = fault.status if path is not None else 404
            self.reply(status, b"<!DOCTYPE html><p>not here</p>", {"Content-Type": "text/html"})
            return
        size = path.stat().st_size
        headers = {"ETag": f'"{path.stat().st_mtime_ns}-{size}"', "Accept-Ranges": "bytes"}
        span = re.fullmatch(r"bytes=(\d+)-", asked)
        start = int(span[1]) if span else 0
        if span:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self.reply(206 if span else 200, headers={**headers, "Content-Length": str(size - start)})
        if self.command == "HEAD":
            return
        time.sleep(self.hosts.seconds)
        stop = size if fault is None else start + int(fault.cut * (size - start))
        with path.open("rb") as file:
            file.seek(start)
            while (left := stop - file.tell()) > 0:
                chunk = file.read(min(left, 1 << 20))
                self.wfile.write(chunk)
                self.hosts.sent += len(chunk)
        if fault is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
