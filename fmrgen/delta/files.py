"""The files of a delta: a split whose images can only be read with the originals, for images that may not be shared.

Each image's bytes are combined by XOR with a stream that only its own original yields: SHAKE-256 of the original's
pixels at the generator's size, and of the image's place, so that no two images share a stream. Without the original,
the bytes are noise; with it, they are exactly the file that was stored.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from fmrgen.errors import UserError, one_line
from fmrgen.files import check_inside, json_text, of_schema, open_plain, read_json, sha256_of, write_atomically
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
    """The small file about a delta: the split's whole provenance, and the sha256 of each file of the delta."""

    schema: Literal["fmrgen-delta/2"]
    provenance: dict[str, Any]
    files: dict[str, str]


def masked(content: bytes, split: str, column: str, example_id: int, pixels: np.ndarray) -> bytes:
    """Return `content` combined by XOR with the stream of an original; a second time, that restores it.

    `pixels` are the original's, uint8 [H, W, 3]. With the digest `split` of the split's files, the column and the id of
    the row, the stream is this image's alone.
    """
    prefix = f"{SCHEMA} {split} {column} {example_id} {pixels.shape}\n".encode()
    stream = hashlib.shake_256(prefix + np.ascontiguousarray(pixels).tobytes()).digest(len(content))
    return (np.frombuffer(content, np.uint8) ^ np.frombuffer(stream, np.uint8)).tobytes()


def pixels_sha256(pixels: np.ndarray) -> str:
    """Return the sha256 of an original's pixels, uint8 [H, W, 3], which identifies it."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def about_path(root: Path, config: str, split: str) -> Path:
    """Return the path of the small file about a delta."""
    return root / DELTAS / config / f"{split}.json"


def deltas_in(root: Path) -> list[tuple[str, str]]:
    """Return the config and split of each delta in a folder, sorted."""
    return sorted((path.parent.name, path.stem) for path in root.glob(f"{DELTAS}/*/*.json"))


def write_delta(paths: SplitPaths, provenance: Provenance, folder: Path) -> None:
    """Write the delta of a finished split into `folder`. Raises UserError if the split keeps no originals."""
    if not provenance.recipe.output.keep_original:
        raise UserError(f"{paths.root}:{paths.name}: keeps no originals, so there is nothing to store it relative to")
    files = {}
    for name in provenance.files:
        check_inside(paths.root / name, paths.root)
        with open_plain(paths.root / name) as file:
            parquet = pq.ParquetFile(file)
            table = parquet.read()
            # The schema as the writer got it: the one that a reader returns would be written to other bytes.
            schema = base64.b64decode(parquet.metadata.metadata[b"ARROW:schema"])
            metadata = {_SPLIT_SCHEMA: schema, _SPLIT_WRITER: parquet.metadata.created_by}
        path = folder / DELTAS / name
        write_atomically(path, to_parquet(_masked_table(table, metadata, provenance.files_digest)))
        files[f"{DELTAS}/{name}"] = sha256_of(path)
    for path in (folder / DELTAS / paths.config).glob(f"{paths.split}-*.parquet"):
        if path.relative_to(folder).as_posix() not in files:  # of an earlier delta of that name
            path.unlink()
    about = {"schema": SCHEMA, "provenance": provenance.tree, "files": files}
    write_atomically(about_path(folder, paths.config, paths.split), json_text(about, strict=True).encode())


def read_about(root: Path, config: str, split: str) -> tuple[DeltaFile, Provenance]:
    """Return the small file about a delta, and the provenance in it. Raises UserError if there is no valid one."""
    path = about_path(root, config, split)
    check_inside(path, root)
    about = of_schema(DeltaFile, SCHEMA, read_json(path), str(path))
    provenance = parse_provenance(about.provenance, f"{root}: {config}/{split}")
    if provenance is None or not provenance.is_finished:
        raise UserError(f"{path}: its provenance is not that of a finished split; push the delta again")
    folder = SplitFolder.of(SplitPaths(root, config, split), provenance)
    split_files = {folder.name_of(shard) for shard in range(folder.shards)}
    if {*about.files} != {f"{DELTAS}/{name}" for name in split_files} or {*provenance.files} != split_files:
        raise UserError(f"{path}: its files are not those of {config}/{split}; push the delta again")
    return about, provenance


def read_delta(root: Path, name: str, digest: str, features: Features) -> pa.Table:
    """Return the table in the file `name` of a delta, whose sha256 is `digest`.

    `features` are of the split's columns. Raises UserError if the file is missing or was changed, or has other columns
    than such a split.
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
        reason = one_line(error, 120)
        raise UserError(f"{path}: is not the delta of a split ({reason}); get another from its publisher") from None
    return table


