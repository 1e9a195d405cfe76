"""A dataset folder in an object store: S3 and compatible ones, Google's, Azure's, buckets of the Hub.

There are no locks. A claim is an object that only one process can create; its holder rewrites it now and then, and
others replace one that has not changed for a while. Each machine has a folder of its own, whose files are uploaded as
they are made; the provenance says what the split is.
"""

import hashlib
import io
import json
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import unquote

from fmrgen.errors import UserError, one_line
from fmrgen.files import cache_folder, write_atomically
from fmrgen.locks import holder_name, lease_seconds
from fmrgen.storage.paths import CARD, SMALL_FILE, SplitPaths
from fmrgen.storage.shared_disk import ClaimKind, Shared, SharedDisk, hidden_name

if TYPE_CHECKING:
    from obstore import ReadableFile, UpdateVersion
    from obstore.store import ObjectStore, RetryConfig

_SCHEMES = ("s3://", "gs://", "az://", "hf://buckets/")
_SMALL = re.compile(rf"{SMALL_FILE}|{re.escape(CARD)}|pictures/.*\.png")
_METADATA = "169.254.169.254"  # where clients ask for keys if none are set
_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what your store goes by"
_CONFLICT = (
    "the store reports a conflict (409 or 412) where there is none; run the same command again, or choose another store"
)
_ALLOWED = ("true", "1", "yes", "y", "on")  # values of a variable that allows something
_HTTP = re.compile(r"Error performing (\w+) \S+ in \S+ - ")  # address and time, which a client adds to a status
_ADDRESSES = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://ACCOUNT/CONTAINER/PREFIX or hf://buckets/OWNER/NAME/PREFIX"
_ATTEMPTS = 8  # of a request that the store refuses or loses
_LONGEST = timedelta(minutes=3)  # of all of them together
_CONFLICTS = 20  # times in a row that a claim can't be created although it does not exist
_PAUSE = 1.0  # seconds between two requests for the same claim
_BEATS = 3  # times that a claim is rewritten during a lease, so that one lost request does not end it


def is_bucket(output: str | Path) -> bool:
    """Return whether an output is the address of a folder in an object store."""
    return str(output).startswith(_SCHEMES)


def folder_of(output: str | Path) -> Path:
    """Return where the files of a dataset folder are on this machine."""
    if not is_bucket(output):
        return Path(output)
    digest = hashlib.sha256(str(output).rstrip("/").encode()).hexdigest()
    return cache_folder() / "buckets" / digest[:16]


def shared_folder(output: str | Path, claims: ClaimKind = "auto") -> tuple[Shared, Path]:
    """Return how processes share the dataset folder `output`, and where its files are on this machine.

    Raises UserError if it is in an object store that can't be reached, or is another kind of address.
    """
    if is_bucket(output):
        bucket = SharedBucket(str(output))
        return bucket, bucket.root
    if "://" in str(output):
        raise UserError(f"{output}: can't be written to; give a folder, or {_ADDRESSES}")
    return SharedDisk(claims), Path(output)


@dataclass
class _Claim:
    """A claim that this process holds.

    Attributes:
        token: names the holder; in the object.
        beats: how often the object was rewritten; in the object.
        version: of the object, as the store names it.
    """

    token: str
    beats: int
    version: "UpdateVersion"


@dataclass(frozen=True)
class _Seen:
    """Another process's claim.

    Attributes:
        tag: of its object.
        since: when this tag was first seen, by this machine's clock.
        looked: when it was last seen.
    """

    tag: str | None
    since: float
    looked: float


class _Object(io.RawIOBase):
    """An object as a file of Python, which is not read ahead."""

    def __init__(self, reader: "ReadableFile") -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()

    def readinto(self, buffer: Any) -> int:
        from obstore.exceptions import BaseError

        try:
            content = self._reader.read(len(buffer))
        except BaseError as error:
            raise OSError(_message(error)) from None
        buffer[: len(content)] = content
        return len(content)


