"""A dataset folder in an object store: S3 and its like, Google's, Azure's, buckets of the Hub.

Nothing is locked there. A claim is an object that only one process can create; its holder rewrites it now and then, and
others replace one that has not changed for a while. Each machine has a folder of its own, whose files go up as they are
made; what the split is, its provenance says.
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
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from fmrgen.errors import UserError, one_line
from fmrgen.files import cache_folder, write_atomically
from fmrgen.locks import holder_name, lease_seconds
from fmrgen.storage.paths import CARD, CROISSANT, SMALL_FILE, SplitPaths
from fmrgen.storage.shared_disk import ClaimKind, Shared, SharedDisk, hidden_name

if TYPE_CHECKING:
    from obstore import ReadableFile, UpdateVersion
    from obstore.store import ObjectStore, RetryConfig

_SCHEMES = ("s3://", "gs://", "az://", "hf://buckets/")
_SMALL = re.compile(rf"{SMALL_FILE}|{re.escape(CARD)}|{re.escape(CROISSANT)}|pictures/.*\.png")
_METADATA = "169.254.169.254"  # whom clients ask for keys where they were given none
_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what your store goes by"
_CONFLICT = (
    "the store reports a conflict (409 or 412) where there is none; run the same command again, or choose another store"
)
_ALLOWED = ("true", "1", "yes", "y", "on")  # values of a variable that allows something
_HTTP = re.compile(r"Error performing (\w+) \S+ in \S+ - ")  # what a client adds to a status: address and time
_ADDRESSES = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://ACCOUNT/CONTAINER/PREFIX or hf://buckets/OWNER/NAME/PREFIX"
_ATTEMPTS = 8  # of a request that a store fails or loses
_LONGEST = timedelta(minutes=3)  # of all of them together
_CONFLICTS = 20  # times that a claim can't be created, though nothing is there
_PAUSE = 1.0  # seconds in which a claim that was seen need not be asked for again


def is_bucket(output: str | Path) -> bool:
    """Whether an output is the address of a folder in an object store."""
    return str(output).startswith(_SCHEMES)


def folder_of(output: str | Path) -> Path:
    """Where the files of a dataset folder are on this machine."""
    if not is_bucket(output):
        return Path(output)
    return cache_folder() / "buckets" / hashlib.sha256(str(output).rstrip("/").encode()).hexdigest()[:16]


def shared_folder(output: str | Path, claims: ClaimKind = "auto") -> tuple[Shared, Path]:
    """How processes share the dataset folder `output`, and where its files are on this machine.

    Raises UserError where it is in an object store that can't be reached, or is another kind of address.
    """
    if "://" in str(output) and not is_bucket(output):
        raise UserError(f"{output}: can't be written to; give a folder, or {_ADDRESSES}")
    if not is_bucket(output):
        return SharedDisk(claims), Path(output)
    bucket = SharedBucket(str(output))
    return bucket, bucket.root


@dataclass
class _Claim:
    """A claim that this process holds: what its object says, and the version of it."""

    token: str
    beats: int
    version: "UpdateVersion"


@dataclass(frozen=True)
class _Seen:
    """The tag of another's claim, since when it has been that by this machine's clock, and the last look at it."""

    tag: str | None
    since: float
    looked: float


class _Object(io.RawIOBase):
    """An object as Python's files are, of which as much is read as is asked for."""

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
            raise OSError(_said(error)) from None
        buffer[: len(content)] = content
        return len(content)


