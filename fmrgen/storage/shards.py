"""The perturbed split on disk: its schema, its shards, and what is finished."""

import io
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage

from fmrgen.errors import UserError, one_line
from fmrgen.files import open_plain, read_json, sha256_of, write_atomically
from fmrgen.records import Perturbed, StopReason

Seen = TypeVar("Seen")

_LOOKERS = 4  # threads that check files at once
_MOST_SHARDS = 1_000_000
_KEPT = ["id", "valid", "iterations"]
_SHARD_SCHEMA = "fmrgen-shard/1"  # those of fmrgen 0.1.0 say none
_SHARD_KEY = b"fmrgen"  # of the parquet metadata: the recipe's fingerprint and the skipped ids of the shard

# The column of each of Perturbed's values that is not called the same.
_COLUMNS = {"score": "clip_score", "probability": "oracle_probability"}
_LABEL_COLUMNS = (
    "oracle_label",
    "original_oracle_label",
    "reconstruction_oracle_label",
    "prediction",
    "original_prediction",
    "reconstruction_prediction",
)


def split_features(label_names: Sequence[str], keep_original: bool) -> Features:
    """The columns of a perturbed split and their types."""
    return Features(
        {
            "image": Image(),
            "label": ClassLabel(names=list(label_names)),
            **({"original": Image()} if keep_original else {}),
            "id": Value("int64"),
            "valid": Value("bool"),
            "iterations": Value("int32"),
            "stop_reason": ClassLabel(names=[reason.value for reason in StopReason]),
            "clip_score": Value("float32"),
            "oracle_probability": Value("float32"),
            **{name: Value("int32") for name in _LABEL_COLUMNS},
            "loss": Value("float32"),
            "latent_shift": Value("float32"),
        }
    )


class Skipped(NamedTuple):
    """An example that has no row, because its image could not be read."""

    id: int
    reason: str


