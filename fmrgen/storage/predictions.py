"""What classifiers said of images before: kept by their weights, their settings and the images' own pixels.

Nobody claims anything here: a file is made whole, and who makes it last is as right as who made it first.
"""

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
_ENDING = ".answers.parquet"
_KNOWN = ("classifier", "split", "images", "rows")
_log = logging.getLogger(__name__)
_LARGEST = 4 << 30  # bytes of all files together


@dataclass(frozen=True)
class StoredPredictions:
    """A file of the store: who said it, of what."""

    path: Path
    about: Mapping[str, Any]


class PredictionStore:
    """A folder of parquet files, one for each classifier and set of images, named by a key of all that decides the
    answers. A file is there whole or not at all; what can't be read is as good as not there.

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

    def get(self, key: str) -> tuple[pa.Table, dict[str, Any]] | None:
        """The table under a key and what is known about it; None where there is none."""
        path = self._path(key)
        if self._has_failed:
            return None
        try:
            if not self._shared.exists(path):
                return None
            with self._shared.open(path) as file:
                table = pq.read_table(io.BytesIO(file.read()))
            about = json.loads(table.schema.metadata[_ABOUT])
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
            write_atomically(path, sink.getvalue(), durable=False)
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
            with suppress(OSError, pa.ArrowException, KeyError, TypeError, ValueError), self._shared.open(path) as file:
                about = json.loads(pq.read_schema(file).metadata[_ABOUT])
                yield StoredPredictions(path, {name: about[name] for name in _KNOWN})

    def remove(self, entry: StoredPredictions) -> None:
        """Raises UserError where it can't be removed."""
        try:
            self._shared.remove(entry.path)
        except OSError as error:
            raise UserError(f"{entry.path}: can't be removed: {error.strerror}") from None

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
            return [self._folder / name for name in self._shared.names(self._folder) if name.endswith(_ENDING)]
        return []


def _last_asked(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0