class SharedBucket:
    """A folder in an object store.

    Args:
        url: `s3://BUCKET/PREFIX`, `gs://…`, `az://…`, or `hf://buckets/OWNER/BUCKET/PREFIX`.

    Attributes:
        root: the folder of its files on this machine.

    Raises:
        UserError: the address is wrong, or `obstore` is not installed.
    """

    poll = 5.0
    is_local = False

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.root = folder_of(self.url)
        self._store = _store_of(self.url)
        self._lease = lease_seconds()
        self.former_holders: list[str] = []
        self._held: dict[str, _Claim] = {}
        self._seen: dict[str, _Seen] = {}  # claims of others
        self._small: dict[str, tuple[str, UpdateVersion]] = {}  # sha256 and version of small files as last exchanged
        self._conflicts = Counter[str]()  # by keys
        self._is_checked = False  # whether the store is known to heed conditions
        self._turn = threading.RLock()
        self._heart: threading.Thread | None = None

    def take(self, path: Path) -> bool:
        """Take the claim at `path` unless another process holds it, and return whether this one does.

        Raises UserError if the store fails.
        """
        key, claim, now = self._key(path), _Claim(token_hex(16), 0, {}), time.monotonic()
        seen = self._seen.get(key)
        if seen is not None and now - seen.looked < _PAUSE and now - seen.since < self._lease:
            return False
        with self._errors_for_users():
            if self._write_claim(key, claim, None):
                self._conflicts.pop(key, None)
                return self._hold(key, claim)
            stored = self._read(key)
            if stored is None:
                self._count_conflict(key)  # or its holder has just released it
                return False
            self._conflicts.pop(key, None)
            content, version = stored
            self._see(key, version.get("e_tag"))
            is_alive = time.monotonic() - self._seen[key].since < self._lease
            if is_alive or not self._write_claim(key, claim, version):
                return False
            self.former_holders.append(_holder_in(content))
            return self._hold(key, claim)

    def _count_conflict(self, key: str) -> None:
        """Raise UserError if the store says again and again that a claim exists which does not."""
        self._conflicts[key] += 1
        if self._conflicts[key] == _CONFLICTS:
            raise UserError(f"{self.url}: {_CONFLICT}")

    def is_taken(self, path: Path) -> bool:
        key = self._key(path)
        if key in self._held or not self.take(path):
            return key not in self._held
        self.release(path)
        return False

    def release(self, path: Path) -> None:
        import obstore

        key = self._key(path)
        with self._turn:
            if self._held.pop(key, None) is None:
                return  # lost to another
            with self._errors_for_users(), suppress(FileNotFoundError):
                obstore.delete(self._store, key)

    def is_there(self, folder: Path) -> bool:
        return folder.is_dir()

    def check_conditions(self) -> None:
        """Raise UserError if the store fails, or ignores either of the conditions of a write that claims need.

        Without them each process would hold all claims, and late ones would replace finished shards. They are tried on
        an object that is removed again, in seven requests.
        """
        import obstore

        key = f".{token_hex(8)}.probe"
        with self._errors_for_users():
            first = self._write_at_last(key, b"first", None)
            self._write_at_last(key, b"second", first)
            creates_twice = self._write(key, b"third", None) is not None
            replaces_another = self._write(key, b"fourth", first) is not None
            obstore.delete(self._store, key)
        if creates_twice or replaces_another:
            header = "If-None-Match" if creates_twice else "If-Match"
            raise UserError(
                f"{self.url}: the store ignores {header}, so processes can't share the work there; write to a folder, "
                "and copy that, or choose another store"
            )

    @contextmanager
    def alone(self, paths: SplitPaths) -> Iterator[None]:
        if not self._is_checked:
            self.check_conditions()
            self._is_checked = True
        while not self.take(paths.lock):
            time.sleep(self.poll / 2)
        try:
            paths.shards.mkdir(parents=True, exist_ok=True)
            self.refresh()
            yield
            self.send()
        finally:
            self.release(paths.lock)

    def refresh(self) -> None:
        self._small.clear()
        keys = set(filter(_SMALL.fullmatch, self._listed("")))
        for key in keys:
            with self._errors_for_users():
                stored = self._read(key)
            if stored is not None:
                content, version = stored
                write_atomically(self.root / key, content, durable=False)
                self._small[key] = hashlib.sha256(content).hexdigest(), version
        for key in self._small_here() - keys:
            (self.root / key).unlink(missing_ok=True)

    def send(self) -> None:
        """Send the small files that have changed; the provenance last, since it says that all others are there.

        Raises UserError if another process changed one.
        """
        for key in sorted(self._small_here(), key=lambda key: key.startswith("provenance/")):
            content = (self.root / key).read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            last_digest, last_version = self._small.get(key, ("", None))
            if digest == last_digest:
                continue
            with self._errors_for_users():
                version = self._write(key, content, last_version)
            if version is None:
                raise UserError(f"{self.url}/{key}: was changed by another process; run the same command again")
            self._small[key] = digest, version

    def names(self, folder: Path) -> set[str]:
        prefix = "" if folder == self.root else f"{self._key(folder)}/"
        names = set()
        for key, tag in self._listed(prefix).items():
            names.add(key.removeprefix(prefix))
            if key.endswith(".lock"):
                self._see(key, tag)
        return names

    def exists(self, path: Path) -> bool:
        import obstore

        with self._errors_for_users(), suppress(FileNotFoundError):
            obstore.head(self._store, self._key(path))
            return True
        return False

    def open(self, path: Path) -> io.BufferedIOBase:
        import obstore

        with self._errors_for_users():
            return io.BufferedReader(_Object(obstore.open_reader(self._store, self._key(path))))

    def publish(self, path: Path, *, replace: bool = False) -> None:
        """Send a file. One that exists already stays unless `replace`: another process has made the same."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        key, content = self._key(path), path.read_bytes()
        if replace:
            with self._errors_for_users():
                obstore.put(self._store, key, content)  # in parts if it is large
            return
        for _ in range(_ATTEMPTS):
            with self._errors_for_users(), suppress(AlreadyExistsError):
                obstore.put(self._store, key, content, mode="create", use_multipart=False)
                return
            if self.exists(path):
                return
            time.sleep(_PAUSE)
        raise UserError(f"{self.url}: {_CONFLICT}")

    def remove(self, path: Path) -> None:
        import obstore

        path.unlink(missing_ok=True)
        with self._errors_for_users(), suppress(FileNotFoundError):
            obstore.delete(self._store, self._key(path))

    def set_aside(self, path: Path) -> Path:
        import obstore

        aside = hidden_name(path, self.names(path.parent))
        with self._errors_for_users(), suppress(FileNotFoundError):
            obstore.rename(self._store, self._key(path), self._key(aside))
        path.unlink(missing_ok=True)
        return aside

    @contextmanager
    def files(self, paths: SplitPaths) -> Iterator[None]:
        """Return a context in which all of a split's shards are on this machine; they are fetched anew, and deleted at
        its end."""
        try:
            for name in paths.shards_among(self.names(paths.shards)):
                self._fetch(self._key(paths.shards / name))
            yield
        finally:
            self.forget(paths)

    def forget(self, paths: SplitPaths) -> None:
        for path in paths.found_shards():
            path.unlink(missing_ok=True)

    def patience(self, folder: Path) -> float:
        return self._lease + self.poll

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _listed(self, prefix: str) -> dict[str, str | None]:
        """Return the keys below a prefix, and the tag of each object."""
        import obstore

        tags = {}
        with self._errors_for_users():
            for page in obstore.list(self._store, prefix):
                for entry in page:
                    tags[str(entry["path"])] = entry.get("e_tag")
        return tags

    def _read(self, key: str) -> "tuple[bytes, UpdateVersion] | None":
        """Return content and version of an object; None if it does not exist."""
        import obstore

        try:
            stored = obstore.get(self._store, key)
        except FileNotFoundError:
            return None
        return bytes(stored.bytes()), _version_of(stored.meta)

    def _fetch(self, key: str) -> None:
        """Write an object to its file on this machine, if it exists."""
        with self._errors_for_users():
            stored = self._read(key)
        if stored is not None:
            content, _ = stored
            write_atomically(self.root / key, content)

    def _write(self, key: str, content: bytes, expected: "UpdateVersion | None") -> "UpdateVersion | None":
        """Write an object on a condition, and return its new version; None if the condition does not hold.

        If a reply was lost, the repeated request looks as if another process had written the object. So its content is
        compared.

        Args:
            key: of the object.
            content: to write.
            expected: the version that the object must have; None if it must not exist.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Literal["create"] | UpdateVersion = "create" if expected is None else expected
        try:
            return _version_of(obstore.put(self._store, key, content, mode=mode, use_multipart=False))
        except (AlreadyExistsError, PreconditionError):
            stored = self._read(key)
            if stored is None or stored[0] != content:
                return None
            return stored[1]

    def _write_at_last(self, key: str, content: bytes, expected: "UpdateVersion | None") -> "UpdateVersion":
        """Return the new version of an object that nobody else writes. Raises UserError if it can't be written."""
        for _ in range(_ATTEMPTS):
            version = self._write(key, content, expected)
            if version is not None:
                return version
            time.sleep(_PAUSE)
        raise UserError(f"{self.url}: {_CONFLICT}")

    def _write_claim(self, key: str, claim: _Claim, expected: "UpdateVersion | None") -> bool:
        """Write a claim if its object has the expected version, and return whether it was written."""
        holder = {"holder": claim.token, "beats": claim.beats, "host": socket.gethostname(), "pid": os.getpid()}
        version = self._write(key, json.dumps(holder).encode(), expected)
        if version is None:
            return False
        claim.version = version
        return True

    def _see(self, key: str, tag: str | None) -> None:
        """Note that another process's claim has a tag now."""
        now = time.monotonic()
        if tag is not None:
            tag = tag.strip('"')  # some stores quote it in one answer and not in another
        before = self._seen.get(key)
        since = before.since if before is not None and before.tag == tag else now
        self._seen[key] = _Seen(tag, since, now)

    def _hold(self, key: str, claim: _Claim) -> bool:
        """Hold a claim that was written, and keep rewriting it; returns True."""
        with self._turn:
            self._held[key] = claim
            self._seen.pop(key, None)
            if self._heart is None:
                self._heart = threading.Thread(target=self._beat, daemon=True, name="claims")
                self._heart.start()
        return True

    def _beat(self) -> None:
        """Rewrite the claims now and then, as long as any is held."""
        while True:
            time.sleep(self._lease / _BEATS)
            with self._turn:
                if not self._held:
                    self._heart = None
                    return
            for key in list(self._held):
                with self._turn, suppress(UserError), self._errors_for_users():  # the store may answer the next time
                    claim = self._held.get(key)
                    if claim is not None:
                        claim.beats += 1
                        if not self._write_claim(key, claim, claim.version):
                            del self._held[key]  # taken over while this process stood still

    def _small_here(self) -> set[str]:
        """Return the keys of the small files on this machine."""
        keys = (self._key(path) for path in self.root.rglob("*") if path.is_file())
        return set(filter(_SMALL.fullmatch, keys))

    @contextmanager
    def _errors_for_users(self) -> Iterator[None]:
        """Raise UserError instead of the store's exceptions."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            yield
        except FileNotFoundError:
            raise UserError(f"{self.url}: there is no such bucket; make it first") from None
        except (AlreadyExistsError, PreconditionError):  # callers catch them if they can mean something
            raise UserError(f"{self.url}: {_CONFLICT}") from None
        except BaseError as error:
            if _METADATA in str(error):
                raise UserError(f"{self.url}: no keys were found for it; {_KEYS}") from None
            raise UserError(f"{self.url}: the store fails: {_message(error)}") from None


def _holder_in(content: bytes) -> str:
    """Return who wrote a claim, which those of older versions do not say."""
    with suppress(ValueError, KeyError, TypeError):
        holder = json.loads(content)
        return holder_name(holder["host"], holder["pid"])
    return "another process"


def _message(error: Exception) -> str:
    """Return the message of a store, without what its client adds for programmers."""
    text = _HTTP.sub(r"\1: ", str(error).partition("Debug source")[0])
    return one_line(Exception(text.rstrip(". :\n")), 160)


def _check_address(url: str) -> None:
    """Raise UserError for an address with parts that would lead elsewhere than it seems, or be ignored silently."""
    shown = re.split(r"[?#]", url)[0]  # a query may hold a signature
    parts = unquote(shown).partition("://")[2].rstrip("/").split("/")
    reason = None
    if shown != url:
        reason = "it has ? or # in it"
    elif "@" in parts[0]:
        reason = "it has @ in it; keys go into the environment"
    elif not {"", ".", ".."}.isdisjoint(parts):
        reason = "it has an empty part, . or .. in it"
    if reason is not None:
        raise UserError(f"{shown.rpartition('@')[2]}: is no address of a bucket ({reason}); say {_ADDRESSES}")


def _check_http(url: str) -> None:
    """Raise UserError if requests would go to a store by http and nobody has allowed that: the message of the client
    says neither."""
    is_allowed = os.environ.get("AWS_ALLOW_HTTP", "").lower() in _ALLOWED
    if is_allowed or not url.startswith("s3://"):
        return
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        endpoint = os.environ.get(name)
        if not endpoint:
            continue
        if endpoint.startswith("http://"):
            raise UserError(
                f"{url}: {name} begins with http://; set AWS_ALLOW_HTTP=true if keys may go there unencrypted"
            )
        return  # the client uses the first that is set


def _version_of(meta: object) -> "UpdateVersion":
    """Return the version in the metadata of an object."""
    fields = cast("dict[str, str | None]", meta)
    return cast("UpdateVersion", {name: fields[name] for name in ("e_tag", "version") if fields.get(name)})


def _store_of(url: str) -> "ObjectStore":
    """Return the store of an address. Raises UserError if `obstore` is not installed, or the address is wrong."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store, from_url
    except ImportError:
        raise UserError(f"{url}: needs obstore; pip install 'fmrgen[cloud]'") from None
    _check_address(url)
    _check_http(url)
    retries: RetryConfig = {"max_retries": _ATTEMPTS, "retry_timeout": _LONGEST}
    hub_bucket = re.fullmatch(r"hf://buckets/([\w.-]+)/([\w.-]+)(?:/(.+))?", url)
    try:
        if hub_bucket is None:
            return from_url(url, retry_config=retries)
        owner, name, prefix = hub_bucket.groups()
        return S3Store(
            name,
            prefix=prefix,
            endpoint=f"https://s3.hf.co/{owner}",
            region="us-east-1",
            virtual_hosted_style_request=False,
            disable_bulk_delete=True,
            retry_config=retries,
        )
    except BaseError as error:
        raise UserError(f"{url}: is no address of a bucket ({_message(error)}); say {_ADDRESSES}") from None
