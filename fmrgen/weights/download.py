"""Files from plain addresses and Google Drive, downloaded once and checked on every later use."""

import http.client
import shutil
import urllib.parse
import urllib.request
from pathlib import Path

from fmrgen.errors import UserError, one_line
from fmrgen.files import cache_folder, sha256_of, write_atomically
from fmrgen.locks import held

_PATIENCE = 60.0  # seconds without a byte
_DRIVE = "https://drive.usercontent.google.com/download?id={id}&export=download&confirm=t"


def downloaded(address: str, name: str, key: str) -> Path:
    """Return the file of an address in the cache, downloaded if it is missing.

    Its sha256 is written next to it after the first download, and compared on every later use, so that a name always
    stands for the same weights.

    Args:
        address: `http(s)://…`, or `gdrive:ID`.
        name: name of the file in the cache.
        key: begins errors.

    Raises:
        UserError: it can't be reached, is a page instead of a file, or has changed since.
    """
    path = cache_folder() / "checkpoints" / name
    record = path.with_name(f"{name}.sha256")
    with held(path.with_name(f".{name}.lock")):
        if not path.exists():
            if address.startswith("gdrive:"):
                address = _DRIVE.format(id=address.removeprefix("gdrive:"))
            _fetch(address, path, key)
        digest = sha256_of(path)
        if not record.exists():
            write_atomically(record, f"{digest}\n".encode())
        recorded = record.read_text().strip()
        if recorded != digest:
            raise UserError(
                f"{key}: {path} has changed since it was downloaded (sha256 {digest[:12]}…, not {recorded[:12]}…); "
                "delete it"
            )
    return path


def _fetch(address: str, path: Path, key: str) -> None:
    """Download a file; `path` appears only once it is complete. Raises UserError, starting with `key`."""
    partial = path.with_name(f".{path.name}.part")
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE) as answer, partial.open("wb") as file:
            if answer.headers.get_content_type() == "text/html":
                raise UserError(
                    f"{key}: {address} answers with a page, not with a file; download it by hand as {path.name} and "
                    "name its folder"
                )
            shutil.copyfileobj(answer, file)
            if answer.length:
                raise UserError(f"{key}: {address} ended early; try again")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(
            f"{key}: {address} can't be downloaded ({one_line(error, 80)}); download it by hand as {path.name} and "
            "name its folder"
        ) from None
    else:
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