class Tally(NamedTuple):
    """How many rows there are, how many of them the oracle accepted, and their iterations in all."""

    rows: int = 0
    accepted: int = 0
    iterations: int = 0

    def plus(self, other: "Tally | Sequence[int]") -> "Tally":
        return Tally(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class SoundShard(NamedTuple):
    """What a shard holds that was found to be whole and its recipe's: ids of its rows in order, sizes in bytes."""

    ids: list[int]
    skipped: list[Skipped]
    tally: Tally
    num_bytes: int  # of the uncompressed columns
    file_size: int


class CheckedSplit(NamedTuple):
    """A split that is whole: sha256 of each shard by its path in the folder, and sizes in bytes."""

    files: dict[str, str]
    skipped: list[Skipped]
    num_bytes: int
    download_size: int


class ShardError(UserError):
    """A shard's file is not what its recipe makes; `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; the same generate command again makes it anew")
        self.path, self.reason = path, reason


@dataclass(frozen=True)
class SplitFolder:
    """One split of a dataset folder: `<config>/<split>-00007-of-00040.parquet` and its provenance.

    Shard i holds the examples at source positions `positions(i)`. It is there whole or not at all.
    """

    root: Path
    config: str
    split: str
    examples: int
    shard_size: int

    def __post_init__(self) -> None:
        if self.shards > _MOST_SHARDS:
            raise UserError(f"output.shard_size: {self.shards} shards are too many files; choose a larger one")

    @property
    def shards(self) -> int:
        return -(-self.examples // self.shard_size)

    def positions(self, shard: int) -> range:
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.examples))

    def shard_path(self, shard: int) -> Path:
        return self.root / self.config / f"{self.split}-{shard:05d}-of-{self.shards:05d}.parquet"

    @property
    def provenance_path(self) -> Path:
        return provenance_path(self.root, self.config, self.split)

    @property
    def picture_path(self) -> Path:
        return picture_path(self.root, self.config, self.split)

    def read_provenance(self) -> dict[str, Any] | None:
        """What the folder says of this split, None where it holds none. Raises UserError where it can't be read."""
        return read_json(self.provenance_path) if self.provenance_path.exists() else None

    @property
    def lock_path(self) -> Path:
        """Held by the one job that makes the split."""
        return self.provenance_path.with_name(f".{self.split}.lock")

    def begin(self, provenance: dict[str, Any]) -> None:
        """Makes the folder, and writes the provenance of a split in the making."""
        self.write_provenance(provenance)
        try:
            (self.root / self.config).mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.root / self.config}: can't be made a folder: {error.strerror}") from None

    def write_provenance(self, provenance: dict[str, Any]) -> None:
        write_atomically(self.provenance_path, json.dumps(provenance, indent=2, ensure_ascii=False).encode() + b"\n")

    def remove_leftovers(self) -> None:
        """Deletes the temporary files of a run that was killed while it wrote."""
        shards = (self.root / self.config).glob(f".{self.split}-*-of-*.parquet.*.tmp")
        provenances = self.provenance_path.parent.glob(f".{self.split}.json.*.tmp")
        for path in (*shards, *provenances):
            path.unlink(missing_ok=True)

    def write_shard(
        self,
        shard: int,
        rows: Iterable[Perturbed],
        skipped: Sequence[Skipped],
        features: Features,
        fingerprint: str,
        job: str,
    ) -> None:
        """Writes a shard whole, its rows in the order of their ids; where `job` is not the one that has the folder any
        more, that is a UserError.
        """
        columns: dict[str, list[Any]] = {name: [] for name in features}
        for row in sorted(rows, key=lambda row: row.id):
            values = {_COLUMNS.get(name, name): value for name, value in vars(row).items()}
            values |= {name: {"bytes": _png(values[name]), "path": None} for name in ("image", "original")}
            values["stop_reason"] = row.stop_reason.value
            for name, column in columns.items():
                column.append(values[name])
        table = Dataset.from_dict(columns, features=features).data.table
        said = {
            "schema": _SHARD_SCHEMA,
            "fingerprint": fingerprint,
            "shard": shard,
            "skipped": [entry._asdict() for entry in skipped],
        }
        table = table.replace_schema_metadata({**table.schema.metadata, _SHARD_KEY: json.dumps(said).encode()})
        buffer = io.BytesIO()
        options = {"write_page_index": True, "use_content_defined_chunking": True, "write_page_checksum": True}
        with pq.ParquetWriter(buffer, table.schema, **options) as writer:
            if len(table):  # readers of `datasets` stumble over a row group without rows
                writer.write_table(table, row_group_size=100)
        runs = (self.read_provenance() or {}).get("runs", [])
        if [run.get("job") for run in runs[-1:]] != [job]:
            raise UserError(f"{self.root}: is gone, or another job's; bring it back, and the same command goes on")
        write_atomically(self.shard_path(shard), buffer.getbuffer())

    def read_columns(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of all shards; images that are not asked for are not read."""
        tables = []
        for shard in range(self.shards):
            # Opened here: pyarrow takes a name with a `~` or a colon in it for another place.
            with open_plain(self.shard_path(shard)) as file:
                tables.append(pq.read_table(file, columns=list(columns)))
        return pa.concat_tables(tables)

    @property
    def is_whole(self) -> bool:
        """Whether every shard is there."""
        return all(self.shard_path(shard).exists() for shard in range(self.shards))

    def inspect(self, shard: int, features: Features, fingerprint: str, sha256: str | None = None) -> SoundShard:
        """Reads every byte of a shard. Raises ShardError where it is not there, or not what the recipe makes, and
        UserError where it can't be read, which says nothing about it.

        The file has to be the one of the digest `sha256` where that is known; else the checksums in it must be right.
        """
        path = self.shard_path(shard)
        if not path.exists():
            raise ShardError(path, "is missing")
        if sha256 is not None and sha256_of(path) != sha256:
            raise ShardError(path, "holds other bytes than when the split was finished")
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
            skipped = [Skipped(int(entry["id"]), str(entry["reason"])) for entry in said["skipped"]]
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
            raise ShardError(path, f"is of another recipe (fingerprint {said.get('fingerprint')})")
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
        return SoundShard(ids, skipped, tally, sum(groups), path.stat().st_size)

    def sound_shards(
        self, features: Features, fingerprint: str, digests: dict[str, str]
    ) -> tuple[dict[int, SoundShard], list[ShardError]]:
        """What is there and right, by shard, and what is wrong with the other files that are there.

        `digests` are the sha256 of those whose bytes are on record.
        """

        def look(shard: int) -> SoundShard | ShardError:
            try:
                return self.inspect(shard, features, fingerprint, digests.get(self.name_of(shard)))
            except ShardError as error:
                return error

        there = [shard for shard in range(self.shards) if self.shard_path(shard).exists()]
        found = dict(zip(there, _at_once(look, there), strict=True))
        sound = {shard: seen for shard, seen in found.items() if isinstance(seen, SoundShard)}
        return sound, [seen for seen in found.values() if isinstance(seen, ShardError)]

    def check_complete(self, features: Features, fingerprint: str) -> CheckedSplit:
        """Proves that every example is there once and only once, in files that are right.

        Raises ShardError with the first shard that is not.
        """
        digests: dict[str, str] = {}
        skipped: list[Skipped] = []
        num_bytes, download_size = 0, 0
        seen: set[int] = set()

        def look(shard: int) -> tuple[SoundShard, str]:
            return self.inspect(shard, features, fingerprint), sha256_of(self.shard_path(shard))

        for shard, (found, digest) in enumerate(_at_once(look, range(self.shards))):
            ids = {*found.ids, *(entry.id for entry in found.skipped)}
            if twice := ids & seen:
                raise ShardError(self.shard_path(shard), f"holds id {min(twice)}, which another shard holds too")
            seen |= ids
            skipped += found.skipped
            digests[self.name_of(shard)] = digest
            num_bytes += found.num_bytes
            download_size += found.file_size
        return CheckedSplit(digests, skipped, num_bytes, download_size)

    def name_of(self, shard: int) -> str:
        """The shard's path in the folder, as the provenance calls it."""
        return self.shard_path(shard).relative_to(self.root).as_posix()


def _has_gaps(batch: pa.RecordBatch) -> bool:
    """Whether a value is missing, or the bytes of an image."""
    columns = [column.field("bytes") if pa.types.is_struct(column.type) else column for column in batch.columns]
    return any(column.null_count for column in (*batch.columns, *columns))


def _at_once(look: Callable[[int], Seen], shards: Iterable[int]) -> list[Seen]:
    """What `look` sees of each shard, some files at once."""
    with ThreadPoolExecutor(_LOOKERS) as pool:
        return list(pool.map(look, shards))


def put_aside(path: Path) -> Path:
    """Gives a file that is wrong another name, under which nobody reads it; returns that."""
    places = (path.with_name(f".{path.name}.damaged{number or ''}") for number in count())
    aside = next(place for place in places if not place.exists())
    path.replace(aside)
    return aside


def provenance_path(root: Path, config: str, split: str) -> Path:
    return root / "provenance" / config / f"{split}.json"


def picture_path(root: Path, config: str, split: str) -> Path:
    return root / "pictures" / config / f"{split}.png"


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, format="PNG")
    return buffer.getvalue()
