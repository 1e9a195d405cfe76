"""Files from plain addresses and Google Drive, downloaded once, and the same ever after."""

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


def downloaded(address: str, name: str, what: str) -> Path:
    """The file of an address, in the cache; downloaded where it is not there.

    Its sha256 is written beside it after the first download, and compared ever after: the weights of a name stay what
    they were.

    Args:
        address: `http(s)://…`, or `gdrive:ID`.
        name: of the file in the cache.
        what: begins errors.

    Raises:
        UserError: it can't be reached, is a page instead of a file, or is not any more what it was.
    """
    path = cache_folder() / "checkpoints" / name
    record = path.with_name(f"{name}.sha256")
    with held(path.with_name(f".{name}.lock")):
        if not path.exists():
            _fetch(
                _DRIVE.format(id=address.removeprefix("gdrive:")) if address.startswith("gdrive:") else address,
                path,
                what,
            )
        digest = sha256_of(path)
        if not record.exists():
            write_atomically(record, f"{digest}\n".encode())
        elif (known := record.read_text().strip()) != digest:
            raise UserError(
                f"{what}: {path} has changed since it was downloaded (sha256 {digest[:12]}…, not {known[:12]}…); "
                "delete it"
            )
    return path


def _fetch(address: str, path: Path, what: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE) as answer, partial.open("wb") as file:
            if answer.headers.get_content_type() == "text/html":
                raise UserError(
                    f"{what}: {address} answers with a page, not with a file; download it by hand as {path.name} and "
                    "name its folder"
                )
            shutil.copyfileobj(answer, file)
            if answer.length:
                raise UserError(f"{what}: {address} ended early; try again")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(
            f"{what}: {address} can't be downloaded ({one_line(error, 80)}); download it by hand as {path.name} and "
            "name its folder"
        ) from None
    else:
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
