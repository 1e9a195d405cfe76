"""A cache of classifiers' predictions, keyed by their weights, their settings and the pixels of the images.

It needs no claims: a file is written whole, and if two processes write the same one, both are right.
"""

import io
import logging
import os
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fmrgen.errors import UserError
from fmrgen.files import cache_folder
from fmrgen.storage.bucket import open_store
from fmrgen.storage.cache import DIGEST, forget_oldest, with_digest, without_digest

_ENDING = ".predictions"
_log = logging.getLogger(__name__)
_LARGEST = 4 << 30  # bytes of all files together


class PredictionStore:
    """A folder of files, one for each classifier and set of images, named by a key of all that decides the predictions.

    A file is a sha256, followed by the parquet table of which it is the digest. A file that can't be read, or whose
    digest is wrong, counts as missing.

    The `place` is a folder, or the address of one in an object store, of any size; by default `predictions` in fmrgen's
    cache, where the least recently used files are deleted above 4 GiB. Raises UserError if an object store can't be
    reached.
    """

    def __init__(self, place: str | Path | None = None) -> None:
        self._store, self._is_limited = open_store(place or cache_folder() / "predictions"), place is None
        self._has_failed = False

    def get(self, key: str, schema: pa.Schema, rows: int) -> pa.Table | None:
        """Return the table under a key; None unless there is one of that schema with so many rows."""
        if self._has_failed:
            return None
        path = self._path(key)
        try:
            with self._store.open(path) as opened:  # a larger file than any such table is cut, so its digest is wrong
                content = without_digest(opened.read(DIGEST + (1 << 22) + 256 * rows))
            if content is None:
                return None
            file = pq.ParquetFile(io.BytesIO(content))  # not yet decoded
            if file.metadata.num_rows != rows or not file.schema_arrow.equals(schema):
                return None
            table = file.read()
        except UserError as error:
            self._fails(error)
            return None
        except (OSError, pa.ArrowException):
            return None
        with suppress(OSError):
            os.utime(path)
        return table

    def put(self, key: str, table: pa.Table) -> None:
        """Write a table under a key; if that fails, warn once."""
        if self._has_failed:
            return
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        try:
            self._store.write(self._path(key), with_digest(sink.getvalue().to_pybytes()))
        except UserError as error:
            self._fails(error)
        if self._is_limited:
            forget_oldest(self._store.root, f"*{_ENDING}", _LARGEST)

    def _fails(self, error: UserError) -> None:
        self._has_failed = True
        _log.warning("%s; predictions are not kept", error)

    def _path(self, key: str) -> Path:
        return self._store.root / f"{key}{_ENDING}"
