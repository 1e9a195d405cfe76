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
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import served


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


class RefusedError(Exception):
    """Status, the Hub's name for it, and message of an answer that ends a request."""


class Handler(served.Handler):
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
        return self.content()

    def answer(self, status: int, content: object = None, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content if content is not None else {}).encode()
        fault, headers = self.fault, dict(headers or {})
        if fault and fault.etag and "ETag" in headers:
            headers |= {name: f'"{fault.etag}"' for name in ("ETag", "X-Linked-Etag") if name in headers}
        if fault and fault.drop == "after":
            self.drop()
            return
        headers.setdefault("Content-Length", str(len(body)))
        half = fault is not None and fault.drop == "middle" and self.command != "HEAD"
        if self.command != "HEAD":
            with self.world.lock:
                self.world.sent += len(body)
        self.reply(status, body[: len(body) // 2] if half else body, headers)
        if half:
            self.drop()

    def drop(self) -> None:
        """Ends the connection, and first the process that is to die at this moment."""
        if self.fault is not None and self.fault.kill is not None:
            os.kill(self.fault.kill, signal.SIGKILL)
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def check_writer(self) -> None:
        if self.token != "writer":
            code = "Forbidden" if self.token else ""
            raise RefusedError(403 if self.token else 401, code, "you may not write here")

    def check_reader(self, repo: str) -> None:
        known = self.world.repos.get(repo)
        if known is None or (known["private"] and not self.token):
            # A private repo is not told of: the real Hub answers 401 to those it does not know.
            raise RefusedError(404 if self.token else 401, "RepoNotFound", f"no repo {repo}")

    def respond(self) -> None:
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
        try:
            with self.world.lock:
                found = self.found(path, content, query)
        except RefusedError as error:
            status, code, message = error.args
            self.answer(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})
        else:
            if found is not None:  # else it is answered
                self.answer(200, found)

    def found(self, path: str, content: bytes, query: dict) -> object:
        """What the function of an address returns, which is what the client gets; None where it has answered."""
        if self.token not in ("writer", "reader", ""):
            raise RefusedError(401, "", "Invalid credentials in Authorization header")
        for method, pattern, function in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                groups = match.groupdict()
                model = groups.pop("model", None)
                other = groups.pop("other", None) or (f"models/{model}" if model else None)
                if "repo" in groups:
                    groups["repo"] = groups["repo"] or other
                    self.check_reader(groups["repo"])
                return function(self, content, query, **groups)
        raise RefusedError(404, "", f"no such address: {self.command} {path}")

    def files_at(self, repo: str, revision: str) -> tuple[str, dict]:
        oid = self.world.resolve(repo, revision)
        if oid is None:
            raise RefusedError(404, "RevisionNotFound", f"no revision {revision}")
        return oid, self.world.repos[repo]["commits"][oid]["files"]

    def fail(self, content: bytes, query: dict) -> object:
        """For processes that can't call `HubServer.fail`."""
        told = json.loads(content)
        self.server.fail(told.pop("world"), **told)
        return {}

    # What the clients call

    def whoami(self, content: bytes, query: dict) -> object:
        if not self.token:
            raise RefusedError(401, "", "Invalid username or password.")
        return {"name": "someone", "type": "user", "orgs": [{"name": "team"}], "auth": {}}

    def create(self, content: bytes, query: dict) -> None:
        self.check_writer()
        told = json.loads(content)
        namespace = told.get("organization") or "someone"
        if namespace not in ("someone", "team", "you"):
            message = f'You don\'t have the rights to create a dataset under the namespace "{namespace}"'
            raise RefusedError(403, "", message)
        kind = told.get("type", "model")
        name = f"{namespace}/{told['name'].split('/')[-1]}"
        name = name if kind == "dataset" else f"{kind}s/{name}"
        made = self.world.create(name, told.get("visibility") == "private" or bool(told.get("private")))
        url = f"{self.server.address}/{address_of(name)}"
        self.answer(200 if made else 409, {"url": url, "id": plain_name(name), "name": plain_name(name)})

    def info(self, content: bytes, query: dict, repo: str, revision: str = "main") -> object:
        oid, files = self.files_at(repo, revision)
        known = self.world.repos[repo]
        told = {"id": plain_name(repo), "sha": oid, "private": known["private"], "tags": [], "downloads": 0}
        siblings = [
            {"rfilename": name, "size": (self.world.blobs / blob).stat().st_size}
            | ({"lfs": {"sha256": blob, "size": 1, "pointerSize": 130}} if lfs else {})
            for name, (blob, lfs) in sorted(files.items())
        ]
        return told | {"gated": "manual" if known["gated"] else False, "siblings": siblings}

    def entry(self, name: str, blob: list) -> dict:
        size = (self.world.blobs / blob[0]).stat().st_size
        told = {"type": "file", "path": name, "size": size, "oid": blob[0][:40]}
        return told | ({"lfs": {"oid": blob[0], "size": size, "pointerSize": 130}} if blob[1] else {})

    def tree(self, content: bytes, query: dict, repo: str, revision: str, folder: str | None = None) -> object:
        _, files = self.files_at(repo, revision)
        prefix = f"{folder.strip('/')}/" if folder and folder.strip("/") else ""
        below = {name: blob for name, blob in files.items() if name.startswith(prefix)}
        if prefix and not below:
            raise RefusedError(404, "EntryNotFound", f"no folder {folder}")
        folders = {prefix + name.removeprefix(prefix).split("/")[0] for name in below if "/" in name[len(prefix) :]}
        recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        if recursive:
            folders = {parent for name in below for parent in parents(name) if len(parent) > len(prefix)}
        else:
            below = {name: blob for name, blob in below.items() if "/" not in name[len(prefix) :]}
        listed = [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in sorted(folders)]
        return listed + [self.entry(name, blob) for name, blob in sorted(below.items())]

    def paths_info(self, content: bytes, query: dict, repo: str, revision: str) -> object:
        _, files = self.files_at(repo, revision)
        if "json" in self.headers.get("Content-Type", ""):
            paths = json.loads(content)["paths"]
        else:
            paths = parse_qs(content.decode()).get("paths", [])
        listed = []
        for path in [paths] if isinstance(paths, str) else paths:
            if path in files:
                listed.append(self.entry(path, files[path]))
            elif any(name.startswith(f"{path.rstrip('/')}/") for name in files):
                listed.append({"type": "directory", "path": path, "size": 0, "oid": "0" * 40})
        return listed

    def refs(self, content: bytes, query: dict, repo: str) -> object:
        known = self.world.repos[repo]
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in known["refs"].items()]
        tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in known["tags"].items()]
        return {"branches": branches, "tags": tags, "converts": [], "pullRequests": []}

    def branch(self, content: bytes, query: dict, repo: str, name: str) -> object:
        return self.point(repo, "refs", name, json.loads(content or b"{}").get("startingPoint") or "main")

    def tag(self, content: bytes, query: dict, repo: str, revision: str) -> object:
        return self.point(repo, "tags", json.loads(content)["tag"], revision)

    def point(self, repo: str, kind: str, name: str, revision: str) -> object:
        """Makes a branch or a tag."""
        self.check_writer()
        known = self.world.repos[repo][kind]
        if name in known:
            raise RefusedError(409, "", f"{name} exists")
        known[name] = self.world.resolve(repo, revision)
        self.world.save()
        return {}

    def pull_requests(self, content: bytes, query: dict, repo: str) -> object:
        """Ten a page, as one would have to page through many."""
        wanted = [told for told in self.world.repos[repo]["pull_requests"] if told["status"] in query["status"]]
        start = 10 * int(query.get("p", ["0"])[0])
        return {"count": len(wanted), "start": start, "discussions": wanted[start : start + 10]}

    def validate_yaml(self, content: bytes, query: dict) -> object:
        return {"errors": [], "warnings": []}

    def preupload(self, content: bytes, query: dict, repo: str, revision: str) -> object:
        self.check_writer()
        _, here = self.files_at(repo, revision)
        ignored = self.world.repos[repo].get("ignored", "(?!)")
        told = []
        for path in (file["path"] for file in json.loads(content)["files"]):
            lfs = is_lfs(path)
            known = here[path][0] if lfs and path in here else None
            mode = {"path": path, "uploadMode": "lfs" if lfs else "regular", "oid": known}
            told.append(mode | {"shouldIgnore": re.search(ignored, path) is not None})
        return {"files": told}

    def lfs_batch(self, content: bytes, query: dict, repo: str) -> object:
        self.check_writer()
        objects = []
        for wanted in json.loads(content)["objects"]:
            told = {"oid": wanted["oid"], "size": wanted["size"], "authenticated": True}
            if wanted["oid"] not in self.world.repos[repo]["received"]:
                where = f"{self.server.address}/lfs/{self.world.root.name}/{repo}/{wanted['oid']}"
                told["actions"] = {"upload": {"href": where}}
            objects.append(told)
        return {"transfer": "basic", "objects": objects}

    def lfs_put(self, content: bytes, query: dict, world: str, holder: str, oid: str) -> object:
        if hashlib.sha256(content).hexdigest() != oid:
            raise RefusedError(422, "", "the content has another sha256")
        self.world.keep(content)
        self.world.uploads.append(oid)
        self.world.repos[holder]["received"].append(oid)
        self.world.save()
        return {}

    def commit(self, content: bytes, query: dict, repo: str, revision: str) -> object:
        proposes = query.get("create_pr") == ["1"]
        if not (proposes and self.token):
            self.check_writer()
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
            raise RefusedError(404, "RevisionNotFound", f"no branch {revision}")
        parent = next((line["value"].get("parentCommit") for line in lines if line["key"] == "header"), None)
        if parent and parent != known["refs"][revision]:
            raise RefusedError(412, "", "a commit has happened since")
        for line in lines:
            if line["key"] == "lfsFile" and line["value"]["oid"] not in known["received"]:
                raise RefusedError(400, "", f"{line['value']['path']} was not uploaded")
        oid = self.world.commit(repo, revision, lines)
        url = f"{self.server.address}/{address_of(repo)}/commit/{oid}"
        told = {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}
        if proposes:
            told["pullRequestUrl"] = f"{self.server.address}/{plain_name(repo)}/discussions/{number}"
        return told

    def download(self, content: bytes, query: dict, repo: str, revision: str, file: str) -> None:
        self.auth_check(content, query, repo)
        oid, files = self.files_at(repo, revision)
        if file not in files:
            raise RefusedError(404, "EntryNotFound", f"no file {file}")
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

    def auth_check(self, content: bytes, query: dict, repo: str) -> object:
        """Refuses where the repo is gated and the caller has not accepted its terms."""
        gated = self.world.repos[repo]["gated"]
        if gated and not (gated == "accepted by writer" and self.token == "writer"):
            raise RefusedError(403 if self.token else 401, "GatedRepo", f"Access to {plain_name(repo)} is restricted")
        return {}


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


class HubServer(served.Server):
    """A Hub on a free port."""

    def __init__(self, root: Path) -> None:
        super().__init__(Handler)
        self.root = root
        self._worlds: dict[str, World] = {}
        self._lock = threading.Lock()

    def variables(self, home: Path, token: str) -> dict[str, str]:
        """The environment in which the Hub's clients use it."""
        told = {"HF_ENDPOINT": self.address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        return told | {"HF_HOME": str(home), "HF_TOKEN": token}

    def begin(self, root: Path) -> None:
        """Empties it: what it holds from here on lies in another folder."""
        with self._lock:
            self.root, self._worlds = root, {}

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
