"""The perturbed split on disk: its schema, its shards, and what is finished."""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage

from fmrgen.errors import UserError
from fmrgen.rows import Perturbed, StopReason

_NO_SHARD = "is not the shard that this recipe makes; delete it and run the same command again"
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


class CheckedSplit(NamedTuple):
    """A split that is whole: sha256 of each shard by its path in the folder, and sizes in bytes."""

    files: dict[str, str]
    skipped: "list[Skipped]"
    num_bytes: int  # of the uncompressed columns
    download_size: int


class Skipped(NamedTuple):
    """An example that has no row, because its image could not be read."""

    id: int
    reason: str


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

    @property
    def shards(self) -> int:
        return -(-self.examples // self.shard_size)

    def positions(self, shard: int) -> range:
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.examples))

    def shard_path(self, shard: int) -> Path:
        return self.root / self.config / f"{self.split}-{shard:05d}-of-{self.shards:05d}.parquet"

    def finished_shards(self) -> list[int]:
        return [shard for shard in range(self.shards) if self.shard_path(shard).exists()]

    @property
    def provenance_path(self) -> Path:
        return provenance_path(self.root, self.config, self.split)

    def read_provenance(self) -> dict[str, Any] | None:
        """What the folder says of this split, None where it holds none. Raises UserError where it can't be read."""
        return read_json(self.provenance_path) if self.provenance_path.exists() else None

    def write_provenance(self, provenance: dict[str, Any]) -> None:
        write_atomically(self.provenance_path, json.dumps(provenance, indent=2, ensure_ascii=False).encode() + b"\n")

    def remove_leftovers(self) -> None:
        """Deletes the temporary files of a run that was killed while it wrote."""
        shards = (self.root / self.config).glob(f".{self.split}-*-of-*.parquet.*.tmp")
        provenances = self.provenance_path.parent.glob(f".{self.split}.json.*.tmp")
        for path in (*shards, *provenances):
            path.unlink(missing_ok=True)

    def write_shard(
        self, shard: int, rows: Iterable[Perturbed], skipped: Sequence[Skipped], features: Features, fingerprint: str
    ) -> None:
        """Writes a shard whole, its rows in the order of their ids."""
        columns: dict[str, list[Any]] = {name: [] for name in features}
        for row in sorted(rows, key=lambda row: row.id):
            values = {_COLUMNS.get(name, name): value for name, value in vars(row).items()}
            values |= {name: {"bytes": _png(values[name]), "path": None} for name in ("image", "original")}
            values["stop_reason"] = row.stop_reason.value
            for name, column in columns.items():
                column.append(values[name])
        table = Dataset.from_dict(columns, features=features).data.table
        said = {"fingerprint": fingerprint, "skipped": [entry._asdict() for entry in skipped]}
        table = table.replace_schema_metadata({**table.schema.metadata, _SHARD_KEY: json.dumps(said).encode()})
        buffer = io.BytesIO()
        with pq.ParquetWriter(buffer, table.schema, write_page_index=True, use_content_defined_chunking=True) as writer:
            if len(table):  # readers of `datasets` stumble over a row group without rows
                writer.write_table(table, row_group_size=100)
        write_atomically(self.shard_path(shard), buffer.getbuffer())

    def read_columns(self, shard: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of a finished shard; images that are not asked for are not read. Raises UserError."""
        try:
            return pq.read_table(self.shard_path(shard), columns=list(columns))
        except (pa.ArrowException, OSError):
            raise UserError(f"{self.shard_path(shard)}: {_NO_SHARD}") from None

    def _read_said(self, shard: int) -> dict[str, Any]:
        """What the shard says of itself besides its rows."""
        try:
            return json.loads(pq.read_schema(self.shard_path(shard)).metadata[_SHARD_KEY])
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
            raise UserError(f"{self.shard_path(shard)}: {_NO_SHARD}") from None

    def check_complete(self, fingerprint: str) -> "CheckedSplit":
        """Proves that every example is there once and only once.

        Raises UserError with the first shard that is not right.
        """
        digests: dict[str, str] = {}
        skipped: list[Skipped] = []
        num_bytes, download_size = 0, 0
        seen: set[int] = set()
        for shard in range(self.shards):
            path = self.shard_path(shard)
            if not path.exists():
                raise UserError(f"{path}: missing after the run; run the same command again")
            said = self._read_said(shard)
            ids = self.read_columns(shard, ["id"])["id"].to_pylist()
            here = [Skipped(**entry) for entry in said["skipped"]]
            found = {*ids, *(entry.id for entry in here)}
            if said["fingerprint"] != fingerprint or len(found) != len(self.positions(shard)) or found & seen:
                raise UserError(f"{path}: {_NO_SHARD}")
            if len(ids) + len(here) != len(found):
                raise UserError(f"{path}: {_NO_SHARD}")
            seen |= found
            skipped += here
            digests[str(path.relative_to(self.root))] = hashlib.sha256(path.read_bytes()).hexdigest()
            groups = pq.read_metadata(path)
            num_bytes += sum(groups.row_group(group).total_byte_size for group in range(groups.num_row_groups))
            download_size += path.stat().st_size
        return CheckedSplit(digests, skipped, num_bytes, download_size)


def provenance_path(root: Path, config: str, split: str) -> Path:
    return root / "provenance" / config / f"{split}.json"


def picture_path(root: Path, config: str, split: str) -> Path:
    return root / "pictures" / config / f"{split}.png"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping from a file. Raises UserError where it is none."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as JSON: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds no JSON mapping")
    return tree


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """The file is there with all of `content`, or not at all, whenever the machine stops.

    Raises UserError where it can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path}: can't be written: {error.strerror}") from None


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, format="PNG")
    return buffer.getvalue()
