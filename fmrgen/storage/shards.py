"""Writing, checking and reading the shards of a perturbed split."""

import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features
from pydantic import TypeAdapter, ValidationError

from fmrgen.errors import UserError, one_line
from fmrgen.files import open_plain, sha256_of
from fmrgen.image_files import png_bytes
from fmrgen.metrics.summary import SUMMARY_COLUMNS, Summary, summarise
from fmrgen.records import Perturbed
from fmrgen.storage.paths import SplitPaths, rows_of_a_shard
from fmrgen.storage.provenance import Provenance, Skipped
from fmrgen.storage.schema import OF_SOURCE, OWN_COLUMNS, VERDICT, Column, Schema
from fmrgen.storage.store import Store

_CHECKERS = 4  # threads, which check a few files at once
_FIGURES = {name: TypeAdapter(kind) for name, kind in get_type_hints(Summary).items()}
_SHARD_KEY = b"fmrgen"  # of the parquet metadata: the header, with the recipe's fingerprint and the skipped ids


class Tally(NamedTuple):
    """The number of rows, how many of them the oracle accepted, and the sum of their iterations."""

    rows: int = 0
    accepted: int = 0
    iterations: int = 0

    def plus(self, other: "Tally | Sequence[int]") -> "Tally":
        rows, accepted, iterations = other
        return Tally(self.rows + rows, self.accepted + accepted, self.iterations + iterations)


class IntactShard(NamedTuple):
    """The content of a shard that is whole and made by its recipe."""

    ids: list[int]  # of its rows, in order
    skipped: list[Skipped]
    num_bytes: int  # of the uncompressed columns
    file_size: int  # in bytes
    sha256: str  # of the file


