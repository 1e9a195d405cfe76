"""What classifiers said of images before: kept by their weights, their settings and the images' own pixels.

Nobody claims anything here: a file is made whole, and who makes it last is as right as who made it first.
"""

import hashlib
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fmrgen.errors import UserError
from fmrgen.files import cache_folder, write_atomically
from fmrgen.storage.shared_bucket import shared_folder

_ABOUT = b"fmrgen.answers"  # key of a file's metadata
_ENDING = ".answers"
_ENDINGS = (_ENDING, ".answers.parquet")  # of files that earlier versions wrote, which are never asked for again
_DIGEST = 32  # bytes of a sha256, with which a file begins
_ROW, _ABOUT_ROWS = 256, 1 << 22  # bytes that a file may have for each row, and besides
_KNOWN = ("classifier", "split", "images", "rows")
_log = logging.getLogger(__name__)
_LARGEST = 4 << 30  # bytes of all files together


@dataclass(frozen=True)
class StoredPredictions:
    """A file of the store: who said it, of what."""

    path: Path
    about: Mapping[str, Any]


class PredictionStore:
    """A folder of files, one for each classifier and set of images, named by a key of all that decides the answers.

    A file is a parquet table after the sha256 of its bytes. It is there whole or not at all; one that can't be read, or
    that is not what its sha256 says, is as good as not there.

    Args:
        place: a folder, or the address of one in an object store; by default `predictions` in fmrgen's cache, where
            above 4 GiB the files that were not asked for longest go; another one is not limited.

    Raises:
        UserError: an object store can't be reached.
    """

    def __init__(self, place: str | Path | None = None) -> None:
        self.place, self._is_limited = place or cache_folder() / "predictions", place is None
        self._shared, self._folder = shared_folder(self.place)
        self._has_failed = False

    def get(self, key: str, schema: pa.Schema, rows: int) -> tuple[pa.Table, dict[str, Any]] | None:
        """Return the table under a key and what is known about it; None unless there is one of that schema and size."""
        path = self._path(key)
        if self._has_failed:
            return None
        try:
            if not self._shared.exists(path):
                return None
            file = self._parquet(path, _ABOUT_ROWS + _ROW * rows)
            if file is None or file.metadata.num_rows != rows or not file.schema_arrow.equals(schema):
                return None
            table = file.read()
            about = json.loads(file.schema_arrow.metadata[_ABOUT])
        except UserError as error:
            self._fails(error)
            return None
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            return None
        with suppress(OSError):
            os.utime(path)
        return table, about

    def put(self, key: str, table: pa.Table, about: Mapping[str, Any]) -> None:
        """Keeps a table; where that can't be done, a note says so, once."""
        if self._has_failed:
            return
        sink, path = pa.BufferOutputStream(), self._path(key)
        pq.write_table(table.replace_schema_metadata({_ABOUT: json.dumps(about)}), sink, compression="zstd")
        try:
            content = sink.getvalue().to_pybytes()
            write_atomically(path, hashlib.sha256(content).digest() + content, durable=False)
            with suppress(FileNotFoundError):  # another process of this machine has sent its own
                self._shared.publish(path, replace=True)
        except UserError as error:
            self._fails(error)
        if not self._shared.is_local:
            path.unlink(missing_ok=True)
        if self._is_limited:
            self._forget_oldest()

    def entries(self) -> Iterator[StoredPredictions]:
        """All files, those asked for last first."""
        for path in sorted(self._files(), key=_last_asked, reverse=True):
            with suppress(OSError, pa.ArrowException, KeyError, TypeError, ValueError):
                file = self._parquet(path)
                if file is not None:
                    about = json.loads(file.schema_arrow.metadata[_ABOUT])
                    yield StoredPredictions(path, {name: about[name] for name in _KNOWN})

    def remove(self, entry: StoredPredictions) -> None:
        """Raises UserError where it can't be removed."""
        try:
            self._shared.remove(entry.path)
        except OSError as error:
            raise UserError(f"{entry.path}: can't be removed: {error.strerror}") from None

    def _parquet(self, path: Path, largest: int = _LARGEST) -> pq.ParquetFile | None:
        """Return the table in a file that is not yet read; None where its bytes are not what was written."""
        with self._shared.open(path) as file:
            digest, content = file.read(_DIGEST), file.read(largest + 1)
        if len(content) > largest or hashlib.sha256(content).digest() != digest:
            return None
        return pq.ParquetFile(io.BytesIO(content))

    def _fails(self, error: UserError) -> None:
        self._has_failed = True
        _log.warning("%s; answers are not kept", error)

    def _forget_oldest(self) -> None:
        total = 0
        for path in sorted(self._files(), key=_last_asked, reverse=True):
            with suppress(OSError):
                total += path.stat().st_size
                if total > _LARGEST:
                    path.unlink()

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_ENDING}"

    def _files(self) -> list[Path]:
        with suppress(OSError):
            return [self._folder / name for name in self._shared.names(self._folder) if name.endswith(_ENDINGS)]
        return []


def _last_asked(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0
