"""The files of a cache: each begins with the sha256 of what follows, and those least recently used go."""

import hashlib
from contextlib import suppress
from pathlib import Path

DIGEST = 32  # bytes of a sha256
_EMPTIED_TO = 0.8  # share of the bound that is left after some were deleted


def with_digest(content: bytes) -> bytes:
    """Return what a file holds: a sha256, and the content that it is of."""
    return hashlib.sha256(content).digest() + content


def without_digest(file: bytes) -> bytes | None:
    """Return the content of what a file holds; None if its digest is wrong."""
    digest, content = file[:DIGEST], file[DIGEST:]
    return content if hashlib.sha256(content).digest() == digest else None


def forget_oldest(folder: Path, pattern: str, bound: int) -> None:
    """Delete the least recently used files of a pattern, if all together have more than `bound` bytes."""
    files, size = [], 0
    with suppress(OSError):  # the folder may be read-only
        for path in folder.glob(pattern):
            with suppress(FileNotFoundError):
                stat = path.stat()
                files.append((stat.st_mtime, stat.st_size, path))
                size += stat.st_size
        left = size if size <= bound else _EMPTIED_TO * bound
        for _, file_size, path in sorted(files):
            if size <= left:
                return
            path.unlink(missing_ok=True)
            size -= file_size