class ShardError(UserError):
    """A shard's file is not what its recipe makes; `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; run the same generate command again to regenerate it")
        self.path, self.reason = path, reason


class SplitFolder:
    """The shards of one split in a dataset folder.

    Shard i holds the examples at source positions `positions(i)`; its file is whole or does not exist. `store` is where
    the processes of a job share it, by default the disk that it is on.
    """

    def __init__(
        self, paths: SplitPaths, examples: int, shard_size: int | Literal["auto"], store: Store | None = None
    ) -> None:
        self.paths, self.examples, self.store = paths, examples, store or Store(paths.root)
        self.shard_size = rows_of_a_shard(shard_size, examples)
        self.shards = -(-examples // self.shard_size)
        if self.shards > 1_000_000:
            raise UserError(f"output.shard_size: {self.shards} shards are too many files; choose a larger one")

    @classmethod
    def of(cls, paths: SplitPaths, provenance: Provenance) -> "SplitFolder":
        """Return the folder of a provenance's split."""
        return cls(paths, provenance.examples, provenance.recipe.output.shard_size)

    def positions(self, shard: int) -> range:
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.examples))

    def shard_path(self, shard: int) -> Path:
        return self.paths.shard(shard, self.shards)

    def write_shard(
        self, shard: int, rows: Iterable[Perturbed], skipped: Sequence[Skipped], provenance: Provenance
    ) -> None:
        """Write a shard, its rows sorted by their ids. The file of another process that was faster stays."""
        schema = provenance.row_schema
        in_order = sorted(rows, key=lambda row: row.id)
        columns = {}
        for column in schema.columns:
            columns[column.name] = [_stored(row, column, schema) for row in in_order]
        table = Dataset.from_dict(columns, features=schema.features).data.table
        header = {
            "schema": "fmrgen-shard/1",
            "fingerprint": provenance.fingerprint,
            "shard": shard,
            "skipped": [entry.model_dump() for entry in skipped],
            "tally": [len(in_order), sum(row.valid for row in in_order), sum(row.iterations for row in in_order)],
        }
        table = table.replace_schema_metadata({**table.schema.metadata, _SHARD_KEY: json.dumps(header).encode()})
        self.store.create(self.shard_path(shard), parquet_bytes(table))

    def read_tally(self, shard: int) -> Tally:
        """Return the tally in a shard's header, without reading its rows; 0 of one that can't be read."""
        with suppress(Exception):  # whatever a file or a store throws: only the progress bar needs it
            with self.store.open(self.shard_path(shard)) as opened:
                metadata = pq.read_metadata(opened)
            return Tally(*map(int, json.loads(metadata.metadata[_SHARD_KEY])["tally"]))
        return Tally()

    def first_rows(self, shard: int, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return the first rows of a shard, wherever it lies, of those columns that it has; [] if it is damaged."""
        may_fail = suppress(pa.ArrowException, OSError, ValueError)
        with may_fail, self.store.open(self.shard_path(shard)) as opened, pq.ParquetFile(opened) as file:
            for batch in file.iter_batches(64, columns=columns):
                return batch.to_pylist()
        return []

    def read_columns(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of the existing shards.

        Columns that the split does not have are left out; images are only read if they are asked for.
        """
        tables = []
        for shard in self.there:
            # Opened by us: pyarrow takes a name with a `~` or a colon in it for another place.
            with open_plain(self.shard_path(shard)) as opened, pq.ParquetFile(opened) as file:
                tables.append(file.read(columns=columns))  # pyarrow leaves out those that a file does not have
        return pa.concat_tables(tables)

    def rows_of(self, ids: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return the existing rows of some ids, with those columns that they have; other rows' images are not kept in
        memory."""
        rows: list[dict[str, Any]] = []
        for shard in self.there:
            with open_plain(self.shard_path(shard)) as opened, pq.ParquetFile(opened) as file:
                for batch in file.iter_batches(columns=columns):
                    is_wanted = pc.is_in(batch["id"], pa.array(ids, batch["id"].type))
                    rows += batch.filter(is_wanted).to_pylist()
        return rows

    @property
    def there(self) -> list[int]:
        """The shards whose files exist."""
        return [shard for shard in range(self.shards) if self.shard_path(shard).exists()]

    def check_shard(self, shard: int, provenance: Provenance, sha256: str | None = None) -> IntactShard:
        """Read every byte of a shard, and return its content.

        Its file must have the `sha256`, if that is on record; else the checksums in the file must be right. Raises
        ShardError if it is missing, or not what the recipe of the provenance makes; UserError if it can't be read,
        which says nothing about it.
        """
        path = self.shard_path(shard)
        if not path.exists():
            raise ShardError(path, "is missing")
        digest = sha256_of(path)
        if sha256 not in (None, digest):
            raise ShardError(path, "is not the file whose sha256 is on record")
        examples = len(self.positions(shard))
        found_features, header, content = _read_content(path, examples, digest, all_columns=sha256 is None)
        if header.get("fingerprint") != provenance.fingerprint:
            raise ShardError(path, f"belongs to another recipe (fingerprint {header.get('fingerprint')})")
        if header.get("shard", shard) != shard:
            raise ShardError(path, f"is shard {header['shard']} under another name")
        if found_features != provenance.row_schema.features:
            raise ShardError(path, "has other columns than the recipe's")
        ids, skipped_ids = content.ids, [entry.id for entry in content.skipped]
        total = len(ids) + len(skipped_ids)
        if ids != sorted(ids) or total != examples or len({*ids, *skipped_ids}) != total:
            raise ShardError(path, f"holds {len(ids)} rows and {len(skipped_ids)} skipped ids, or some of them twice")
        return content

    def intact_shards(self, provenance: Provenance) -> tuple[list[int], list[ShardError]]:
        """Return the numbers of the existing shards that are right, and the errors of the others.

        A shard whose sha256 is on record must have it.
        """

        def fault_of(shard: int) -> ShardError | None:
            try:
                self.check_shard(shard, provenance, provenance.files.get(self.name_of(shard)))
            except ShardError as error:
                return error
            return None

        shards = self.there
        with ThreadPoolExecutor(_CHECKERS) as pool:
            faults = dict(zip(shards, pool.map(fault_of, shards), strict=True))
        return [shard for shard, fault in faults.items() if fault is None], [*filter(None, faults.values())]

    def check_complete(self, provenance: Provenance) -> dict[str, Any]:
        """Return what the provenance of a finished split says of its files, and of examples without rows.

        Raises ShardError with the first shard that is wrong, or that has an example of another one.
        """
        with ThreadPoolExecutor(_CHECKERS) as pool:
            shards = list(pool.map(lambda shard: self.check_shard(shard, provenance), range(self.shards)))
        seen: set[int] = set()
        skipped: list[Skipped] = []
        for number, shard in enumerate(shards):
            ids = {*shard.ids, *(entry.id for entry in shard.skipped)}
            if ids & seen:
                path = self.shard_path(number)
                raise ShardError(path, f"holds id {min(ids & seen)}, which another shard holds too")
            seen |= ids
            skipped += shard.skipped
        return {
            "files": {self.name_of(number): shard.sha256 for number, shard in enumerate(shards)},
            "skipped": [entry.model_dump() for entry in skipped],
            "num_bytes": sum(shard.num_bytes for shard in shards),
            "download_size": sum(shard.file_size for shard in shards),
        }

    def name_of(self, shard: int) -> str:
        """Return the shard's path in the folder, as in the provenance."""
        return self.paths.in_repo(self.shard_path(shard))


def _read_content(
    path: Path, examples: int, sha256: str, all_columns: bool
) -> tuple[Features, dict[str, Any], IntactShard]:
    """Return the features of a shard's file, the header that its writer put into it, and its content, by the checksums.

    Each of its `examples` has a row or is skipped. `all_columns` reads the images too, for their checksums: not needed
    if the digest of the file is right. Raises ShardError if the file is damaged; UserError if it can't be read, which
    says nothing about it.
    """
    try:
        with open_plain(path) as opened, pq.ParquetFile(opened, page_checksum_verification=True) as file:
            metadata, features = file.metadata, Features.from_arrow_schema(file.schema_arrow)
            if metadata.num_rows > examples:
                raise ValueError(f"it has {metadata.num_rows} rows")
            ids: list[int] = []
            for batch in file.iter_batches(columns=None if all_columns else ["id"]):
                if _has_gaps(batch):
                    raise ValueError("a value is missing")
                ids += batch["id"].to_pylist()
        header = json.loads(metadata.metadata.get(_SHARD_KEY, b"{}"))
        skipped = [Skipped(id=int(entry["id"]), reason=str(entry["reason"])) for entry in header["skipped"]]
    except (MemoryError, OSError) as error:
        if isinstance(error, MemoryError) or error.errno is not None:
            raise UserError(f"{path}: can't be read: {one_line(error, 160)}") from None
        raise ShardError(path, f"is damaged ({one_line(error, 100)})") from None
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise ShardError(path, f"is damaged ({one_line(error, 100)})") from None
    num_bytes = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return features, header, IntactShard(ids, skipped, num_bytes, path.stat().st_size, sha256)


def _has_gaps(batch: pa.RecordBatch) -> bool:
    """Return whether a value is missing, or the bytes of an image; the source's own columns may have gaps."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.null_count and name in OWN_COLUMNS:
            return True
        if pa.types.is_struct(column.type) and column.field("bytes").null_count:
            return True
    return False


def _stored(row: Perturbed, column: Column, schema: Schema) -> Any:
    """Return a value of a row as its column stores it."""
    if column.type == "verdicts":
        members = zip(schema.judges, row.member_labels, row.member_probabilities, row.member_scores, strict=True)
        return [dict(zip(VERDICT, verdict, strict=True)) for verdict in members]
    value = getattr(row, column.field or column.name)
    if column.field == OF_SOURCE:
        return value[column.name]
    if column.type == "attacks":
        return [{**vars(record), "stop_reason": record.stop_reason.value} for record in value]
    if column.type == "image":
        return {"bytes": png_bytes(value.permute(1, 2, 0).numpy()), "path": None}
    return value


def parquet_bytes(table: pa.Table) -> memoryview:
    """Return the bytes of a shard's file."""
    buffer = io.BytesIO()
    options = {"write_page_index": True, "use_content_defined_chunking": True, "write_page_checksum": True}
    with pq.ParquetWriter(buffer, table.schema, **options) as writer:
        if len(table):  # `datasets` can't read a row group without rows
            writer.write_table(table, row_group_size=100)
    return buffer.getbuffer()


def summary_of(provenance: Provenance) -> Summary:
    """Return the figures of a finished split, less what is no figure: anyone may have written the record."""
    summary = Summary(rows=provenance.rows, valid_rows=0)
    for name in _FIGURES.keys() & provenance.summary.keys():
        with suppress(ValidationError):
            summary = replace(summary, **{name: _FIGURES[name].validate_python(provenance.summary[name])})
    return summary


def summary_of_rows(folder: SplitFolder) -> Summary:
    """Return the figures of all existing rows; a part of a split may have none."""
    if not folder.paths.found_shards():
        return Summary(rows=0, valid_rows=0)
    table = folder.read_columns(SUMMARY_COLUMNS)
    return summarise({name: table[name].to_numpy() for name in table.column_names})
