"""Servers of HTTP on this machine, at a free port."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Of requests of all kinds, which `respond` answers; nothing is logged."""

    protocol_version = "HTTP/1.1"

    def respond(self):
        raise NotImplementedError

    def _respond(self):
        self.respond()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _respond  # noqa: N815 - as the server calls them

    def log_message(self, *arguments):
        pass

    def content(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def reply(self, status, body=b"", headers=()):
        """Answers; of another length only if the headers say so."""
        told = dict(headers)
        self.send_response(status)
        for name, value in told.items():
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name in told):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """Runs in a thread from `start` to `stop`, or in a `with` block; connections may end in every way."""

    daemon_threads = True

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass

    def start(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def stop(self):
        self.shutdown()
        self.server_close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *error):
        self.stop()
