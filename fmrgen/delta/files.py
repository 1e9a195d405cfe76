"""A split without images that may not be passed on: what must be added to your own originals to have them.

An image's bytes are laid over a stream that only its own original makes (SHAKE-256 of its pixels at the generator's
size, and of what the image is: no two images share a stream). Without the original they are noise; with it they are the
very file that was stored.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from fmrgen.errors import UserError, one_line
from fmrgen.files import check_inside, of_schema, open_plain, read_json, sha256_of, write_atomically
from fmrgen.image_files import open_rgb
from fmrgen.split.judgements import to_parquet
from fmrgen.storage.paths import DELTAS, SplitPaths
from fmrgen.storage.provenance import Provenance, parse_provenance
from fmrgen.storage.schema import IMAGES
from fmrgen.storage.shards import SplitFolder, parquet_bytes
from fmrgen.trust.parquet import check_parquet_files

SCHEMA: Literal["fmrgen-delta/2"] = "fmrgen-delta/2"
DIGEST = "original_sha256"

_SPLIT_SCHEMA = b"fmrgen_split_schema"
_SPLIT_WRITER = b"fmrgen_split_writer"  # the library that wrote the split's file, as it calls itself


@dataclass(frozen=True)
class DeltaFile:
    """The small file about a delta: the split's whole provenance, and the sha256 of the delta's own files."""

    schema: Literal["fmrgen-delta/2"]
    provenance: dict[str, Any]
    files: dict[str, str]


def masked(content: bytes, split: str, column: str, example_id: int, pixels: np.ndarray) -> bytes:
    """Bytes laid over the stream of an original; laid over it again they are what they were.

    Args:
        content: the bytes.
        split: the digest of the split's files; with the next two it makes the stream this image's alone.
        column: of the image.
        example_id: of the row.
        pixels: of the original, uint8 [H, W, 3].

    Returns:
        As many bytes.
    """
    what = f"{SCHEMA} {split} {column} {example_id} {pixels.shape}\n".encode()
    stream = hashlib.shake_256(what + np.ascontiguousarray(pixels).tobytes()).digest(len(content))
    laid = np.frombuffer(content, np.uint8) ^ np.frombuffer(stream, np.uint8)
    return laid.tobytes()


def pixels_sha256(pixels: np.ndarray) -> str:
    """Of an original's pixels, uint8 [H, W, 3], which identifies it."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def about_path(root: Path, config: str, split: str) -> Path:
    """Of the small file about a delta."""
    return root / DELTAS / config / f"{split}.json"


def deltas_in(root: Path) -> list[tuple[str, str]]:
    """The configs and splits of the deltas in a folder."""
    return sorted((path.parent.name, path.stem) for path in (root / DELTAS).glob("*/*.json"))


def write_delta(paths: SplitPaths, provenance: Provenance, folder: Path, on_rows: Callable[[int], None]) -> None:
    """Writes the delta of a finished split into a folder. Raises UserError where it keeps no originals."""
    if not provenance.recipe.output.keep_original:
        raise UserError(f"{paths.root}:{paths.name}: keeps no originals, so there is nothing to store it relative to")
    files = {}
    for name in provenance.files:
        check_inside(paths.root / name, paths.root)
        with open_plain(paths.root / name) as file:
            parquet = pq.ParquetFile(file)
            table = parquet.read()
            # As it was given to the writer: what a reader makes of it is not written to the same bytes.
            schema = base64.b64decode(parquet.metadata.metadata[b"ARROW:schema"])
            metadata = {_SPLIT_SCHEMA: schema, _SPLIT_WRITER: parquet.metadata.created_by}
        path = folder / DELTAS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_parquet(_masked_table(table, metadata, provenance.files_digest)))
        files[f"{DELTAS}/{name}"] = sha256_of(path)
        on_rows(len(table))
    for path in (folder / DELTAS / paths.config).glob(f"{paths.split}-*.parquet"):
        if path.relative_to(folder).as_posix() not in files:  # of another delta of that name
            path.unlink()
    about = {"schema": SCHEMA, "provenance": provenance.tree, "files": files}
    text = json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(about_path(folder, paths.config, paths.split), text.encode())


