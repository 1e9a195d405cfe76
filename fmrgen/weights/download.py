"""Files from web addresses and Google Drive, downloaded once by `huggingface_hub` and checked on every later use."""

import hashlib
import re
import shutil
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import get_session

from fmrgen.errors import UserError, one_line
from fmrgen.files import cache_folder, make_folder, sha256_of, write_atomically
from fmrgen.hub.timeouts import bound_requests

_HEADERS = {"Accept-Encoding": "identity"}  # a compressed answer has another length, and can't be resumed


def is_address(reference: str) -> bool:
    """Return whether a reference is `http(s)://…` or `gdrive:ID`."""
    return reference.startswith(("https://", "http://", "gdrive:"))


def cached_path(address: str) -> Path:
    """Return where the file of an address is kept, whether it is there or not.

    It keeps the last part of the address as its name. Of a `.zip`, the largest file in it is kept.
    """
    name = unquote(urlsplit(address).path).rpartition("/")[2].removesuffix(".zip") or "file"
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    return cache_folder() / "downloads" / digest / re.sub(r"[^\w.+-]", "_", name)


def size_of_download(address: str, key: str) -> int | None:
    """Return the size in bytes of the file at an address; None if its host does not say.

    Raises UserError, starting with `key`, if there is no such file or its host can't be reached.
    """
    try:
        return _size_and_version(address)[0]
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled, OSError) as error:
        raise _unreachable(address, key, error) from None


def downloaded(address: str, key: str) -> Path:
    """Return the file of an address, `http(s)://…` or `gdrive:ID`, downloaded if it is not in the cache.

    A download that was cut short goes on where it stopped. Processes that want the same file wait for the one that
    downloads it. The sha256 of the first download is kept beside the file and compared on every later use, so that an
    address always stands for the same weights on this machine.

    Raises UserError, starting with `key`, if it can't be reached, is a page instead of a file, or has changed since.
    """
    path = cached_path(address)
    record = path.with_name(f"{path.name}.sha256")
    make_folder(path.parent)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            _fetch(address, path, key)
        digest = sha256_of(path)
        if not record.exists():
            write_atomically(record, f"{digest}\n".encode())
        recorded = record.read_text().strip()
    if recorded != digest:
        raise UserError(
            f"{key}: {path} has changed since it was downloaded from {address} (sha256 {digest[:12]}…, not "
            f"{recorded[:12]}…); delete it to download it again"
        )
    return path


def _fetch(address: str, path: Path, key: str) -> None:
    """Download a file; `path` appears only once it is complete. Raises UserError, starting with `key`."""
    url = _url(address)
    try:
        size, version = _size_and_version(address)
        partial = path.with_name(f".{path.name}.{version}.part")
        with partial.open("ab") as file:
            http_get(
                url, file, resume_size=file.tell(), headers=_HEADERS, expected_size=size, displayed_filename=path.name
            )
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled, OSError) as error:
        raise _unreachable(address, key, error) from None
    with partial.open("rb") as file:
        is_page = re.match(rb"(?i)\s*<(!doctype|html)\b", file.read(256)) is not None
    if is_page:
        partial.unlink()
        raise UserError(f"{key}: {address} returns a web page, not a file; download the file yourself and {_cure(key)}")
    if urlsplit(url).path.endswith(".zip"):
        _extract_largest(partial, address, key)
    partial.replace(path)


def _size_and_version(address: str) -> tuple[int | None, str]:
    """Return the size of a file as far as its host says it, and a short name of its version: of its ETag and size."""
    bound_requests()
    response = get_session().head(_url(address), headers=_HEADERS, follow_redirects=True)
    if response.status_code not in (403, 405):  # of hosts that answer only GET
        response.raise_for_status()
    length = response.headers.get("Content-Length", "") if response.is_success else ""
    tag = f"{response.headers.get('ETag')} {length}"
    return int(length) if length.isdecimal() else None, hashlib.sha256(tag.encode()).hexdigest()[:8]


def _extract_largest(archive: Path, address: str, key: str) -> None:
    """Replace a zip archive by the largest file in it. Raises UserError, starting with `key`, if it can't be read."""
    extracted = archive.with_suffix(".member")
    try:
        with zipfile.ZipFile(archive) as opened:
            member = max(opened.infolist(), key=lambda info: info.file_size)
            with opened.open(member) as source, extracted.open("wb") as target:
                shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError) as error:
        extracted.unlink(missing_ok=True)
        raise UserError(f"{key}: {address} is not a readable zip archive: {one_line(error)}") from None
    extracted.replace(archive)


def _url(address: str) -> str:
    scheme, _, file = address.partition(":")
    drive = f"https://drive.usercontent.google.com/download?id={file}&export=download&confirm=t"
    return drive if scheme == "gdrive" else address


def _unreachable(address: str, key: str, error: Exception) -> UserError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        reason = "there is no such file any more" if status in (404, 410) else "download the file yourself"
        return UserError(
            f"{key}: {address}: its host returned {status}: {reason}; if it has moved, {_cure(key)} or new address"
        )
    if isinstance(error, OfflineModeIsEnabled):
        return UserError(f"{key}: {address} is not on this machine ({one_line(error, 80)})")
    if isinstance(error, OSError) and error.errno is not None:
        return UserError(f"{key}: {address} can't be saved in {cached_path(address).parent}: {one_line(error)}")
    return UserError(
        f"{key}: {address} can't be downloaded ({one_line(error, 80)}); run the same command again to continue, or "
        f"download the file yourself and {_cure(key)}"
    )


def _cure(key: str) -> str:
    if key == "classifier.model":  # kind zoo
        return "set classifier.folder to its folder"
    return f"set {key} to its path"
