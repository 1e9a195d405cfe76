"""What a parquet file of others may unpack to."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub import HfFileSystem

from fmrgen.errors import UserError, one_line
from fmrgen.files import open_plain

FILES_CURE = "fmrgen verify --files shows which file changed"
_LARGEST = 1 << 30  # bytes that a column of a row group may unpack to, where it is packed more than images can be
_LARGEST_ROW = 1 << 23  # and a row of it
_LEAST_PACKED = 20  # times
_CHECKERS = 8  # files that are looked at, at once


def check_parquet_files(paths: Iterable[str]) -> None:
    """Raises UserError for a path of data where no file is, or one whose values fill more memory than images may.

    Addresses on the Hub are looked at as well, some at once.
    """
    with ThreadPoolExecutor(_CHECKERS) as pool:
        for _ in pool.map(_check_data_file, paths):
            pass


def _check_data_file(path: str) -> None:
    try:
        with HfFileSystem().open(path, "rb") if "://" in path else open_plain(Path(path)) as file:
            parquet = pq.ParquetFile(file)
            for group in range(parquet.metadata.num_row_groups):
                _check_unpacked_size(path, file, parquet.metadata.row_group(group), group)
    except pa.ArrowException:
        return  # told by who reads it
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or one_line(error)}; {FILES_CURE}") from None


def _check_unpacked_size(path: str, file: Any, group: pq.RowGroupMetaData, number: int) -> None:
    """Raises UserError where a few bytes stand for gigabytes, as no images of a split do: they hardly compress."""
    for column in map(group.column, range(group.num_columns)):
        packed, unpacked = column.total_compressed_size, column.total_uncompressed_size
        if unpacked > _LARGEST and unpacked > _LEAST_PACKED * packed:
            raise _bomb(path, column, unpacked)
        # A dictionary holds a value once, and every row may name it.
        if column.physical_type == "BYTE_ARRAY" and any("DICTIONARY" in encoding for encoding in column.encodings):
            if unpacked * group.num_rows > _LARGEST:
                unpacked = _length_of(file, column.path_in_schema, number)
            else:
                unpacked *= group.num_rows
        too_much = unpacked > _LARGEST or unpacked > _LARGEST_ROW * group.num_rows
        if too_much and unpacked > _LEAST_PACKED * packed:
            raise _bomb(path, column, unpacked)


def _bomb(path: str, column: pq.ColumnChunkMetaData, unpacked: int) -> UserError:
    return UserError(
        f"{path}: {column.total_compressed_size:,} bytes in it would unpack to up to {unpacked:,} of "
        f"{column.path_in_schema}; those can't be images, and they are not unpacked"
    )


def _length_of(file: Any, column: str, group: int) -> int:
    """How many bytes the values of a column come to, counted without writing out those that rows have in common."""
    found = pq.ParquetFile(file, read_dictionary=[column]).read_row_group(group, columns=[column])
    total = 0
    for chunk in found.flatten().column(0).chunks if "." in column else found.column(0).chunks:
        if pa.types.is_dictionary(chunk.type):
            lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
        else:
            lengths = pc.binary_length(chunk)
        total += pc.sum(lengths.cast(pa.int64())).as_py() or 0
    return total