def read_about(root: Path, config: str, split: str) -> tuple[DeltaFile, Provenance]:
    """What a folder says of a delta. Raises UserError where it is none."""
    path = about_path(root, config, split)
    check_inside(path, root)
    about = of_schema(DeltaFile, SCHEMA, read_json(path), str(path))
    provenance = parse_provenance(about.provenance)
    if provenance is None or not provenance.is_finished:
        raise UserError(f"{path}: its provenance is not that of a finished split; make the delta again")
    own = SplitFolder.of(SplitPaths(root, config, split), provenance)
    names = [own.name_of(shard) for shard in range(own.shards)]
    if {*about.files} != {f"{DELTAS}/{name}" for name in names} or {*provenance.files} != {*names}:
        raise UserError(f"{path}: its files are not those of {config}/{split}; make the delta again")
    return about, provenance


def read_delta(root: Path, name: str, digest: str, features: Features) -> pa.Table:
    """A file of a delta.

    Args:
        root: of the delta.
        name: of the file in it.
        digest: its sha256.
        features: of the split's columns.

    Raises:
        UserError: it is not the file that was written, or not that of such a split.
    """
    path = root / name
    check_inside(path, root)
    if not path.is_file() or sha256_of(path) != digest:
        raise UserError(f"{path}: is missing or was changed; fetch it again")
    check_parquet_files([str(path)])
    try:
        with open_plain(path) as file:
            table = pq.read_table(file)
        _check_columns(table, features.arrow_schema)
    except (OSError, pa.ArrowException, ValueError) as error:
        why = one_line(error, 120)
        raise UserError(f"{path}: is not the delta of a split ({why}); get another from its publisher") from None
    return table


def _check_columns(table: pa.Table, split: pa.Schema) -> None:
    """Raises ValueError or ArrowException where a table is not that of a delta of a split with this schema."""
    schema = pa.ipc.read_schema(pa.py_buffer((table.schema.metadata or {}).get(_SPLIT_SCHEMA, b"")))
    masked = [pa.field(field.name, pa.binary()) if field.name in IMAGES else field for field in split]
    if not schema.equals(split) or not table.schema.equals(pa.schema([*masked, pa.field(DIGEST, pa.string())])):
        raise ValueError("it has the wrong columns")
    if any(column.null_count for column in table.columns):
        raise ValueError("a value is missing")


def rebuilt_file(table: pa.Table, originals: Mapping[int, np.ndarray], provenance: Provenance, name: str) -> memoryview:
    """The file of a split's shard, from that of its delta.

    Args:
        table: of the delta.
        originals: pixels, uint8 [H, W, 3], by id, each proved to be the right one.
        provenance: of the split.
        name: of the shard in it.

    Returns:
        The very bytes that were published.

    Raises:
        UserError: they come out as others.
    """
    content = parquet_bytes(_unmasked_table(table, provenance.files_digest, originals))
    if hashlib.sha256(content).hexdigest() != provenance.files[name]:
        writer = table.schema.metadata.get(_SPLIT_WRITER, b"another pyarrow").decode(errors="replace")
        why = "its delta was changed: fetch it again from where it was published"
        if not writer.endswith(f" {pa.cpp_version}"):
            why = f"it was written by {writer}, and this is {pa.cpp_version}: install that version; or {why}"
        raise UserError(f"{name}: the rebuilt file differs from the published one; {why}")
    return content


def _unmasked_table(table: pa.Table, split: str, originals: Mapping[int, np.ndarray]) -> pa.Table:
    schema = pa.ipc.read_schema(pa.py_buffer(table.schema.metadata[_SPLIT_SCHEMA]))
    ids = table["id"].to_pylist()
    columns = []
    for field in schema:
        if field.name in IMAGES:
            laid = zip(table[field.name].to_pylist(), ids, strict=True)
            stored = [{"bytes": masked(one, split, field.name, i, originals[i]), "path": None} for one, i in laid]
            columns.append(pa.array(stored, type=field.type))
        else:
            columns.append(table[field.name].combine_chunks())
    return pa.table(columns, schema=schema)


def _masked_table(table: pa.Table, metadata: dict[bytes, Any], split: str) -> pa.Table:
    ids = table["id"].to_pylist()
    originals = [np.asarray(open_rgb(stored["bytes"])) for stored in table["original"].to_pylist()]
    for name in IMAGES:
        rows = zip(table[name].to_pylist(), ids, originals, strict=True)
        laid = pa.array([masked(stored["bytes"], split, name, i, pixels) for stored, i, pixels in rows], pa.binary())
        table = table.set_column(table.schema.get_field_index(name), name, laid)
    table = table.append_column(DIGEST, pa.array([pixels_sha256(pixels) for pixels in originals]))
    return table.replace_schema_metadata(metadata)