class SharedBucket:
    """A folder in an object store.

    Args:
        url: `s3://BUCKET/PREFIX`, `gs://…`, `az://…`, or `hf://buckets/OWNER/BUCKET/PREFIX`.

    Attributes:
        root: of its files on this machine.

    Raises:
        UserError: it can't be reached.
    """

    poll = 5.0
    is_local = False

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.root = folder_of(self.url)
        self._store, self._lease = _store_of(self.url), lease_seconds()
        self.former_holders: list[str] = []
        self._held: dict[str, _Claim] = {}
        self._seen: dict[str, _Seen] = {}  # claims of others
        self._small: dict[str, tuple[str, UpdateVersion]] = {}  # sha256 and version of small files as they came
        self._conflicts = Counter[str]()  # by keys
        self._is_checked = False  # whether it heeds conditions
        self._turn = threading.RLock()
        self._heart: threading.Thread | None = None

    def take(self, path: Path) -> bool:
        """Raises UserError where the store fails."""
        key, claim, now = self._key(path), _Claim(token_hex(16), 0, {}), time.monotonic()
        seen = self._seen.get(key)
        if seen is not None and now - seen.looked < _PAUSE and now - seen.since < self._lease:
            return False
        with self._asking():
            if self._write_claim(key, claim, None):
                self._conflicts.pop(key, None)
                return self._hold(key, claim)
            if (found := self._read(key)) is None:
                self._count_conflict(key)  # or just left
                return False
            self._conflicts.pop(key, None)
            self._see(key, found[1].get("e_tag"))
            if time.monotonic() - self._seen[key].since < self._lease or not self._write_claim(key, claim, found[1]):
                return False
            self.former_holders.append(_holder_in(found[0]))
            return self._hold(key, claim)

    def _count_conflict(self, key: str) -> None:
        """Raises UserError where a store says again and again that there is something, and there is nothing."""
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
            with self._asking(), suppress(FileNotFoundError):
                obstore.delete(self._store, key)

    def is_there(self, folder: Path) -> bool:
        return folder.is_dir()

    def check_conditions(self) -> None:
        """Tries on an object that is removed again whether a write can depend on what is there, as claims do: else each
        process would hold all of them, and late ones would replace finished shards. Seven requests.

        Raises UserError where the store ignores either condition, or fails.
        """
        import obstore

        key = f".{token_hex(8)}.probe"
        with self._asking():
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
        there = {key for key in self._listed("") if _SMALL.fullmatch(key)}
        for key in there:
            with self._asking():
                found = self._read(key)
            if found is not None:
                write_atomically(self.root / key, found[0], durable=False)
                self._small[key] = hashlib.sha256(found[0]).hexdigest(), found[1]
        for key in self._small_here() - there:
            (self.root / key).unlink(missing_ok=True)

    def send(self) -> None:
        """Sends the small files that are others than they were, last the provenance, which says that all is there.

        Raises UserError where somebody else changed one.
        """
        for key in sorted(self._small_here(), key=lambda key: key.startswith("provenance/")):
            content = (self.root / key).read_bytes()
            digest, version = self._small.get(key, ("", None))
            if digest == hashlib.sha256(content).hexdigest():
                continue
            with self._asking():
                sent = self._write(key, content, version)
            if sent is None:
                raise UserError(f"{self.url}/{key}: was changed by another process; run the same command again")
            self._small[key] = hashlib.sha256(content).hexdigest(), sent

    def names(self, folder: Path) -> set[str]:
        prefix = "" if folder == self.root else f"{self._key(folder)}/"
        found = {key.removeprefix(prefix): tag for key, tag in self._listed(prefix).items()}
        for name, tag in found.items():
            if name.endswith(".lock"):
                self._see(prefix + name, tag)
        return {*found}

    def exists(self, path: Path) -> bool:
        import obstore

        with self._asking(), suppress(FileNotFoundError):
            obstore.head(self._store, self._key(path))
            return True
        return False

    def open(self, path: Path) -> io.BufferedIOBase:
        import obstore

        with self._asking():
            return io.BufferedReader(_Object(obstore.open_reader(self._store, self._key(path))))

    def publish(self, path: Path, *, replace: bool = False) -> None:
        """A file that is there already stays, as a rule: another process has made the same."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        key, content = self._key(path), path.read_bytes()
        if replace:
            with self._asking():
                obstore.put(self._store, key, content)  # in parts, where it is large
            return
        for _ in range(_ATTEMPTS):
            with self._asking(), suppress(AlreadyExistsError):
                obstore.put(self._store, key, content, mode="create", use_multipart=False)
                return
            if self.exists(path):
                return
            time.sleep(_PAUSE)
        raise UserError(f"{self.url}: {_CONFLICT}")

    def remove(self, path: Path) -> None:
        import obstore

        path.unlink(missing_ok=True)
        with self._asking(), suppress(FileNotFoundError):
            obstore.delete(self._store, self._key(path))

    def set_aside(self, path: Path) -> Path:
        import obstore

        aside = hidden_name(path, self.names(path.parent))
        with self._asking(), suppress(FileNotFoundError):
            obstore.rename(self._store, self._key(path), self._key(aside))
        path.unlink(missing_ok=True)
        return aside

    @contextmanager
    def files(self, paths: SplitPaths) -> Iterator[None]:
        """They are brought whole, whatever an earlier job left on this machine, and go again."""
        try:
            for name in paths.shards_among(self.names(paths.shards)):
                self._bring(self._key(paths.shards / name))
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
        """The keys below a prefix, and the tag of what each holds."""
        import obstore

        with self._asking():
            return {str(one["path"]): one.get("e_tag") for page in obstore.list(self._store, prefix) for one in page}

    def _read(self, key: str) -> "tuple[bytes, UpdateVersion] | None":
        import obstore

        try:
            found = obstore.get(self._store, key)
        except FileNotFoundError:
            return None
        return bytes(found.bytes()), _version_of(found.meta)

    def _bring(self, key: str) -> None:
        with self._asking():
            found = self._read(key)
        if found is not None:
            write_atomically(self.root / key, found[0])

    def _write(self, key: str, content: bytes, known: "UpdateVersion | None") -> "UpdateVersion | None":
        """The new version of an object that is created, or replaced where it is as it is `known`; None where it is not.

        A reply that was lost looks like another's write, so what is there is compared.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            return _version_of(
                obstore.put(self._store, key, content, mode="create" if known is None else known, use_multipart=False)
            )
        except (AlreadyExistsError, PreconditionError):
            found = self._read(key)
            return found[1] if found is not None and found[0] == content else None

    def _write_at_last(self, key: str, content: bytes, known: "UpdateVersion | None") -> "UpdateVersion":
        """The version of an object that nobody else writes. Raises UserError where it can't be written."""
        for _ in range(_ATTEMPTS):
            version = self._write(key, content, known)
            if version is not None:
                return version
            time.sleep(_PAUSE)
        raise UserError(f"{self.url}: {_CONFLICT}")

    def _write_claim(self, key: str, claim: _Claim, known: "UpdateVersion | None") -> bool:
        holder = {"holder": claim.token, "beats": claim.beats, "host": socket.gethostname(), "pid": os.getpid()}
        content = json.dumps(holder).encode()
        version = self._write(key, content, known)
        if version is not None:
            claim.version = version
        return version is not None

    def _see(self, key: str, tag: str | None) -> None:
        before, now = self._seen.get(key), time.monotonic()
        tag = None if tag is None else tag.strip('"')  # some stores quote it in one answer and not in another
        self._seen[key] = _Seen(tag, now if before is None or before.tag != tag else before.since, now)

    def _hold(self, key: str, claim: _Claim) -> bool:
        with self._turn:
            self._held[key] = claim
            self._seen.pop(key, None)
            if self._heart is None:
                self._heart = threading.Thread(target=self._beat, daemon=True, name="claims")
                self._heart.start()
        return True

    def _beat(self) -> None:
        """As long as anything is held."""
        while True:
            time.sleep(self._lease / 3)
            with self._turn:
                if not self._held:
                    self._heart = None
                    return
            for key in list(self._held):
                with self._turn, suppress(UserError), self._asking():  # the next time it may be reached
                    if (claim := self._held.get(key)) is not None:
                        claim.beats += 1
                        if not self._write_claim(key, claim, claim.version):
                            del self._held[key]  # taken over while this process stood still

    def _small_here(self) -> set[str]:
        keys = (self._key(path) for path in self.root.rglob("*") if path.is_file())
        return {key for key in keys if _SMALL.fullmatch(key)}

    @contextmanager
    def _asking(self) -> Iterator[None]:
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            yield
        except FileNotFoundError:
            raise UserError(f"{self.url}: there is no such bucket; make it first") from None
        except (AlreadyExistsError, PreconditionError):  # where they can mean something they are caught before
            raise UserError(f"{self.url}: {_CONFLICT}") from None
        except BaseError as error:
            if _METADATA in str(error):
                raise UserError(f"{self.url}: no keys were found for it; {_KEYS}") from None
            raise UserError(f"{self.url}: the store fails: {_said(error)}") from None


