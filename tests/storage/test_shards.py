"""What is taken for a shard of a split, and what splits may share a config."""

import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel

from fmrgen.errors import UserError
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import check_config, read_provenance
from fmrgen.storage.schema import KNOWN_COLUMNS, are_whole
from fmrgen.storage.shards import ShardError, SplitFolder


def folder_of(root):
    paths = SplitPaths(root, "mnist", "lenet")
    provenance = read_provenance(paths)
    return SplitFolder.of(paths, provenance), provenance


def checked(folder, provenance, shard=0):
    return folder.check_shard(shard, provenance)


def test_a_shard_under_the_name_of_another_is_none(split):
    folder, provenance = folder_of(split)
    assert len(checked(folder, provenance).ids) == 40
    os.replace(folder.shard_path(1), folder.shard_path(0))
    with pytest.raises(ShardError, match="is shard 1 under another name"):
        checked(folder, provenance)


@pytest.mark.parametrize("column", ["prediction", "image"])
def test_a_shard_with_a_missing_value_is_none(split, column):
    folder, provenance = folder_of(split)
    table = pq.read_table(folder.shard_path(0))
    place = table.schema.get_field_index(column)
    values = table[column].to_pylist()
    values[3] = None if column == "prediction" else {"bytes": None, "path": None}
    changed = table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type))
    pq.write_table(changed, folder.shard_path(0), write_page_checksum=True)
    with pytest.raises(ShardError, match="a value is missing"):
        checked(folder, provenance)


@pytest.mark.parametrize("part", ["oracle", "generator"])
def test_splits_with_other_weights_share_no_config(split, part):
    folder, provenance = folder_of(split)
    paths = replace(folder.paths, split="other")
    check_config(paths, provenance, "here")
    weights = provenance.weights_sha256.model_copy(update={part: "0" * 64})
    other = provenance.model_copy(update={"weights_sha256": weights})
    with pytest.raises(UserError, match=f"config mnist has another {part} in its split lenet"):
        check_config(paths, other, "here")


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (OSError(5, "Input/output error"), UserError, "can't be read: .*Input/output error"),
        (MemoryError("no room"), UserError, "can't be read: no room"),
        (OSError("Couldn't deserialize thrift"), ShardError, "is damaged"),
    ],
    ids=["a disk", "memory", "content"],
)
def test_only_content_makes_a_shard_damaged(split, monkeypatch, fault, error, message):
    folder, provenance = folder_of(split)

    def fail(*arguments, **options):
        raise fault

    monkeypatch.setattr(pq, "ParquetFile", fail)
    with pytest.raises(UserError, match=message) as raised:
        checked(folder, provenance)
    assert type(raised.value) is error


def test_columns_of_others_are_read_where_their_type_fits():
    names = ClassLabel(names=["a", "b"])
    assert KNOWN_COLUMNS["stop_reason"].can_be(names)
    assert not KNOWN_COLUMNS["clip_score"].can_be(names)
    assert not KNOWN_COLUMNS["judges"].can_be(names)


@pytest.mark.parametrize(
    ("records", "is_whole"),
    [([], True), ([{"stop_reason": "oracle"}], True), ([{"stop_reason": None}], False), ([None], False)],
)
def test_records_of_attacks_are_whole(records, is_whole):
    assert are_whole(records) == is_whole