def _check_columns(table: pa.Table, split: pa.Schema) -> None:
    """Raise ValueError or ArrowException unless a table is that of a delta of a split with the schema `split`."""
    metadata = table.schema.metadata or {}
    stored_schema = pa.ipc.read_schema(pa.py_buffer(metadata.get(_SPLIT_SCHEMA, b"")))
    fields = [pa.field(field.name, pa.binary()) if field.name in IMAGES else field for field in split]
    expected = pa.schema([*fields, pa.field(DIGEST, pa.string())])
    if not stored_schema.equals(split) or not table.schema.equals(expected):
        raise ValueError("it has the wrong columns")
    if any(column.null_count for column in table.columns):
        raise ValueError("a value is missing")


def rebuilt_file(table: pa.Table, originals: Mapping[int, np.ndarray], provenance: Provenance, name: str) -> memoryview:
    """Return the file of a split's shard, byte for byte as it was published, from the table of the shard's delta.

    `originals` are pixels, uint8 [H, W, 3], by id; each has been checked against its digest. Raises UserError if the
    rebuilt bytes differ.
    """
    content = parquet_bytes(_unmasked_table(table, provenance.files_digest, originals))
    if hashlib.sha256(content).hexdigest() != provenance.files[name]:
        writer = table.schema.metadata.get(_SPLIT_WRITER, b"another pyarrow").decode(errors="replace")
        reason = "its delta was changed: fetch it again from where it was published"
        if not writer.endswith(f" {pa.cpp_version}"):
            reason = f"it was written by {writer}, and this is {pa.cpp_version}: install that version; or {reason}"
        raise UserError(f"{name}: the rebuilt file differs from the published one; {reason}")
    return content


def _unmasked_table(table: pa.Table, split: str, originals: Mapping[int, np.ndarray]) -> pa.Table:
    """Return the table of a split's shard from that of its delta; `split` is the digest of the split's files."""
    schema = pa.ipc.read_schema(pa.py_buffer(table.schema.metadata[_SPLIT_SCHEMA]))
    ids = table["id"].to_pylist()
    columns = []
    for field in schema:
        if field.name not in IMAGES:
            columns.append(table[field.name].combine_chunks())
            continue
        images = []
        for content, example_id in zip(table[field.name].to_pylist(), ids, strict=True):
            image = masked(content, split, field.name, example_id, originals[example_id])
            images.append({"bytes": image, "path": None})
        columns.append(pa.array(images, type=field.type))
    return pa.table(columns, schema=schema)


def _masked_table(table: pa.Table, metadata: dict[bytes, Any], split: str) -> pa.Table:
    """Return the table of a delta from that of a split's shard; `split` is the digest of the split's files."""
    ids = table["id"].to_pylist()
    originals = [np.asarray(open_rgb(image["bytes"])) for image in table["original"].to_pylist()]
    for name in IMAGES:
        contents = []
        for image, example_id, pixels in zip(table[name].to_pylist(), ids, originals, strict=True):
            contents.append(masked(image["bytes"], split, name, example_id, pixels))
        column = pa.array(contents, pa.binary())
        table = table.set_column(table.schema.get_field_index(name), name, column)
    table = table.append_column(DIGEST, pa.array(list(map(pixels_sha256, originals))))
    return table.replace_schema_metadata(metadata)
