"""Limits on what a parquet file of others may unpack to."""

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
_LARGEST = 1 << 30  # bytes that a column of a row group may unpack to, if it is packed more than images can be
_LARGEST_ROW = 1 << 23  # bytes that a row of such a column may unpack to
_LARGEST_WORD = 1 << 12  # bytes that a value may have in a table that is read whole


def check_parquet_files(paths: Iterable[str]) -> int:
    """Return the number of rows that the files have together, addresses on the Hub among them.

    Raises UserError if there is no file at a path, or its values would fill more memory than images may.
    """
    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(_check_data_file, paths))


def _check_data_file(path: str) -> int:
    try:
        with HfFileSystem().open(path, "rb") if "://" in path else open_plain(Path(path)) as file:
            groups = _row_groups(file)
            for number, group in enumerate(groups):
                _check_unpacked_size(path, file, group, number)
            return sum(group.num_rows for group in groups)
    except pa.ArrowException:
        return 0  # an error for the reader
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or one_line(error)}; {FILES_CURE}") from None


def check_table(path: Path, file: Any, most: int) -> None:
    """Raise UserError if a table of short values has more than `most` rows, or longer values.

    A few bytes can stand for any number of either, and the table is read whole. The path is that of `file`, for errors.
    """
    groups = _row_groups(file)
    rows = sum(group.num_rows for group in groups)
    if rows > most:
        raise UserError(f"{path}: has {rows:,} rows where there can be {most:,}; it is not unpacked")
    for number, group in enumerate(groups):
        limit = _LARGEST_WORD * max(group.num_rows, 1)
        for column in map(group.column, range(group.num_columns)):
            unpacked = column.total_uncompressed_size
            if unpacked <= limit:
                unpacked = _size_with_repeats(file, column, group, number, limit)
            if unpacked > limit:
                raise UserError(
                    f"{path}: {group.num_rows:,} rows of its {column.path_in_schema} would unpack to {unpacked:,} "
                    "bytes; it is not unpacked"
                )


def _row_groups(file: Any) -> list[pq.RowGroupMetaData]:
    metadata = pq.ParquetFile(file).metadata
    return [metadata.row_group(number) for number in range(metadata.num_row_groups)]


def _check_unpacked_size(path: str, file: Any, group: pq.RowGroupMetaData, number: int) -> None:
    """Raise UserError if a few bytes stand for gigabytes, as no images of a split do: they hardly compress."""
    for column in map(group.column, range(group.num_columns)):
        packed, unpacked = column.total_compressed_size, column.total_uncompressed_size
        most_packed = 20 * packed  # images compress less
        if unpacked <= max(_LARGEST, most_packed):
            unpacked = _size_with_repeats(file, column, group, number, _LARGEST)
        if unpacked > most_packed and unpacked > min(_LARGEST, _LARGEST_ROW * group.num_rows):
            raise UserError(
                f"{path}: {packed:,} bytes in it would unpack to up to {unpacked:,} of {column.path_in_schema}; those "
                "can't be images, and they are not unpacked"
            )


def _size_with_repeats(
    file: Any, column: pq.ColumnChunkMetaData, group: pq.RowGroupMetaData, number: int, limit: int
) -> int:
    """Return the bytes that a column of the row group `number` may unpack to.

    A dictionary holds a value once, and every row may name it. Rows are read only if these could be more than `limit`.
    """
    size = column.total_uncompressed_size
    if column.physical_type != "BYTE_ARRAY" or not any("DICTIONARY" in encoding for encoding in column.encodings):
        return size
    if size * group.num_rows > limit:
        return _length_of(file, column.path_in_schema, number)
    return size * group.num_rows


def _length_of(file: Any, column: str, group: int) -> int:
    """Return the bytes of a column's values, without unpacking those that rows have in common."""
    table = pq.ParquetFile(file, read_dictionary=[column]).read_row_group(group, columns=[column])
    if "." in column:
        table = table.flatten()
    total = 0
    for chunk in table.column(0).chunks:
        if pa.types.is_dictionary(chunk.type):
            lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
        else:
            lengths = pc.binary_length(chunk)
        total += pc.sum(lengths.cast(pa.int64())).as_py() or 0
    return total
