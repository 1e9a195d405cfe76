"""The shards of a perturbed split: how they are written, checked and read."""

import io
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features
from pydantic import TypeAdapter, ValidationError

from fmrgen.errors import UserError, one_line
from fmrgen.files import open_plain, sha256_of, write_atomically
from fmrgen.image_files import png_bytes
from fmrgen.metrics.summary import SUMMARY_COLUMNS, Summary, summarise
from fmrgen.records import Perturbed
from fmrgen.storage.paths import SplitPaths, rows_of_a_shard
from fmrgen.storage.provenance import Provenance, Skipped
from fmrgen.storage.schema import Column, Schema
from fmrgen.storage.shared_disk import Shared, SharedDisk

Checked = TypeVar("Checked")

_CHECKERS = 4  # threads
_FIGURES = {name: TypeAdapter(kind) for name, kind in get_type_hints(Summary).items()}
_MOST_SHARDS = 1_000_000
_KEPT = ["id", "valid", "iterations"]
_SHARD_SCHEMA = "fmrgen-shard/1"  # those of fmrgen 0.1.0 say none
_SHARD_KEY = b"fmrgen"  # of the parquet metadata: the recipe's fingerprint and the skipped ids of the shard


class Tally(NamedTuple):
    """How many rows there are, how many of them the oracle accepted, and their iterations in all."""

    rows: int = 0
    accepted: int = 0
    iterations: int = 0

    def plus(self, other: "Tally | Sequence[int]") -> "Tally":
        return Tally(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class IntactShard(NamedTuple):
    """What a shard holds that was found to be whole and its recipe's: ids of its rows in order, sizes in bytes."""

    ids: list[int]
    skipped: list[Skipped]
    tally: Tally
    num_bytes: int  # of the uncompressed columns
    file_size: int


class CheckedFolder(NamedTuple):
    """A split that is whole: sha256 of each shard by its path in the folder, and sizes in bytes."""

    files: dict[str, str]
    skipped: list[Skipped]
    num_bytes: int
    download_size: int


class ShardError(UserError):
    """A shard's file is not what its recipe makes; `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; run the same generate command again to regenerate it")
        self.path, self.reason = path, reason


@dataclass(frozen=True)
class SplitFolder:
    """The shards of one split in a dataset folder: shard i holds the examples at source positions `positions(i)`, and
    is there whole or not at all. `shared` is how the processes of a job share it.
    """

    paths: SplitPaths
    examples: int
    shard_size: int
    shared: Shared = SharedDisk()  # noqa: RUF009 - its claims are told apart by their paths

    def __post_init__(self) -> None:
        if self.shards > _MOST_SHARDS:
            raise UserError(f"output.shard_size: {self.shards} shards are too many files; choose a larger one")

    @classmethod
    def of(cls, paths: SplitPaths, provenance: Provenance) -> "SplitFolder":
        """The folder of the split that a provenance tells of."""
        return cls.planned(paths, provenance.examples, provenance.recipe.output.shard_size)

    @classmethod
    def planned(
        cls, paths: SplitPaths, examples: int, shard_size: int | Literal["auto"], shared: Shared | None = None
    ) -> "SplitFolder":
        """The folder of a split of so many examples, its shards of the size that a recipe asks for."""
        return cls(paths, examples, rows_of_a_shard(shard_size, examples), shared or cls.shared)

    @property
    def shards(self) -> int:
        return -(-self.examples // self.shard_size)

    def positions(self, shard: int) -> range:
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.examples))

    def shard_path(self, shard: int) -> Path:
        return self.paths.shard(shard, self.shards)

    def begin(self, provenance: Provenance) -> None:
        """Makes the folder, and writes the provenance of a split that is not finished yet."""
        provenance.write(self.paths)
        try:
            self.paths.shards.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.paths.shards}: can't create this folder: {error.strerror}") from None

    def write_shard(
        self,
        shard: int,
        rows: Iterable[Perturbed],
        skipped: Sequence[Skipped],
        schema: Schema,
        fingerprint: str,
    ) -> None:
        """Writes a shard whole, its rows in the order of their ids. One that another process has written stays."""
        in_order = sorted(rows, key=lambda row: row.id)
        columns = {column.name: [_stored(row, column, schema) for row in in_order] for column in schema.columns}
        table = Dataset.from_dict(columns, features=schema.features).data.table
        said = {
            "schema": _SHARD_SCHEMA,
            "fingerprint": fingerprint,
            "shard": shard,
            "skipped": [entry.model_dump() for entry in skipped],
            "tally": [len(in_order), sum(row.valid for row in in_order), sum(row.iterations for row in in_order)],
        }
        table = table.replace_schema_metadata({**table.schema.metadata, _SHARD_KEY: json.dumps(said).encode()})
        # A holder that stood still may come late, after the split was finished. What an earlier job for a bucket left
        # on this machine is no shard of anybody's.
        is_final = self.shared.is_local
        write_atomically(self.shard_path(shard), parquet_bytes(table), make_folder=False, replace=not is_final)
        self.shared.publish(self.shard_path(shard))

    def read_tally(self, shard: int) -> Tally:
        """What a shard tells of its rows, without reading them; one of an earlier version tells how many they are."""
        with suppress(Exception):  # whatever a file or a store throws: progress alone is at stake
            with self.shared.open(self.shard_path(shard)) as file:
                metadata = pq.read_metadata(file)
            content = json.loads(metadata.metadata[_SHARD_KEY])
            return Tally(*map(int, content.get("tally", [metadata.num_rows])))
        return Tally()

    def first_rows(self, shard: int, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Some columns of the first rows of a shard, wherever it lies, of those columns that it has; no rows where it
        is damaged."""
        path, rows = self.shard_path(shard), list[dict[str, Any]]()
        with suppress(pa.ArrowException, OSError, ValueError), self.shared.open(path) as opened:
            file = pq.ParquetFile(opened)
            known = [name for name in columns if name in file.schema_arrow.names]
            for batch in islice(file.iter_batches(columns=known), 1):
                rows = batch.to_pylist()
        return rows

    def read_columns(self, columns: Sequence[str], shards: Sequence[int] | None = None) -> pa.Table:
        """Some columns of all or some shards, of those that are there, as far as rows of their version have them;
        images that are not asked for are not read."""
        tables = []
        for shard in (shard for shard in self.there if shards is None or shard in shards):
            # Opened here: pyarrow takes a name with a `~` or a colon in it for another place.
            with open_plain(self.shard_path(shard)) as opened, pq.ParquetFile(opened) as file:
                known = set(file.schema_arrow.names)
                tables.append(file.read(columns=[name for name in columns if name in known]))
        return pa.concat_tables(tables)

    def rows_of(self, ids: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Some columns of some rows, of those that are there, as far as rows have them; other rows' images are not
        kept in memory."""
        found: list[dict[str, Any]] = []
        for shard in self.there:
            with open_plain(self.shard_path(shard)) as opened, pq.ParquetFile(opened) as file:
                known = [name for name in columns if name in file.schema_arrow.names]
                for batch in file.iter_batches(columns=known):
                    found += batch.filter(pc.is_in(batch["id"], pa.array(ids, batch["id"].type))).to_pylist()
        return found

    @property
    def there(self) -> list[int]:
        """The shards that are there."""
        return [shard for shard in range(self.shards) if self.shard_path(shard).exists()]

    @property
    def is_whole(self) -> bool:
        """Whether every shard is there."""
        return len(self.there) == self.shards

    def check_shard(self, shard: int, features: Features, fingerprint: str, sha256: str | None = None) -> IntactShard:
        """Reads every byte of a shard. Raises ShardError where it is not there, or not what the recipe makes, and
        UserError where it can't be read, which says nothing about it.

        The file has to be the one of the digest `sha256` where that is known; else the checksums in it must be right.
        """
        path = self.shard_path(shard)
        if not path.exists():
            raise ShardError(path, "is missing")
        if sha256 is not None and sha256_of(path) != sha256:
            raise ShardError(path, "is not the file whose sha256 is on record")
        try:
            with open_plain(path) as opened, pq.ParquetFile(opened, page_checksum_verification=True) as file:
                metadata, schema = file.metadata, file.schema_arrow
                found = Features.from_arrow_schema(schema)
                if metadata.num_rows > len(self.positions(shard)):
                    raise ValueError(f"it has {metadata.num_rows} rows")
                # With the images, so that their checksums are looked at, unless the digest has vouched for all.
                kept, gaps = [], False
                for batch in file.iter_batches(columns=None if sha256 is None else _KEPT):
                    kept.append(batch.select(_KEPT))
                    gaps |= _has_gaps(batch)
            said = json.loads(metadata.metadata.get(_SHARD_KEY, b"{}"))
            skipped = [Skipped(id=int(entry["id"]), reason=str(entry["reason"])) for entry in said["skipped"]]
            if gaps:
                raise ValueError("a value is missing")
            rows = pa.Table.from_batches(kept, pa.schema([schema.field(name) for name in _KEPT]))
        except (MemoryError, OSError) as error:
            if isinstance(error, MemoryError) or error.errno is not None:
                raise UserError(f"{path}: can't be read: {one_line(error, 160)}") from None
            raise ShardError(path, f"is damaged ({one_line(error, 100)})") from None
        except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
            raise ShardError(path, f"is damaged ({one_line(error, 100)})") from None
        if said.get("fingerprint") != fingerprint:
            raise ShardError(path, f"belongs to another recipe (fingerprint {said.get('fingerprint')})")
        if said.get("shard", shard) != shard:
            raise ShardError(path, f"is shard {said['shard']} under another name")
        if found != features:
            raise ShardError(path, "has other columns than the recipe's")
        ids = rows["id"].to_pylist()
        all_ids = {*ids, *(entry.id for entry in skipped)}
        if ids != sorted(ids) or not len(all_ids) == len(ids) + len(skipped) == len(self.positions(shard)):
            raise ShardError(path, f"holds {len(ids)} rows and {len(skipped)} skipped ids, or some of them twice")
        groups = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
        tally = Tally(len(ids), sum(rows["valid"].to_pylist()), sum(rows["iterations"].to_pylist()))
        return IntactShard(ids, skipped, tally, sum(groups), path.stat().st_size)

    def intact_shards(self, provenance: Provenance) -> tuple[dict[int, IntactShard], list[ShardError]]:
        """What is there and right, by shard, and what is wrong with the other files that are there.

        The bytes of shards whose sha256 is on record have to be those.
        """
        features = provenance.row_schema.features

        def check(shard: int) -> IntactShard | ShardError:
            try:
                return self.check_shard(
                    shard, features, provenance.fingerprint, provenance.files.get(self.name_of(shard))
                )
            except ShardError as error:
                return error

        there = self.there
        found = dict(zip(there, _at_once(check, there), strict=True))
        intact = {shard: checked for shard, checked in found.items() if isinstance(checked, IntactShard)}
        return intact, [error for error in found.values() if isinstance(error, ShardError)]

    def check_complete(self, provenance: Provenance) -> CheckedFolder:
        """Proves that every example is there once and only once, in files that are right.

        Raises ShardError with the first shard that is not.
        """
        digests: dict[str, str] = {}
        skipped: list[Skipped] = []
        num_bytes, download_size = 0, 0
        seen: set[int] = set()

        features = provenance.row_schema.features

        def check(shard: int) -> tuple[IntactShard, str]:
            found = self.check_shard(shard, features, provenance.fingerprint)
            return found, sha256_of(self.shard_path(shard))

        for shard, (found, digest) in enumerate(_at_once(check, range(self.shards))):
            ids = {*found.ids, *(entry.id for entry in found.skipped)}
            if twice := ids & seen:
                raise ShardError(self.shard_path(shard), f"holds id {min(twice)}, which another shard holds too")
            seen |= ids
            skipped += found.skipped
            digests[self.name_of(shard)] = digest
            num_bytes += found.num_bytes
            download_size += found.file_size
        return CheckedFolder(digests, skipped, num_bytes, download_size)

    def name_of(self, shard: int) -> str:
        """The shard's path in the folder, as the provenance calls it."""
        return self.paths.in_repo(self.shard_path(shard))


def _has_gaps(batch: pa.RecordBatch) -> bool:
    """Whether a value is missing, or the bytes of an image."""
    columns = [column.field("bytes") if pa.types.is_struct(column.type) else column for column in batch.columns]
    return any(column.null_count for column in (*batch.columns, *columns))


def _at_once(check: Callable[[int], Checked], shards: Iterable[int]) -> list[Checked]:
    """What `check` finds of each shard, some files at once."""
    with ThreadPoolExecutor(_CHECKERS) as pool:
        return list(pool.map(check, shards))


def _stored(row: Perturbed, column: Column, schema: Schema) -> Any:
    """A value of a row as its column stores it."""
    if column.type == "verdicts":
        return schema.verdicts(row)
    value = getattr(row, column.field)
    return {"bytes": png_bytes(value.permute(1, 2, 0).numpy()), "path": None} if column.type == "image" else value


def parquet_bytes(table: pa.Table) -> memoryview:
    """The bytes of a shard's file."""
    buffer = io.BytesIO()
    options = {"write_page_index": True, "use_content_defined_chunking": True, "write_page_checksum": True}
    with pq.ParquetWriter(buffer, table.schema, **options) as writer:
        if len(table):  # readers of `datasets` stumble over a row group without rows
            writer.write_table(table, row_group_size=100)
    return buffer.getbuffer()


def summary_of(provenance: Provenance, folder: SplitFolder | None = None) -> Summary:
    """The figures of a finished split.

    Args:
        provenance: of the split.
        folder: where its rows are. What an earlier version did not tell is found from them; without them it is None.

    Returns:
        The figures that this version knows; what a later one tells besides is passed over.
    """
    stored = provenance.summary
    known = {field.name for field in fields(Summary)}
    summary = Summary(rows=provenance.rows, valid_rows=0)
    if not known <= stored.keys() and folder is not None and folder.is_whole:
        summary = summary_of_rows(folder)
    for name in known & stored.keys():
        with suppress(ValidationError):  # anyone may have written it
            summary = replace(summary, **{name: _FIGURES[name].validate_python(stored[name])})
    return summary


def summary_of_rows(folder: SplitFolder) -> Summary:
    """The figures of all rows that are there; a part may have none."""
    if not folder.paths.found_shards():
        return Summary(rows=0, valid_rows=0)
    table = folder.read_columns(SUMMARY_COLUMNS)
    return summarise({name: table[name].to_numpy() for name in table.column_names})
