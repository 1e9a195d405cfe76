"""A small Hub on loopback: repos, commits and files on disk, over the HTTP that the Hub's clients speak.

A repo of a model is `models/OWNER/NAME` here, one of a Space `spaces/OWNER/NAME`, of a dataset `OWNER/NAME`.

It keeps every commit, so that a revision can be read again. The token says who asks: `writer` may write in the
namespaces `someone`, `team` and `you`, `reader` may only read, no token sees only what is public, and any other token is invalid.
After a dash stands a world: `writer-7` writes to repos of its own, which no other world's tokens see.

Any request can be made to fail: `fail` says which request of a world, counted from 0, and how.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Fault:
    """What happens to one request instead of, or beside, its answer.

    `status` answers with that, `headers` and `message` (or `body`). `drop` closes the connection: `before` the request has any effect,
    in the `middle` of its body or of the answer's, or `after` the effect and without an answer. `kill` is a process to end
    at that moment. `slow` are seconds to wait, `etag` is sent in place of the right one.
    """

    at: int
    match: str = ""  # part of the request line; then `at` counts only such requests
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "made to fail"
    body: str | None = None  # in place of a message
    drop: str | None = None
    kill: int | None = None
    slow: float = 0
    etag: str | None = None


class World:
    """All repos of a world: per repo its refs and its commits, each a mapping of path to (blob, is it LFS)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        self.requests: list[str] = []  # the request lines
        self.uploads: list[str] = []  # sha256 of each large file that came whole, in the order of their coming
        self.sent = 0  # bytes of answers
        self.faults: list[Fault] = []
        self.state = root / "repos.json"
        self.blobs = root / "blobs"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.repos = json.loads(self.state.read_text()) if self.state.exists() else {}

    def save(self) -> None:
        self.state.write_text(json.dumps(self.repos))

    def create(self, name: str, private: bool) -> bool:
        with self.lock:
            if name in self.repos:
                return False
            first = hashlib.sha1(name.encode()).hexdigest()
            files = {".gitattributes": [self.keep(b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"), False]}
            commit = {"files": files, "message": "initial commit", "parent": None}
            told = {"private": private, "gated": False, "received": [], "pull_requests": []}
            self.repos[name] = {"refs": {"main": first}, "tags": {}, "commits": {first: commit}, **told}
            self.save()
            return True

    def keep(self, content: bytes) -> str:
        oid = hashlib.sha256(content).hexdigest()
        path = self.blobs / oid
        if not path.exists():
            path.write_bytes(content)
        return oid

    def publish(self, name: str, files: dict[str, Path | bytes], gated: bool = False) -> str:
        """Creates or extends a public repo as its owners would; files on disk are linked. Returns the commit."""
        self.create(name, private=False)
        repo = self.repos[name]
        repo["gated"] = gated and "accepted by writer"
        oid = repo["refs"]["main"]
        held = dict(repo["commits"][oid]["files"])
        for path, content in files.items():
            if isinstance(content, bytes):
                held[path] = [self.keep(content), is_lfs(path)]
                continue
            with content.open("rb") as file:
                blob = hashlib.file_digest(file, "sha256").hexdigest()
            if not (self.blobs / blob).exists():
                os.link(content, self.blobs / blob)
            held[path] = [blob, True]
        new = hashlib.sha1(json.dumps([oid, held]).encode()).hexdigest()
        repo["commits"][new] = {"files": held, "message": "upload", "parent": oid}
        repo["refs"]["main"] = new
        self.save()
        return new

    def take_fault(self, line: str) -> Fault | None:
        """Notes a request, and finds what is to happen to it."""
        with self.lock:
            self.requests.append(line)
            matched = [fault for fault in self.faults if fault.match in line]
            for fault in matched:
                fault.at -= 1
            return next((fault for fault in matched if fault.at == -1), None)

    def files(self, name: str, revision: str = "main") -> dict[str, str]:
        """The sha256 of every file of a repo."""
        commit = self.repos[name]["commits"][self.resolve(name, revision)]
        return {path: blob for path, (blob, _) in commit["files"].items()}

    def history(self, name: str, branch: str = "main") -> list[str]:
        """The messages of a branch's commits, the first one first."""
        repo, messages = self.repos[name], []
        oid = repo["refs"][branch]
        while oid is not None:
            messages.append(repo["commits"][oid]["message"])
            oid = repo["commits"][oid]["parent"]
        return messages[::-1]

    def resolve(self, name: str, revision: str) -> str | None:
        repo = self.repos[name]
        known = {**{oid: oid for oid in repo["commits"]}, **repo["tags"], **repo["refs"]}
        return known.get(revision)

    def commit(self, name: str, branch: str, lines: list[dict]) -> str:
        repo = self.repos[name]
        parent = repo["refs"][branch]
        files = dict(repo["commits"][parent]["files"])
        header: dict = {}
        for line in lines:
            key, value = line["key"], line["value"]
            if key == "header":
                header = value
            elif key == "file":
                files[value["path"]] = [self.keep(base64.b64decode(value["content"])), False]
            elif key == "lfsFile":
                files[value["path"]] = [value["oid"], True]
            elif key == "deletedFile":
                files.pop(value["path"], None)
            elif key == "deletedFolder":
                folder = value["path"].rstrip("/") + "/"
                files = {path: blob for path, blob in files.items() if not path.startswith(folder)}
        oid = hashlib.sha1(json.dumps([parent, files, header.get("summary")]).encode()).hexdigest()
        repo["commits"][oid] = {"files": files, "message": header.get("summary"), "parent": parent}
        repo["refs"][branch] = oid
        self.save()
        return oid


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ").partition("-")[0]

    @property
    def world(self) -> World:
        name = self.headers.get("Authorization", "").partition("-")[2] or "0"
        if uploading := re.match(r"/lfs/([\w]*)/", self.path):
            name = uploading[1]
        return self.server.world(name)

    def read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int, content: object = None, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content if content is not None else {}).encode()
        fault, headers = self.fault, dict(headers or {})
        if fault and fault.etag and "ETag" in headers:
            headers |= {name: f'"{fault.etag}"' for name in ("ETag", "X-Linked-Etag") if name in headers}
        if fault and fault.drop == "after":
            self.drop()
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with self.world.lock:
                self.world.sent += len(body)
            half = fault is not None and fault.drop == "middle"
            self.wfile.write(body[: len(body) // 2] if half else body)
            if half:
                self.drop()

    def drop(self) -> None:
        """Ends the connection, and first the process that is to die at this moment."""
        if self.fault is not None and self.fault.kill is not None:
            os.kill(self.fault.kill, signal.SIGKILL)
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.answer(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})

    def may_write(self) -> bool:
        if self.token == "writer":
            return True
        self.refuse(403 if self.token else 401, "Forbidden" if self.token else "", "you may not write here")
        return False

    def may_read(self, repo: str) -> bool:
        known = self.world.repos.get(repo)
        if known is None or (known["private"] and not self.token):
            # A private repo is not told of: the real Hub answers 401 to those it does not know.
            self.refuse(404 if self.token else 401, "RepoNotFound", f"no repo {repo}")
            return False
        return True

    def handle_request(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        query = parse_qs(url.query)
        self.fault = fault = self.world.take_fault(f"{self.command} {path}")
        if fault is not None:
            time.sleep(fault.slow)
            if fault.drop == "before":
                self.drop()
                return
            if fault.drop == "middle" and self.command in ("POST", "PUT"):
                self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
                self.drop()
                return
        content = self.read_body() if self.command in ("POST", "PUT", "DELETE") else b""
        if fault is not None and fault.body is not None:
            self.answer(fault.status, fault.body.encode(), fault.headers)
            return
        if fault is not None and fault.status is not None:
            self.answer(fault.status, {"error": fault.message}, {"X-Error-Message": fault.message, **fault.headers})
            return
        if self.token not in ("writer", "reader", ""):
            self.refuse(401, "", "Invalid credentials in Authorization header")
            return
        for method, pattern, function in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                groups = match.groupdict()
                model = groups.pop("model", None)
                other = groups.pop("other", None) or (f"models/{model}" if model else None)
                if "repo" in groups:
                    groups["repo"] = groups["repo"] or other
                with self.world.lock:
                    if groups.get("repo") is None or self.may_read(groups["repo"]):
                        function(self, content, query, **groups)
                return
        self.refuse(404, "", f"no such address: {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815

    def files_at(self, repo: str, revision: str) -> tuple[str, dict] | None:
        oid = self.world.resolve(repo, revision)
        if oid is None:
            self.refuse(404, "RevisionNotFound", f"no revision {revision}")
            return None
        return oid, self.world.repos[repo]["commits"][oid]["files"]

    def fail(self, content: bytes, query: dict) -> None:
        """For processes that can't call `HubServer.fail`."""
        told = json.loads(content)
        self.server.fail(told.pop("world"), **told)
        self.answer(200)

    # What the clients call

    def whoami(self, content: bytes, query: dict) -> None:
        if self.token:
            self.answer(200, {"name": "someone", "type": "user", "orgs": [{"name": "team"}], "auth": {}})
        else:
            self.refuse(401, "", "Invalid username or password.")

    def create(self, content: bytes, query: dict) -> None:
        if not self.may_write():
            return
        told = json.loads(content)
        namespace = told.get("organization") or "someone"
        if namespace not in ("someone", "team", "you"):
            self.refuse(403, "", f'You don\'t have the rights to create a dataset under the namespace "{namespace}"')
            return
        kind = told.get("type", "model")
        name = f"{namespace}/{told['name'].split('/')[-1]}"
        name = name if kind == "dataset" else f"{kind}s/{name}"
        made = self.world.create(name, told.get("visibility") == "private" or bool(told.get("private")))
        self.answer(
            200 if made else 409,
            {"url": f"{self.server.address}/{address_of(name)}", "id": plain_name(name), "name": plain_name(name)},
        )

    def info(self, content: bytes, query: dict, repo: str, revision: str = "main") -> None:
        found = self.files_at(repo, revision)
        if found is not None:
            oid, files = found
            told = {
                "id": plain_name(repo),
                "sha": oid,
                "private": self.world.repos[repo]["private"],
                "tags": [],
                "downloads": 0,
            }
            told["gated"] = "manual" if self.world.repos[repo]["gated"] else False
            siblings = [
                {"rfilename": name, "size": (self.world.blobs / oid).stat().st_size}
                | ({"lfs": {"sha256": oid, "size": 1, "pointerSize": 130}} if lfs else {})
                for name, (oid, lfs) in sorted(files.items())
            ]
            self.answer(200, told | {"siblings": siblings})

    def entry(self, name: str, blob: list) -> dict:
        size = (self.world.blobs / blob[0]).stat().st_size
        told = {"type": "file", "path": name, "size": size, "oid": blob[0][:40]}
        return told | ({"lfs": {"oid": blob[0], "size": size, "pointerSize": 130}} if blob[1] else {})

    def tree(self, content: bytes, query: dict, repo: str, revision: str, folder: str | None = None) -> None:
        found = self.files_at(repo, revision)
        if found is None:
            return
        prefix = f"{folder.strip('/')}/" if folder and folder.strip("/") else ""
        below = {name: blob for name, blob in found[1].items() if name.startswith(prefix)}
        if prefix and not below:
            self.refuse(404, "EntryNotFound", f"no folder {folder}")
            return
        folders = {prefix + name.removeprefix(prefix).split("/")[0] for name in below if "/" in name[len(prefix) :]}
        recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        if recursive:
            folders = {parent for name in below for parent in parents(name) if len(parent) > len(prefix)}
        else:
            below = {name: blob for name, blob in below.items() if "/" not in name[len(prefix) :]}
        listed = [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in sorted(folders)]
        self.answer(200, listed + [self.entry(name, blob) for name, blob in sorted(below.items())])

    def paths_info(self, content: bytes, query: dict, repo: str, revision: str) -> None:
        found = self.files_at(repo, revision)
        if found is None:
            return
        if "json" in self.headers.get("Content-Type", ""):
            paths = json.loads(content)["paths"]
        else:
            paths = parse_qs(content.decode()).get("paths", [])
        listed = []
        for path in [paths] if isinstance(paths, str) else paths:
            if path in found[1]:
                listed.append(self.entry(path, found[1][path]))
            elif any(name.startswith(f"{path.rstrip('/')}/") for name in found[1]):
                listed.append({"type": "directory", "path": path, "size": 0, "oid": "0" * 40})
        self.answer(200, listed)

    def refs(self, content: bytes, query: dict, repo: str) -> None:
        known = self.world.repos[repo]
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in known["refs"].items()]
        tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in known["tags"].items()]
        self.answer(200, {"branches": branches, "tags": tags, "converts": [], "pullRequests": []})

    def branch(self, content: bytes, query: dict, repo: str, name: str) -> None:
        if self.may_write():
            told = json.loads(content or b"{}")
            known = self.world.repos[repo]
            if name in known["refs"]:
                self.refuse(409, "", f"branch {name} exists")
                return
            known["refs"][name] = self.world.resolve(repo, told.get("startingPoint") or "main")
            self.world.save()
            self.answer(200)

    def tag(self, content: bytes, query: dict, repo: str, revision: str) -> None:
        if self.may_write():
            told = json.loads(content)
            known = self.world.repos[repo]
            if told["tag"] in known["tags"]:
                self.refuse(409, "", f"tag {told['tag']} exists")
                return
            known["tags"][told["tag"]] = self.world.resolve(repo, revision)
            self.world.save()
            self.answer(200)

    def pull_requests(self, content: bytes, query: dict, repo: str) -> None:
        """Ten a page, as one would have to page through many."""
        wanted = [told for told in self.world.repos[repo]["pull_requests"] if told["status"] in query["status"]]
        start = 10 * int(query.get("p", ["0"])[0])
        told = {"count": len(wanted), "start": start, "discussions": wanted[start : start + 10]}
        self.answer(200, told)

    def validate_yaml(self, content: bytes, query: dict) -> None:
        self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, content: bytes, query: dict, repo: str, revision: str) -> None:
        if self.may_write():
            files = json.loads(content)["files"]
            here = self.files_at(repo, revision)[1]
            ignored = self.world.repos[repo].get("ignored", "(?!)")
            told = []
            for path in (file["path"] for file in files):
                lfs = is_lfs(path)
                known = here[path][0] if lfs and path in here else None
                mode = {"path": path, "uploadMode": "lfs" if lfs else "regular", "oid": known}
                told.append(mode | {"shouldIgnore": re.search(ignored, path) is not None})
            self.answer(200, {"files": told})

    def lfs_batch(self, content: bytes, query: dict, repo: str) -> None:
        if self.may_write():
            objects = []
            for wanted in json.loads(content)["objects"]:
                told = {"oid": wanted["oid"], "size": wanted["size"], "authenticated": True}
                if wanted["oid"] not in self.world.repos[repo]["received"]:
                    where = f"{self.server.address}/lfs/{self.world.root.name}/{repo}/{wanted['oid']}"
                    told["actions"] = {"upload": {"href": where}}
                objects.append(told)
            self.answer(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, content: bytes, query: dict, world: str, holder: str, oid: str) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            self.refuse(422, "", "the content has another sha256")
            return
        self.world.keep(content)
        self.world.uploads.append(oid)
        self.world.repos[holder]["received"].append(oid)
        self.world.save()
        self.answer(200)

    def commit(self, content: bytes, query: dict, repo: str, revision: str) -> None:
        proposes = query.get("create_pr") == ["1"]
        if not (proposes and self.token) and not self.may_write():
            return
        lines = [json.loads(line) for line in content.splitlines() if line.strip()]
        known = self.world.repos[repo]
        if proposes:
            number = len(known["pull_requests"]) + 1
            revision = f"refs/pr/{number}"
            known["refs"][revision] = known["refs"]["main"]
            title = next(line["value"]["summary"] for line in lines if line["key"] == "header")
            told = {"num": number, "title": title, "status": "open", "isPullRequest": True}
            told |= {"author": {"name": "someone"}, "createdAt": "2026-01-01T00:00:00.000Z"}
            known["pull_requests"].append(told | {"repo": {"name": plain_name(repo), "type": "model"}})
        if revision not in known["refs"]:
            self.refuse(404, "RevisionNotFound", f"no branch {revision}")
            return
        parent = next((line["value"].get("parentCommit") for line in lines if line["key"] == "header"), None)
        if parent and parent != known["refs"][revision]:
            self.refuse(412, "", "a commit has happened since")
            return
        for line in lines:
            if line["key"] == "lfsFile" and line["value"]["oid"] not in known["received"]:
                self.refuse(400, "", f"{line['value']['path']} was not uploaded")
                return
        oid = self.world.commit(repo, revision, lines)
        url = f"{self.server.address}/{address_of(repo)}/commit/{oid}"
        told = {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}
        if proposes:
            told["pullRequestUrl"] = f"{self.server.address}/{plain_name(repo)}/discussions/{number}"
        self.answer(200, told)

    def download(self, content: bytes, query: dict, repo: str, revision: str, file: str) -> None:
        if self.is_refused(repo):
            return
        found = self.files_at(repo, revision)
        if found is None:
            return
        oid, files = found
        if file not in files:
            self.refuse(404, "EntryNotFound", f"no file {file}")
            return
        blob, is_large = files[file]
        path = self.world.blobs / blob
        size = path.stat().st_size
        headers = {"ETag": f'"{blob}"', "X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        if is_large:
            headers |= {"X-Linked-Etag": f'"{blob}"', "X-Linked-Size": str(size)}
        if self.command == "HEAD":
            self.answer(200, b"", headers | {"Content-Length": str(size)})
            return
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, stop = (int(span[1]), min(int(span[2] or size - 1), size - 1)) if span else (0, size - 1)
        if start > stop and size:
            self.answer(416, b"", headers | {"Content-Range": f"bytes */{size}"})
            return
        with path.open("rb") as file:
            file.seek(start)
            body = file.read(stop - start + 1)
        if span:
            headers["Content-Range"] = f"bytes {start}-{stop}/{size}"
        self.answer(206 if span else 200, body, headers | {"Content-Length": str(len(body))})

    def is_refused(self, repo: str) -> bool:
        """Whether the repo is gated and the caller has not accepted its terms; then that is the answer."""
        gated = self.world.repos[repo]["gated"]
        if not gated or (gated == "accepted by writer" and self.token == "writer"):
            return False
        self.refuse(403 if self.token else 401, "GatedRepo", f"Access to {plain_name(repo)} is restricted")
        return True

    def auth_check(self, content: bytes, query: dict, repo: str) -> None:
        if not self.is_refused(repo):
            self.answer(200)


def plain_name(repo: str) -> str:
    """`OWNER/NAME` of a repo of any kind."""
    return "/".join(repo.split("/")[-2:])


def address_of(repo: str) -> str:
    """Where the pages of a repo are: only those of models have no kind before them."""
    return repo.removeprefix("models/") if repo.count("/") == 2 else f"datasets/{repo}"


def parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def is_lfs(path: str) -> bool:
    return path.endswith((".parquet", ".tar", ".png", ".arrow", ".safetensors", ".bin", ".msgpack"))


_NAME = r"[\w.-]+/[\w.-]+"
_REPO = rf"(?:datasets/(?P<repo>{_NAME})|(?P<other>(?:models|spaces)/{_NAME}))"  # as addresses of the API have it
_AT = rf"(?:datasets/(?P<repo>{_NAME})|(?P<other>spaces/{_NAME})|(?P<model>{_NAME}))"  # as those of files have it
_REV = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", Handler.whoami),
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.validate_yaml),
    ("GET", rf"/api/{_REPO}/refs", Handler.refs),
    ("GET", rf"/api/{_REPO}/auth-check", Handler.auth_check),
    ("GET", rf"/api/{_REPO}/revision/{_REV}", Handler.info),
    ("GET", rf"/api/{_REPO}/tree/{_REV}(?P<folder>/.*)?", Handler.tree),
    ("GET", rf"/api/{_REPO}/discussions", Handler.pull_requests),
    ("POST", rf"/api/{_REPO}/paths-info/{_REV}", Handler.paths_info),
    ("POST", rf"/api/{_REPO}/branch/(?P<name>.+)", Handler.branch),
    ("POST", rf"/api/{_REPO}/tag/{_REV}", Handler.tag),
    ("POST", rf"/api/{_REPO}/preupload/{_REV}", Handler.preupload),
    ("POST", rf"/api/{_REPO}/commit/{_REV}", Handler.commit),
    ("GET", rf"/api/{_REPO}", Handler.info),
    ("POST", r"/control/fail", Handler.fail),
    ("POST", rf"/{_AT}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", rf"/lfs/(?P<world>\w*)/(?P<holder>(?:spaces/|models/)?{_NAME})/(?P<oid>\w+)", Handler.lfs_put),
    (("GET", "HEAD"), rf"/{_AT}/resolve/{_REV}/(?P<file>.+)", Handler.download),
]


class HubServer(ThreadingHTTPServer):
    """A Hub on a free port; the caller runs `serve_forever`."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.address = f"http://127.0.0.1:{self.server_port}"
        self._worlds: dict[str, World] = {}
        self._lock = threading.Lock()

    def begin(self, root: Path) -> None:
        """Empties it: what it holds from here on lies in another folder."""
        with self._lock:
            self.root, self._worlds = root, {}

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # connections end here in every way

    def world(self, name: str = "0") -> World:
        with self._lock:
            if name not in self._worlds:
                self._worlds[name] = World(self.root / name)
            return self._worlds[name]

    def copy_world(self, name: str, new: str) -> World:
        """A world that begins as another one is."""
        shutil.copytree(self.world(name).root, self.root / new)
        return self.world(new)

    def fail(self, world: str = "0", **fault: Any) -> None:
        self.world(world).faults.append(Fault(**fault))
