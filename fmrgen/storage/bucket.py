"""A dataset folder in an object store: S3 and compatible ones, Google's, Azure's, buckets of the Hub.

Each machine has a folder of its own for the files that it works on.
"""

import hashlib
import io
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import unquote

from fmrgen.errors import UserError, one_line
from fmrgen.files import cache_folder, write_atomically
from fmrgen.storage.store import Content, Store

if TYPE_CHECKING:
    from obstore import ReadableFile
    from obstore.store import ObjectStore, RetryConfig

_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what your store goes by"
_CONFLICT = (
    "the store reports a conflict (409 or 412) where there is none; run the same command again, or choose another store"
)
_ADDRESSES = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://ACCOUNT/CONTAINER/PREFIX or hf://buckets/OWNER/NAME/PREFIX"
_ATTEMPTS = 8  # of a request that the store refuses or loses
_PAUSE = 1.0  # seconds between two attempts to create an object


def is_bucket(output: str | Path) -> bool:
    """Return whether an output is the address of a folder in an object store."""
    return str(output).startswith(("s3://", "gs://", "az://", "hf://buckets/"))


def open_store(output: str | Path) -> Store:
    """Return the dataset folder `output`. Raises UserError if its address can't be one, or its store can't be used."""
    if is_bucket(output):
        return Bucket(str(output))
    if "://" in str(output):
        raise UserError(f"{output}: can't be written to; give a folder, or {_ADDRESSES}")
    return Store(output)


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


class Bucket(Store):
    """A folder in an object store, by an address as in `_ADDRESSES`.

    Raises UserError if the address is wrong, or `obstore` is not installed.
    """

    poll = 5.0
    is_local = False

    def __init__(self, url: str) -> None:
        name = url.rstrip("/")
        super().__init__(cache_folder() / "buckets" / hashlib.sha256(name.encode()).hexdigest()[:16])
        self.name = name
        self._store = _store_of(self.name)

    def names(self, folder: Path) -> set[str]:
        prefix = "" if folder == self.root else f"{self._key(folder)}/"
        with self._errors_for_users():
            return {str(entry["path"]).removeprefix(prefix) for entry in self._store.list(prefix).collect()}

    def open(self, path: Path) -> BinaryIO:
        import obstore

        with self._errors_for_users(), suppress(FileNotFoundError):
            return cast("BinaryIO", io.BufferedReader(_Object(obstore.open_reader(self._store, self._key(path)))))
        raise FileNotFoundError(path)

    def create(self, path: Path, content: Content) -> bool:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        key = self._key(path)
        for _ in range(_ATTEMPTS):
            with self._errors_for_users(), suppress(AlreadyExistsError, PreconditionError):
                self._store.put(key, content, mode="create", use_multipart=False)
                return True
            stored = self._read(key)
            if stored is not None:
                return stored == content  # which this process wrote, if a reply was lost
            time.sleep(_PAUSE)  # it was removed just now, or the store is wrong
        raise UserError(f"{self.name}: {_CONFLICT}")

    def claim(self, path: Path, content: bytes, *, is_held: bool) -> bool:
        if is_held:
            self.write(path, content)
        return is_held or self.create(path, content)

    def write(self, path: Path, content: Content) -> None:
        with self._errors_for_users():
            self._store.put(self._key(path), content)  # in parts if it is large

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        with self._errors_for_users(), suppress(FileNotFoundError):
            self._store.delete(self._key(path))

    def fetch(self, path: Path) -> None:
        content = self._read(self._key(path))
        if content is not None:
            write_atomically(path, content, durable=False)

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _read(self, key: str) -> bytes | None:
        """Return the content of an object; None if it does not exist."""
        with self._errors_for_users(), suppress(FileNotFoundError):
            return bytes(self._store.get(key).bytes())
        return None

    @contextmanager
    def _errors_for_users(self) -> Iterator[None]:
        """Raise UserError instead of the store's exceptions."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            yield
        except (FileNotFoundError, BaseError) as error:
            text, fault = str(error), f"the store fails: {_message(error)}"
            if isinstance(error, AlreadyExistsError | PreconditionError):  # callers catch them if they mean something
                fault = _CONFLICT
            elif "169.254.169.254" in text:  # where clients ask for keys if none are set
                fault = f"no keys were found for it; {_KEYS}"
            elif isinstance(error, FileNotFoundError) or "404 Not Found" in text:  # to a request that lists objects
                fault = "there is no such bucket; make it first"
            raise UserError(f"{self.name}: {fault}") from None


def _message(error: Exception) -> str:
    """Return the message of a store, without what its client adds for programmers."""
    text = str(error).partition("Debug source")[0]
    text = re.sub(r"Error performing (\w+) \S+ in \S+ - ", r"\1: ", text)  # the address and the time
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
    is_allowed = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1", "yes", "y", "on")
    endpoints = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    name = next(filter(os.environ.get, endpoints), None)  # the client uses the first that is set
    if url.startswith("s3://") and not is_allowed and name is not None and os.environ[name].startswith("http://"):
        raise UserError(f"{url}: {name} begins with http://; set AWS_ALLOW_HTTP=true if keys may go there unencrypted")


def _store_of(url: str) -> "ObjectStore":
    """Return the store of an address. Raises UserError if `obstore` is not installed, or the address is wrong."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store, from_url
    except ImportError:
        raise UserError(f"{url}: needs obstore; pip install 'fmrgen[cloud]'") from None
    _check_address(url)
    _check_http(url)
    retries: RetryConfig = {"max_retries": _ATTEMPTS, "retry_timeout": timedelta(minutes=3)}  # of all together
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