def _holder_in(content: bytes) -> str:
    """Who wrote a claim; older versions did not say."""
    with suppress(ValueError, KeyError, TypeError):
        holder = json.loads(content)
        return holder_name(holder["host"], holder["pid"])
    return "another process"


def _said(error: Exception) -> str:
    """What a store says, without what its client adds for programmers."""
    text = _HTTP.sub(r"\1: ", str(error).partition("Debug source")[0])
    return one_line(Exception(text.rstrip(". :\n")), 160)


def _check_address(url: str) -> None:
    """Raises UserError for what would lead elsewhere than it seems, or is dropped without a word."""
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
    """Raises UserError where requests would go to a store by http, which nobody has allowed: its client's line says
    neither."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    name = next((name for name in names if os.environ.get(name)), None)
    is_allowed = os.environ.get("AWS_ALLOW_HTTP", "").lower() in _ALLOWED
    if url.startswith("s3://") and name is not None and os.environ[name].startswith("http://") and not is_allowed:
        raise UserError(f"{url}: {name} begins with http://; set AWS_ALLOW_HTTP=true if keys may go there unencrypted")


def _version_of(found: "object") -> "UpdateVersion":
    known = cast("dict[str, str | None]", found)
    return cast("UpdateVersion", {name: known[name] for name in ("e_tag", "version") if known.get(name)})


def _store_of(url: str) -> "ObjectStore":
    """Raises UserError where the library is missing, or the address is none."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store, from_url
    except ImportError:
        raise UserError(f"{url}: needs obstore; pip install 'fmrgen[cloud]'") from None
    _check_address(url)
    _check_http(url)
    patient: RetryConfig = {"max_retries": _ATTEMPTS, "retry_timeout": _LONGEST}
    try:
        if (of_hub := re.fullmatch(r"hf://buckets/([\w.-]+)/([\w.-]+)(?:/(.+))?", url)) is not None:
            owner, name, prefix = of_hub.groups()
            return S3Store(
                name,
                prefix=prefix,
                endpoint=f"https://s3.hf.co/{owner}",
                region="us-east-1",
                virtual_hosted_style_request=False,
                disable_bulk_delete=True,
                retry_config=patient,
            )
        return from_url(url, retry_config=patient)
    except BaseError as error:
        raise UserError(f"{url}: is no address of a bucket ({_said(error)}); say {_ADDRESSES}") from None
